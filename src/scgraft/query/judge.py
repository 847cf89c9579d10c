"""Judges every place where counts could be by a sample of its cells, and says which one is taken."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from scgraft.query.evidence import FACTOR_VALUES, common_divisor, doubt, refusal
from scgraft.query.places import JUDGED, LIKELY_LAYERS, Cells, Place, judged_rows, sample
from scgraft.query.recover import recover

INTEGER_TOLERANCE = 1e-3  # float32 holds counts up to 16,000 so exactly; what quantifiers estimate is rarely that close
# Layers that hold whole numbers, and not the counts that references are trained on.
OTHER_LAYERS = re.compile(
    r"unspliced|nascent|ambiguous|binar|mask|log|norm|scale|rank|cpm|tpm|smooth|imput|magic|denois|residual|pearson",
    re.IGNORECASE,
)
AS_GOOD = 0.01  # of the reference's weight: less than this more is not worth a likelier place

# Columns of a place that the reference uses, and the share of its weight that they have.
Used = Callable[[Place], tuple[np.ndarray, float]]


@dataclass(frozen=True)
class Judged:
    """A place, what it is worth to the reference, its kind (a smaller one is better evidence), and what is wrong or odd.

    `used` are the columns that the reference looks at, and `factor` is what all counts are multiplied by.
    """

    place: Place
    used: np.ndarray
    weight: float
    kind: int
    factor: int = 1
    problem: str | None = None
    doubt: str | None = None


@dataclass(frozen=True)
class Asked:
    """The layer to prefer, the place that was named by the user, and whether counts of molecules are looked for."""

    prefer: str | None = None
    layer: str | None = None
    molecules: bool = True


NAMED, RECOVERED, UNNAMED, DOUBTFUL, REFUSED = range(5)


def judge(cells: Cells, place: Place, matters: tuple[np.ndarray, float], asked: Asked) -> Judged:
    """What a sample of the cells says of a place."""
    used, weight = matters
    used = used if len(used) else np.arange(len(place.genes))
    judged = Judged(place, used, weight, UNNAMED)
    if place.problem is not None:
        return replace(judged, kind=REFUSED, problem=place.problem)
    some, name = sample(place.matrix), place.layer
    if name is None or name == asked.prefer or name.lower() in LIKELY_LAYERS:
        judged = replace(judged, kind=NAMED)
    if not len(some.data):
        return judged if cells.n > JUDGED else replace(judged, kind=REFUSED, problem="has no count at all")
    if (problem := first_problem(some[:, used])) is not None:
        # What is wrong is named when the place is read whole, if nothing better is there.
        return replace(judged, kind=RECOVERED if problem == "fractions" and _fits_log1p(some) else DOUBTFUL)
    if asked.layer is None and judged.kind == UNNAMED and OTHER_LAYERS.search(str(name)):
        return replace(judged, kind=REFUSED, problem="holds something else than the counts of a cell, by its name")
    if not asked.molecules:
        return judged
    whole = some if first_problem(some) is None else sparse.csr_matrix(some[:, used])
    whole.data = np.rint(whole.data)
    factor = common_divisor(whole) if whole.nnz >= FACTOR_VALUES else 1
    if factor > 1:
        whole = sparse.csr_matrix(whole / factor)
    if (problem := refusal(whole)) is not None:
        return replace(judged, kind=REFUSED, problem=problem)
    if (odd := doubt(whole) or _too_large(whole, cells)) is not None:
        return replace(judged, kind=DOUBTFUL, factor=factor, doubt=odd)
    return replace(judged, factor=factor)


def best_of(judged: Sequence[Judged]) -> Judged | None:
    """The place with the most of the reference's weight among those with the best evidence; None where none is left."""
    usable = [j for j in judged if j.kind < REFUSED]
    if not usable:
        return None
    enough = max(j.weight for j in usable if j.kind < DOUBTFUL or all(k.kind == DOUBTFUL for k in usable)) - AS_GOOD
    return min(usable, key=lambda j: (j.kind == DOUBTFUL, j.weight < enough, j.kind))


def passed_over(best: Judged, others: Sequence[Judged]) -> Iterator[str]:
    """Why a likelier place was not taken, in a sentence."""
    for other in others:
        if other.kind == NAMED and best.place.source != "X" and other.weight < best.weight - AS_GOOD:
            yield (
                f"The counts of {best.place.source} were taken, not those of {other.place.source}: they have {best.weight:.0%} of "
                f"what the reference looks at, those {other.weight:.0%}."
            )


def doubts(judged: Judged) -> tuple[str, ...]:
    """What is odd about a place that is taken, in a sentence."""
    return (
        () if judged.doubt is None else (f"{judged.place.source} {judged.doubt}: look whether these are raw counts.",)
    )


def wrong_values(data: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """What can be wrong with values, the worst first, and which they are."""
    yield "NaN", np.isnan(data)
    yield "infinite", np.isinf(data)
    yield "negative", data < 0
    with np.errstate(invalid="ignore"):
        yield "fractions", np.abs(data - np.rint(data)) > INTEGER_TOLERANCE


def first_problem(matrix: sparse.csr_matrix) -> str | None:
    """What is wrong with the values of a matrix, for the user; "fractions" may be undone."""
    name = next((name for name, wrong in wrong_values(matrix.data) if wrong.any()), None)
    return name if name in (None, "fractions") else f"has {name} values"


def _fits_log1p(some: sparse.csr_matrix) -> bool:
    return recover(some[: min(50, some.shape[0])]) is not None


def _too_large(matrix: sparse.csr_matrix, cells: Cells) -> str | None:
    """Whether cells have more than the total counts that obs gives them."""
    sums = np.asarray(matrix.sum(axis=1)).ravel()
    for column, total in cells.totals.items():
        if (sums > 1.01 * total[judged_rows(cells.n)] + 1).mean() > 0.1:
            return f"has larger totals than obs[{column!r}] says"
    return None
