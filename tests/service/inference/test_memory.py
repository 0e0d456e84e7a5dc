from __future__ import annotations

import platform
import subprocess
import sys

import needs
import pytest

from service.inference import usable_cpus
from service.inference.memory import ARENAS_PER_CPU

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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason=needs.GLIBC)
def test_what_was_freed_is_used_again() -> None:
    """Without a word to the kernel, which would have to find the pages, and clear them."""
    kept = faults("kept")
    assert kept < 100
    assert faults("as it is") > 10 * max(1, kept)


# More threads than there are to be arenas, each with something in memory of its own
ARENAS = """
import ctypes, sys, tempfile, threading
from service.inference import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()
count = int(sys.argv[2])
together = threading.Barrier(count)
def hold():
    held = [bytes(100_000) for _ in range(10)]
    together.wait()
threads = [threading.Thread(target=hold) for _ in range(count)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
libc.fclose.argtypes = [ctypes.c_void_p]
with tempfile.NamedTemporaryFile() as file:
    stream = libc.fopen(file.name.encode(), b"w")
    libc.malloc_info(0, stream)
    libc.fclose(stream)
    print(file.read().count(b"<heap nr="))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason=needs.GLIBC)
def test_threads_share_what_they_free() -> None:
    """Each arena keeps its own; there are two a CPU, and not eight."""
    most = ARENAS_PER_CPU * usable_cpus()

    def arenas(how: str) -> int:
        command = [sys.executable, "-c", ARENAS, how, str(4 * most)]
        return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)

    assert arenas("kept") == most < arenas("as it is")
