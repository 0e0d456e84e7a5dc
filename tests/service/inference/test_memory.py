from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# Buffers as images need them, again and again; a page is 4 KiB, unless the kernel makes larger ones
SCRIPT = """
import resource, sys
import numpy as np
from service.inference import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()
def work():
    for size in (6, 2, 12):
        np.ones(size * 2**20, np.uint8)
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    command = [sys.executable, "-c", SCRIPT, how]
    return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_what_was_freed_is_used_again() -> None:
    """Without a word to the kernel, which would have to find the pages, and clear them."""
    kept = faults("kept")
    assert kept < 100
    assert faults("as it is") > 10 * max(1, kept)
