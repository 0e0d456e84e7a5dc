"""Two lanes: people wait for the answers of one, archives for those of the other."""

from __future__ import annotations

import os
import sys
import threading
from typing import Literal

Lane = Literal["interactive", "backfill"]
LANES: tuple[Lane, ...] = ("interactive", "backfill")  # in the order in which they are served

# A tenth of the weight of others. With the lowest, 19, an interactive image waited up to 100 ms for
# a thread that held Python's lock and got no time to release it
BACKGROUND_PRIORITY = 10


def lower_priority() -> None:
    """Let the calling thread, and those it starts, have little more than what no other wants.

    A batch of eight images keeps a CPU for a fifth of a second, so the order of a queue alone
    cannot help whom it keeps waiting; the scheduler takes the CPU away from it at once. Outside
    Linux priorities belong to whole processes, and nothing is changed.
    """
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), BACKGROUND_PRIORITY)
