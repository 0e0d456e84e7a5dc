"""Memory that was just freed is what the next image needs."""

from __future__ import annotations

import ctypes
import sys

from service.inference.cpus import usable_cpus

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # <malloc.h>
LARGEST_POOLED = 32 * 2**20  # bytes; the most that glibc takes
MOST_KEPT = 256 * 2**20
# Threads that share an arena use again what any of them has freed. By default there are eight a
# CPU, and a pod at its worst needed 100 to 300 MiB more; fewer would make threads wait
ARENAS_PER_CPU = 2


def keep_freed_memory(most_kept: int = MOST_KEPT) -> bool:
    """Let glibc keep what is freed, for all threads, instead of returning it to the kernel.

    Images need buffers of a megabyte or more. Fetched from the kernel each time, and filled with
    zeros by it page by page, they made a fifth of the time of decoding a PNG.

    Args:
        most_kept: Bytes at the end of each heap; one process has several.

    Returns:
        Whether the C library knows these settings; others are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    pooled = mallopt(M_MMAP_THRESHOLD, LARGEST_POOLED)
    kept = mallopt(M_TRIM_THRESHOLD, most_kept)
    shared = mallopt(M_ARENA_MAX, ARENAS_PER_CPU * usable_cpus())
    return bool(pooled and kept and shared)
