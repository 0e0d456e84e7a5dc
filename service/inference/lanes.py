"""Two lanes: people wait for the answers of one, archives for those of the other."""

from __future__ import annotations

import os
import sys
import threading
from typing import Literal

Lane = Literal["interactive", "backfill"]
LANES: tuple[Lane, ...] = ("interactive", "backfill")  # in the order in which they are served

# Niceness; each step is a quarter of a CPU's share.
# Backfill has a twentieth of the weight of others: with the least, an interactive image waited up
# to 100 ms for a thread that held Python's lock and got no time to release it
NETWORK_NICENESS: dict[Lane, int] = {"interactive": 0, "backfill": 13}
DECODE_NICENESS: dict[Lane, int] = {"interactive": 0, "backfill": 15}
# One batch, or one file in its decoder, that takes longer will never end: the slowest take a second
# or two of a CPU. Beside people who need all of it, backfill gets a thirtieth
STUCK_SECONDS: dict[Lane, float] = {"interactive": 60, "backfill": 600}


def lower_priority(niceness: int) -> None:
    """Let the calling thread, and those it starts, yield to others by so much more.

    A batch of eight images keeps a CPU for a fifth of a second, so the order of a queue alone
    cannot help whom it keeps waiting; the scheduler takes the CPU away from it at once. Outside
    Linux priorities belong to whole processes, and nothing is changed.
    """
    if sys.platform == "linux" and niceness:
        thread = threading.get_native_id()
        before = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, before + niceness)
