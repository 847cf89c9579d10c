"""A random order of cells that does not depend on the order in which they come."""

from __future__ import annotations

import numpy as np

# Shifts and factors of the finaliser of splitmix64 (Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195), which makes every
# bit of the result depend on every bit of its argument.
MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
LAST_SHIFT = 31  # the last step of the same finaliser


def order_by_name(names: np.ndarray, seed: int) -> np.ndarray:
    """Positions (n,) int64 of cells in a random order that depends on their names and the seed alone.

    Each name gets a 64-bit hash, and the cells are sorted by it. So the same set of cells comes in the same order whatever
    order it is given in, and the first m of them are a random sample of the cells.

    Parameters
    ----------
    names
        Names of the cells, (n,) str, no two the same.
    seed
        Another seed gives another order.
    """
    text = np.ascontiguousarray(names, dtype=str)
    letters = text.view(np.uint32).reshape(len(text), -1)
    factors = np.random.default_rng(seed).integers(0, 2**64, size=letters.shape[1], dtype=np.uint64)
    key = np.zeros(len(text), np.uint64)
    for letter, factor in zip(letters.T, factors, strict=True):
        key += (
            letter * factor
        )  # unsigned numbers wrap around, as a hash should; the zeros behind a short name add nothing
    for shift, multiplier in MIX:
        key = (key ^ (key >> np.uint64(shift))) * np.uint64(multiplier)
    return np.argsort(key ^ (key >> np.uint64(LAST_SHIFT)), kind="stable")
