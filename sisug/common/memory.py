"""Memory of training on a CPU (every stage): freed tensors stay with the process, for the next step to use."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # glibc's malloc.h


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed memory instead of giving it back to the system.

    By default each tensor above 32 MB at most is fresh memory from the system, which has to be cleared page by page
    when it is first written: as much work as many an operation on it. A training step frees and asks for the same sizes
    again and again. The process's memory then stays at its peak, which it reaches in its first steps anyway.

    Returns:
        Whether it worked: False where the C library is another than glibc.

    Source: our choice, for want of the allocators that PyTorch's guide recommends (jemalloc, TCMalloc), which are no
        Python packages. Forward passes of a 1024 px generator on one core take 0.5 to 0.6 of the time, those of
        64 px 0.75, `sisug generate` at 64 px 0.93; a whole training step gains 0 to 6 %
        (`make bench-generator-training`).
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return all(
        mallopt(option, value) == 1 for option, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, 2**26))
    )
