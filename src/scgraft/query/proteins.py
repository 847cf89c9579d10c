"""Proteins of a query in the reference's order, wherever they are: obsm, a modality, or rows of X that are antibodies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from scgraft.errors import NotCounts
from scgraft.values.blocks import Block, BlockCounts

if TYPE_CHECKING:
    from anndata import AnnData

FEW = 5  # names in a sentence; chosen by eye, as for genes
# What panels write around the name of a protein: the product line, the species of the antibody's target, the kind of feature.
AROUND = re.compile(
    r"[_\-. ]?totalseq[_\-]?[abcd]?$|^(adt|prot|ab)[_\-.]|[_\-.](adt|prot|ab)$|anti[-_. ]?(human|mouse|rat)[-_. ]*",
    re.IGNORECASE,
)
CONTROL = re.compile(r"isotype|igg|control", re.IGNORECASE)
TOLERANCE = 1e-3  # distance from a whole number that float32 leaves in counts; chosen by eye, as for genes


@dataclass(frozen=True)
class _Place:
    """Somewhere proteins could be: its name, their names (m,), and their values (n, m), missing ones as NaN."""

    source: str
    names: tuple[str, ...]
    values: Any


def protein_key(name: str) -> str:
    """A protein's name without what panels write around it: ``CD3_TotalSeqB``, ``anti-human CD3`` and ``cd3`` are the same."""
    return re.sub(r"[^a-z0-9]", "", AROUND.sub("", name.strip()).lower())


def match_names(own: tuple[str, ...], names: tuple[str, ...]) -> dict[int, int]:
    """Position in `names` of each of `own` that has one: by the exact name, else by what is left of it where that is unique."""
    found = {i: names.index(name) for i, name in enumerate(own) if names.count(name) == 1}
    keys, mine = [protein_key(name) for name in names], [protein_key(name) for name in own]
    taken = set(found.values())
    for i, key in enumerate(mine):
        if i not in found and key and mine.count(key) == 1 and keys.count(key) == 1 and keys.index(key) not in taken:
            found[i] = keys.index(key)
    return found


def align_proteins(
    adata: AnnData, block: Block, others: tuple[np.ndarray, csr_matrix] | None
) -> tuple[BlockCounts, list[str]]:
    """Proteins of every cell in the reference's order, and what the user should know of them.

    Parameters
    ----------
    adata
        The query.
    block
        What the reference has.
    others
        Names (m,) and counts (n, m) of the features beside genes where the genes were found.

    Raises
    ------
    NotCounts
        The proteins are no raw counts.
    """
    own, n = block.features, adata.n_obs
    places = [(place, match_names(own, place.names)) for place in _places(adata, block, others)]
    best = max(places, key=lambda found: len(found[1]), default=None)
    values = np.zeros((n, len(own)), np.float32)
    measured = np.zeros((n, len(own)), bool)
    if best is None or not best[1]:
        none = (
            f"No protein of the reference was found (it has {', '.join(own[:FEW])}, ...): the cells are mapped by their genes "
            "alone. The encoder then sees zeros in place of the proteins; they count as missing everywhere else."
        )
        return BlockCounts(csr_matrix(values), measured), [none]
    place, at = best
    columns = np.array(list(at.values()))
    taken = np.asarray(
        place.values[:, columns].todense() if hasattr(place.values, "todense") else place.values[:, columns]
    )
    taken = taken.astype(np.float64)
    there = ~np.isnan(taken)
    _refuse_no_counts(taken[there], place.source)
    values[:, list(at)] = np.where(there, np.rint(np.nan_to_num(taken)), 0)
    measured[:, list(at)] = there
    missing = [name for i, name in enumerate(own) if i not in at]
    said = [f"{len(at)} of the reference's {len(own)} proteins were found in {place.source}."]
    if missing:
        said.append(f"Proteins that the query lacks count as missing, not as zero: {', '.join(missing[:FEW])}.")
    unused = [name for i, name in enumerate(place.names) if i not in set(at.values())]
    if controls := [name for name in unused if CONTROL.search(name)]:
        said.append(f"Isotype controls were set aside: {', '.join(controls[:FEW])}.")
    return BlockCounts(csr_matrix(values), measured), said


def _places(adata: AnnData, block: Block, others: tuple[np.ndarray, csr_matrix] | None) -> Iterator[_Place]:
    keys = sorted(adata.obsm, key=lambda key: key != block.place)
    for key in keys:
        value = adata.obsm[key]
        if isinstance(value, pd.DataFrame):
            numbers = value.select_dtypes("number")
            yield _Place(f"obsm[{key!r}]", tuple(map(str, numbers.columns)), numbers.to_numpy())
            continue
        width = value.shape[1] if getattr(value, "ndim", 0) == 2 else 0
        names = next((tuple(map(str, v)) for v in adata.uns.values() if _are_names(v, width)), None)
        if names is None and key == block.place and width == len(block.features):
            names = block.features  # an array without names is in the order that the reference's was in
        if names is not None:
            yield _Place(f"obsm[{key!r}]", names, value)
    if others is not None and len(others[0]):
        yield _Place("the features of X that are not genes", tuple(map(str, others[0])), others[1])


def _are_names(value: object, width: int) -> bool:
    if not isinstance(value, (list, tuple, np.ndarray)) or len(value) != width or not width:
        return False
    return all(isinstance(item, str) for item in value)


def _refuse_no_counts(values: np.ndarray, source: str) -> None:
    wrong = ~np.isfinite(values) | (values < 0) | (np.abs(values - np.rint(values)) > TOLERANCE)
    if wrong.any():
        raise NotCounts(
            f"The proteins in {source} are no raw counts: {int(wrong.sum())} of {values.size} values are negative, infinite or "
            f"fractions, e.g. {values[wrong][0]:.4g}. Give the counts of the antibodies as they were sequenced, without CLR or DSB "
            "normalisation."
        )
