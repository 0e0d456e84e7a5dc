"""Memory that was just freed is what the next image needs."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # <malloc.h>
LARGEST_POOLED = 32 * 2**20  # bytes; the most that glibc takes
MOST_KEPT = 256 * 2**20  # bytes at the end of each heap


def keep_freed_memory() -> bool:
    """Let glibc keep what is freed, instead of returning it to the kernel after every image.

    Images need buffers of a megabyte or more. Fetched from the kernel each time, and filled with
    zeros by it page by page, they made a fifth of the time of decoding a PNG.

    Returns:
        Whether the C library knows these settings; others are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    pooled = mallopt(M_MMAP_THRESHOLD, LARGEST_POOLED)
    kept = mallopt(M_TRIM_THRESHOLD, MOST_KEPT)
    return bool(pooled and kept)
