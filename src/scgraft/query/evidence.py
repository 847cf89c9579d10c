"""Whether whole numbers are counts of molecules: each piece of evidence is a function of the numbers alone.

Every function takes a CSR matrix (cells x genes) of non-negative whole numbers without stored zeros. The thresholds were tried on
fourteen public count matrices (UMIs and reads, whole and cut to 300 genes), none of which comes near one, and on masks, ranks,
clipped, multiplied, and rounded normalised, logarithmic and square-root values made of them.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

TELLING = 20  # cells, or values in a cell: fewer can look like anything
# A common factor of a hundred values is no accident: real counts hold a one in nearly every cell.
FACTOR_VALUES = 100
EVEN = 0.01  # share of too even genes: 0 in every count matrix, .01 to 1 in rounded logarithms and masks
FEWEST_EVEN = 3  # in a panel of a few genes one may be too even because it makes up most of every cell
STANDARD_ERRORS = 5.0  # ones beyond the bound: -11 and less in counts, 10 and more in masks
NO_SPREAD = 0.02  # of the totals: .31 and more in counts, .018 and less where every cell was given one total
RANKS = 0.9  # share of cells: 0.02 and less in counts, 1 in ranks of any kind, .6 in counts clipped at 50
PILE = 2.0  # 0 in counts, 2.1 and more where they are clipped, .3 and less in rounded logarithms
LOG_RANGE, LOG_ONES = 16, 0.3  # log2 of 65,536; counts that stay below it are mostly ones
FROM_ONE = 0.5  # share of cells that start at one: .8 and more in counts, even of the 300 most abundant genes
BAND = 0.05  # a rounded multiple of a unit lies between one and two units by accident only
SMALL = 12  # numbers below this are compared: larger ones are too rare to tell; chosen by eye
# Standard errors below the bound, and share of it that is there. In 400 and in 1,500 cells of the count matrices at hand, whole or
# 300 genes of them: never below -1.9; rounded logarithms, roots and halves of them: -4 to -19 and .0 to .9.
DIP_REFUSED, DIP_DOUBTED = (-5.0, 0.7), (-3.0, 0.9)
ALIKE = (
    0.2  # spread of the totals that is doubted: .31 and more in counts, .02 to .17 where normalised values were rounded
)


def common_divisor(matrix: sparse.csr_matrix) -> int:
    """Largest whole number that divides every value; counts have 1, counts that were multiplied have the factor."""
    return int(np.gcd.reduce(matrix.data.astype(np.int64), initial=0))


def totals(matrix: sparse.csr_matrix) -> np.ndarray:
    """Sum of each cell that is not empty, float64."""
    found = np.asarray(matrix.sum(axis=1, dtype=np.float64)).ravel()
    return found[found > 0]


def spread_of_totals(matrix: sparse.csr_matrix) -> float:
    """Standard deviation of the cells' totals over their mean; normalised cells have nearly none. Few cells: infinite."""
    found = totals(matrix)
    return float(found.std() / found.mean()) if len(found) >= TELLING else np.inf


def share_from_one(matrix: sparse.csr_matrix) -> float:
    """Share of the cells, of those with enough values, whose smallest value is 1: nearly all, where molecules are counted."""
    smallest = _smallest(matrix)[np.diff(matrix.indptr) >= TELLING]
    return float((smallest == 1).mean()) if len(smallest) else 1.0


def share_between_units(matrix: sparse.csr_matrix) -> float:
    """Of the values below two of a cell's smallest, the share that are clearly above one of it; 1 where it cannot be told.

    Rounded normalised counts are multiples of a unit, and leave this band empty; counts fill it.
    """
    unit = np.repeat(_smallest(matrix), np.diff(matrix.indptr))
    told = unit >= 5  # narrower bands are blurred by the rounding
    near = int((told & (matrix.data <= unit + 1)).sum())
    band = int((told & (matrix.data > unit + 1) & (matrix.data < 2 * unit - 1)).sum())
    return band / (near + band) if near >= TELLING else 1.0


