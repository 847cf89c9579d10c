"""A random order of cells that does not depend on the order in which they come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

BLOCK = 4096  # cells whose values are hashed at a time: some ten million, for memory
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
    return np.argsort(name_keys(names, seed), kind="stable")


def name_keys(names: np.ndarray, seed: int) -> np.ndarray:
    """The 64-bit hash of each name, (n,) uint64, that :func:`order_by_name` sorts by; a name has the same among any others."""
    key = np.zeros(len(names), np.uint64)
    for start in range(0, len(names), BLOCK):
        text = np.ascontiguousarray(names[start : start + BLOCK], dtype=str)
        letters = text.view(np.uint32).reshape(len(text), -1)
        factors = np.random.default_rng(seed).integers(0, 2**64, size=letters.shape[1], dtype=np.uint64)
        for letter, factor in zip(letters.T, factors, strict=True):
            # Unsigned numbers wrap around, as a hash should; the zeros behind a short name add nothing.
            key[start : start + BLOCK] += letter * factor
    return _mixed(key)


def order_by_content(counts: csr_matrix, seed: int) -> np.ndarray:
    """Positions (n,) int64 of cells in a random order that depends on their counts and the seed alone.

    As :func:`order_by_name`, where names are not at hand. Cells with the same counts keep their order among each other; they are
    the same cell to whoever asks for this order.

    Parameters
    ----------
    counts
        Counts of the cells, (n, G).
    seed
        Another seed gives another order.
    """
    factors = np.random.default_rng(seed).integers(0, 2**64, size=counts.shape[1], dtype=np.uint64)
    key = np.zeros(counts.shape[0], np.uint64)
    for start in range(0, counts.shape[0], BLOCK):
        begins = counts.indptr[start : start + BLOCK + 1]
        part = slice(begins[0], begins[-1])
        bits = counts.data[part].astype(np.float32).view(np.uint32)  # a stored zero has none and adds nothing
        total = np.cumsum(
            np.concatenate([np.zeros(1, np.uint64), bits * factors[counts.indices[part]]]), dtype=np.uint64
        )
        at = begins - begins[0]
        key[start : start + BLOCK] = total[at[1:]] - total[at[:-1]]  # wraps around
    return np.argsort(_mixed(key), kind="stable")


def _mixed(key: np.ndarray) -> np.ndarray:
    for shift, multiplier in MIX:
        key = (key ^ (key >> np.uint64(shift))) * np.uint64(multiplier)
    return np.asarray(key ^ (key >> np.uint64(LAST_SHIFT)))
