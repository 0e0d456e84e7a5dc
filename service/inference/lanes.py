"""The two lanes: interactive, for users who wait, and backfill, for archives."""

from __future__ import annotations

import os
import sys
import threading
from typing import Literal

Lane = Literal["interactive", "backfill"]
LANES: tuple[Lane, ...] = ("interactive", "backfill")  # in order of priority

# Niceness; each step changes the CPU share by about a quarter. Inference of backfill has a
# twentieth of the weight of interactive work. With the lowest priority, an interactive image waited
# up to 100 ms for a backfill thread that held the GIL and got no CPU time to release it
NETWORK_NICENESS: dict[Lane, int] = {"interactive": 0, "backfill": 13}
DECODE_NICENESS: dict[Lane, int] = {"interactive": 0, "backfill": 15}
# A batch, or a file in its decoder, that takes longer counts as stuck. The slowest take a second or
# two of CPU time; under full interactive load, backfill gets a thirtieth of the CPU
STUCK_SECONDS: dict[Lane, float] = {"interactive": 60, "backfill": 600}


def lower_priority(niceness: int) -> None:
    """Add `niceness` to the calling thread, and to threads that it starts later.

    A batch of eight images keeps a CPU for a fifth of a second, so the order of the queue alone
    does not help an interactive image; the scheduler preempts the batch at once. Does nothing
    outside Linux, where priorities are of whole processes.
    """
    if sys.platform == "linux" and niceness:
        thread = threading.get_native_id()
        before = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, before + niceness)
