"""The C library's allocator, set up for tensors that come and go at every step."""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_LARGEST_INT = 2**31 - 1
_LARGEST_MMAP_THRESHOLD = 2**25  # glibc refuses more


def keep_freed_memory() -> None:
    """Have glibc keep freed memory instead of handing it back; elsewhere, nothing.

    By default an activation of some megabytes goes back to the system when it is freed and is
    mapped, zeroed and faulted in page by page when it is next allocated: up to 20,000 faults and
    15 % of a step's time on a CPU. The peak stays what it is.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return
    mallopt(_TRIM_THRESHOLD, _LARGEST_INT)
    mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
