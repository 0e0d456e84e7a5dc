"""Backfill uses only the CPU time that other work leaves."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import needs
import pytest

from service.inference.lanes import lower_priority


def own_priority() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@pytest.mark.skipif(sys.platform != "linux", reason=needs.LINUX)
def test_a_thread_and_its_children_yield_and_no_other() -> None:
    """The thread that asks, and one that it starts, get a low priority; others keep theirs."""
    before = own_priority()
    yielding = ThreadPoolExecutor(1, initializer=lower_priority, initargs=(3,))
    with yielding as low, ThreadPoolExecutor(1) as other:
        assert low.submit(own_priority).result() == min(19, before + 3)

        def in_a_child() -> int:
            with ThreadPoolExecutor(1) as child:
                return child.submit(own_priority).result()

        assert low.submit(in_a_child).result() == min(19, before + 3)
        assert other.submit(own_priority).result() == before
    assert own_priority() == before
