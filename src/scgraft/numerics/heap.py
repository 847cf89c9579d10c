"""Memory that is free, but that the C library keeps: given back to the system between the phases of a long run."""

from __future__ import annotations

import ctypes


def give_back() -> bool:
    """Give free memory of the heap back to the system; whether there was any, and False where the C library is not glibc.

    Arrays of a few megabytes lie in the heap once larger ones were freed (glibc raises its threshold), and each thread has a heap of
    its own: what one phase has freed stays resident beside what the next one takes.
    """
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (AttributeError, OSError, TypeError):
        return False
