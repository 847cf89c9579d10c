"""How torch and numpy compute on a CPU: by which library, and on how many threads.

torch multiplies single-precision matrices by MKL, which leaves half of some processors' width unused, unless it is told that
a lower precision of the inputs will do: then by oneDNN, which rounds them only where the hardware multiplies the rounded type
itself, and otherwise is exact and uses the whole width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
import torch


@contextmanager
def fast_products(device: torch.device | str = "cpu", *, exact: bool) -> Iterator[None]:
    """Products of float32 matrices as fast as the machine can.

    Parameters
    ----------
    device
        Where the matrices are.
    exact
        Whether every digit of single precision is wanted. The gradient of a mini-batch is noisier than a rounding of its inputs
        to eight or eleven bits; a latent or a distance is not.
    """
    before = torch.get_float32_matmul_precision()
    if not exact or (torch.device(device).type == "cpu" and rounds_nothing()):
        torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@cache
def rounds_nothing() -> bool:
    """Whether products at torch's "medium" precision have all digits on this CPU: tried out, once in a process."""
    # A sum of numbers that need thirteen bits, exact in single precision, whatever its order.
    a, b = torch.full((128, 128), 1 + 2.0**-12), torch.ones(128, 128)
    with fast_products(exact=False):
        return bool((a @ b == 128 + 2.0**-5).all())


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The product (n, m) of writable float32 arrays (n, k) and (k, m), by torch and so as :func:`fast_products` says."""
    found: np.ndarray = (torch.as_tensor(a) @ torch.as_tensor(b)).numpy()
    return found


@contextmanager
def one_thread() -> Iterator[int]:
    """One thread for torch's operations and numpy's products; the value is how many torch had.

    Thousands of operations of a few microseconds are no faster on many threads, and on a busy machine every one of them waits
    for the thread that is not running. With one thread the result does not depend on the number of cores either.
    """
    from threadpoolctl import threadpool_limits

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield threads
    finally:
        torch.set_num_threads(threads)
