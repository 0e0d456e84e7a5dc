"""Settings of glibc's allocator: keep freed memory for the next image."""

from __future__ import annotations

import ctypes
import sys

from service.inference.cpus import usable_cpus

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # <malloc.h>
LARGEST_POOLED = 32 * 2**20  # bytes; glibc's maximum
MOST_KEPT = 256 * 2**20
# Threads that share an arena reuse each other's freed memory. With glibc's default of eight arenas
# a CPU, a pod needed up to 100 to 300 MiB more; with fewer than two, threads would wait
ARENAS_PER_CPU = 2


def keep_freed_memory(most_kept: int = MOST_KEPT) -> bool:
    """Let glibc keep freed memory instead of returning it to the kernel.

    Images need buffers of a megabyte or more. Getting them from the kernel each time, which fills
    every page with zeros, took a fifth of the time of decoding a PNG.

    Args:
        most_kept: Bytes kept at the end of each heap; a process has several heaps.

    Returns:
        Whether the settings apply; False if the C library is not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    pooled = mallopt(M_MMAP_THRESHOLD, LARGEST_POOLED)
    kept = mallopt(M_TRIM_THRESHOLD, most_kept)
    shared = mallopt(M_ARENA_MAX, ARENAS_PER_CPU * usable_cpus())
    return bool(pooled and kept and shared)