def excess_of_ones(matrix: sparse.csr_matrix) -> float:
    """How many ones there are beyond what any counts with as many zeros can have, in standard errors.

    Counts are a mixture of Poisson variables, whatever differs between cells. With u = exp(-rate), the share of zeros is
    E[u] and that of ones E[-u log u]; -u log u is concave, so ones have at most the share -p0 log p0 (Jensen).
    """
    n = matrix.shape[0]
    absent = (n - np.bincount(matrix.indices, minlength=matrix.shape[1]) + 1) / (n + 2)
    most = float((-n * absent * np.log(absent)).sum())
    return float(((matrix.data == 1).sum() - most) / np.sqrt(max(most, 1.0)))


# least_mean: below half a count on the mean even a mask is hardly more even than counts.
def too_even(matrix: sparse.csr_matrix, least_mean: float = 0.5) -> tuple[int, float]:
    """Genes whose variance over cells is below their mean by five standard errors: how many, and which share of the abundant.

    A mixture of Poisson variables has at least the variance of one, its mean (law of total variance); logarithms, roots
    and masks have less. The standard error of the ratio of a Poisson variable is sqrt(2 / n).
    """
    n = matrix.shape[0]
    mean = np.bincount(matrix.indices, matrix.data.astype(np.float64), minlength=matrix.shape[1]) / max(n, 1)
    square = np.bincount(matrix.indices, matrix.data.astype(np.float64) ** 2, minlength=matrix.shape[1]) / max(n, 1)
    abundant = mean >= least_mean
    if n < TELLING or not abundant.any():
        return 0, 0.0
    ratio = (square - mean**2)[abundant] / mean[abundant]
    even = ratio < 1 - STANDARD_ERRORS * np.sqrt(2 / n)
    return int(even.sum()), float(even.mean())


def dip(matrix: sparse.csr_matrix, axis: int) -> tuple[float, float]:
    """How far some small number is too frequent beside its neighbours, in standard errors, and what share of the bound is there.

    For a mixture of Poisson variables, k! p(k) = E[exp(-rate) rate^k], so (k+1) p(k+1)^2 <= (k+2) p(k) p(k+2) (Cauchy and
    Schwarz): of the numbers 0, 1, 2, ... none may stand out. Rounded roots, logarithms and multiples squeeze or skip numbers.
    Both sides are estimated without bias from the numbers of values of each cell (axis 0) or gene (axis 1) and summed over these;
    the standard error is that of the sum. The number that stands out most is reported; (0, 1) where fewer than 20 can tell.
    """
    n = matrix.shape[axis]
    group = np.repeat(np.arange(n), np.diff(matrix.indptr)) if axis == 0 else matrix.indices
    value = np.minimum(matrix.data, SMALL).astype(np.int64)
    number = (
        np.bincount(group * (SMALL + 1) + value, minlength=n * (SMALL + 1)).reshape(n, SMALL + 1).astype(np.float64)
    )
    number[:, 0] = matrix.shape[1 - axis] - number.sum(axis=1)
    number, k = number[:, :SMALL], np.arange(SMALL - 2)
    bound = (k + 2) / (k + 1) * number[:, :-2] * number[:, 2:]
    found = number[:, 1:-1] * (number[:, 1:-1] - 1)
    told = (found > 0).sum(axis=0) >= TELLING
    if not told.any():
        return 0.0, 1.0
    error = np.sqrt(((bound - found) ** 2).sum(axis=0))
    below = np.where(told, (bound - found).sum(axis=0) / np.maximum(error, 1.0), np.inf)
    worst = int(below.argmin())
    return float(below[worst]), float(bound[:, worst].sum() / found[:, worst].sum())


def dips(matrix: sparse.csr_matrix, limits: tuple[float, float]) -> bool:
    """Whether a small number stands out in cells or in genes, by so many standard errors and to such a share of the bound."""
    return any(error < limits[0] and share < limits[1] for error, share in (dip(matrix, 0), dip(matrix, 1)))


