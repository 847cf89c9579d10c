"""Bounds for tests of declared rates: how many cells may lie beyond a limit before the declared rate is disbelieved."""

from __future__ import annotations

import math

from scipy.stats import betabinom, binom, norm

NEVER = 1e-6  # the chance that a test of a true claim fails, had its seed not been fixed


def most(n: int, rate: float, chance: float = NEVER) -> int:
    """Of `n` independent cells, the number beyond a limit with a known rate that is exceeded with a probability below `chance`."""
    return int(binom.isf(chance, n, rate))


def fewest(n: int, rate: float, chance: float = NEVER) -> int:
    """The same from below: fewer than this have a probability below `chance`."""
    return int(binom.ppf(chance, n, rate))


def most_beyond_rank(n: int, n_null: int, rate: float, chance: float = NEVER) -> int:
    """Of `n` new cells, the most that may exceed a limit that is an order statistic of `n_null` exchangeable cells.

    The limit is the ceil((1 - rate) (n_null + 1))-th smallest of them; the number above is beta-binomial, whatever the distribution.
    """
    rank = math.ceil((1 - rate) * (n_null + 1))
    return int(betabinom.isf(chance, n, n_null + 1 - rank, rank))


def fewest_beyond_rank(n: int, n_null: int, rate: float, chance: float = NEVER) -> int:
    """The same from below."""
    rank = math.ceil((1 - rate) * (n_null + 1))
    return int(betabinom.ppf(chance, n, n_null + 1 - rank, rank))


def sigmas(chance: float = NEVER) -> float:
    """Standard errors beyond which a normal variable lies, on either side together, with this probability."""
    return float(norm.isf(chance / 2))
