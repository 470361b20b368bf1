"""Keep freed memory in the process, where glibc would hand every large block back to the system.

Training and dynamics allocate and free the same tensors thousands of times a minute. By default
glibc maps blocks of 128 kB and more afresh each time, and the kernel zeroes their pages: a fifth of
the time of a training step of small molecules. With both thresholds at 1 GB blocks are reused.
"""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
_ONE_GB = 1 << 30


def keep_freed_memory() -> bool:
    """Tell the C allocator to reuse what is freed; return whether it could be told."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library: slower, not wrong
        return False
    told = [mallopt(option, _ONE_GB) for option in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD)]
    return all(told)
