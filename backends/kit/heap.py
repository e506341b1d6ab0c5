"""One heap for all threads, for a backend that works in many.

Why: glibc gives each of up to eight threads per processor a heap of its own, which it keeps; a
Docker backend grew by a megabyte for that. Under the interpreter's lock hardly two threads
allocate at the same time, so nothing is lost. Refuses to know any backend.
"""

import contextlib
import ctypes

_M_ARENA_MAX = -8  # malloc.h


def share() -> None:
    """Let threads that start from now on share what heaps there are; for the whole process."""
    with contextlib.suppress(AttributeError):  # other C libraries have no such switch
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