def share_of_ranks(matrix: sparse.csr_matrix) -> float:
    """Share of the cells, of those that reach 20, whose values are their own ranks, ties counted in any usual way.

    Bins are dense ranks as well: every number from 1 to the largest occurs.
    """
    same, told = 0, 0
    for start, stop in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True):
        values = np.sort(matrix.data[start:stop])
        if len(values) and values[-1] >= TELLING:
            told += 1
            lowest, highest = (np.searchsorted(values, values, side) for side in ("left", "right"))
            dense = len(np.unique(values)) == values[-1]
            same += dense or np.array_equal(values, lowest + 1) or np.array_equal(values, highest)
    return same / told if told >= TELLING else 0.0


def pile_at_the_top(matrix: sparse.csr_matrix) -> float:
    """How often the largest value occurs for each time that the number below it does: clipped counts pile up."""
    top = matrix.data.max(initial=0)
    at, below = int((matrix.data == top).sum()), int((matrix.data == top - 1).sum())
    return at / max(below, 1) if top >= 2 and at >= TELLING else 0.0


def refusal(matrix: sparse.csr_matrix) -> str | None:
    """What the numbers are, where they cannot be counts; None where they can."""
    data, spread = matrix.data, spread_of_totals(matrix)
    if not len(data) or matrix.shape[0] < TELLING:
        return None
    top, excess = data.max(), excess_of_ones(matrix)
    if top == 1 and excess > STANDARD_ERRORS:
        return "looks like a mask (present or absent): no value is above 1, though this many genes were found"
    if share_of_ranks(matrix) >= RANKS:
        return "looks like ranks or bins: in each cell the values are their own ranks"
    if spread < NO_SPREAD and not _downsampled(matrix):
        return f"looks like normalised values that were rounded: every cell has the same total, {totals(matrix).mean():,.0f}"
    if pile_at_the_top(matrix) >= PILE:
        return None
    genes, share = too_even(matrix)
    if top <= LOG_RANGE and (genes >= FEWEST_EVEN and share > EVEN or (data == 1).mean() < LOG_ONES):
        return f"looks like logarithms that were rounded: the largest value is {top:.0f}, and genes vary less than counts can"
    if genes >= FEWEST_EVEN and share > EVEN or excess > STANDARD_ERRORS:
        return "looks like normalised or square-root values that were rounded: genes vary less than counts can"
    if share_between_units(matrix) < BAND:
        return "looks like normalised values that were rounded: each cell's values are multiples of a unit above one"
    if dips(matrix, DIP_REFUSED):
        return (
            "looks like transformed values that were rounded: a small number is more frequent than it can be in counts"
        )
    return None


def doubt(matrix: sparse.csr_matrix) -> str | None:
    """What is odd about numbers that can be counts, for the user; None where nothing is."""
    data = matrix.data
    if not len(data) or matrix.shape[0] < TELLING:
        return None
    if pile_at_the_top(matrix) >= PILE:
        return f"looks clipped: {int((data == data.max()).sum())} values are {data.max():.0f}, and none is larger"
    if spread_of_totals(matrix) < NO_SPREAD:
        return f"has {totals(matrix)[0]:,.0f} counts in every cell, as after downsampling"
    if spread_of_totals(matrix) < ALIKE:
        return f"has nearly the same total in every cell, about {np.median(totals(matrix)):,.0f}, as after normalisation and rounding"
    if dips(matrix, DIP_DOUBTED):
        return "has a small number that is more frequent than it should be in counts; values that were rounded look like this"
    if share_from_one(matrix) < FROM_ONE:
        return "has no ones in most cells; normalised values that were rounded look like this"
    return None


def _downsampled(matrix: sparse.csr_matrix) -> bool:
    """Whether one total is a number of drawn molecules: it is the same to the last one, and cells have ones."""
    return float(np.ptp(totals(matrix))) == 0 and share_from_one(matrix) > 1 - NO_SPREAD


def _smallest(matrix: sparse.csr_matrix) -> np.ndarray:
    """Smallest value of each cell, (n,); 0 where a cell is empty."""
    out, filled = np.zeros(matrix.shape[0]), np.diff(matrix.indptr) > 0
    if filled.any():
        out[filled] = np.minimum.reduceat(matrix.data, matrix.indptr[:-1][filled])
    return out
