"""Names of chromatin regions: the same interval is written in several ways, and other intervals are other features."""

from __future__ import annotations

import numpy as np

from scgraft.errors import GenesNotFound
from scgraft.files.regions import REGION, are_regions, regions_among
from scgraft.query.genes import GeneMatch


def same_spelling(names: np.ndarray) -> np.ndarray:
    """Names as ``chr1:1-2``, from ``chr1:1-2``, ``chr1-1-2``, ``chr1_1_2`` or ``1:1-2``; others as they are."""
    return np.array([_spell(str(name)) for name in names], dtype=str)


def _spell(name: str) -> str:
    match = REGION.fullmatch(name)
    if match is None:
        return name
    chromosome, start, end = match.groups()
    chromosome = chromosome if chromosome.lower().startswith("chr") or "." in chromosome else f"chr{chromosome}"
    return f"{chromosome}:{start}-{end}"


def spelled_as(reference: np.ndarray, query: np.ndarray) -> np.ndarray:
    """The query's regions as the reference spells them; names that are no region of the reference stay as they are."""
    if not are_regions(reference):
        return query
    known = dict(zip(same_spelling(reference).tolist(), reference.astype(str).tolist(), strict=True))
    own = query.tolist()
    return np.array([known.get(s, n) for s, n in zip(same_spelling(query).tolist(), own, strict=True)], dtype=str)


def match_regions(reference: np.ndarray, names: np.ndarray) -> GeneMatch:
    """Which columns of a query, with names (m,), are which regions of a reference (R,): the same interval, however it is written."""
    position = {name: i for i, name in enumerate(same_spelling(reference).tolist())}
    at = np.array([position.get(name, -1) for name in same_spelling(names).tolist()], np.int64)
    column = np.flatnonzero(at >= 0)
    count = np.bincount(at[column], minlength=len(reference))
    summed = {str(reference[g]): tuple(names[at == g].astype(str).tolist()) for g in np.flatnonzero(count > 1)}
    same = reference[at[column]].astype(str) == names[column].astype(str)
    exact, found = len(np.unique(at[column][same])), int((count > 0).sum())
    ways = {"var_names": exact, "regions in another spelling": found - exact}
    matched_by = {way: n for way, n in ways.items() if n}
    return GeneMatch(column, at[column], matched_by, tuple(reference[count == 0].astype(str).tolist()), summed)


def require_regions(n_found: int, share: float, least: float, reference: np.ndarray, query: np.ndarray) -> None:
    """Refuse a query whose regions are not those of the reference; nothing where either side has none.

    Raises
    ------
    GenesNotFound
        The regions that both have carry less than `least` of the weight.
    """
    if share >= least or not are_regions(reference):
        return
    own = query[regions_among(query)]
    if not len(own):
        return
    raise GenesNotFound(
        f"Only {n_found} of the reference's {len(reference)} regions are among the query's {len(own)}: the query was "
        "counted on another set of peaks, and neighbouring intervals are not the same feature. Count the query's "
        "fragments again on the reference's regions, and check that both use the same genome build. "
        f"The reference has {', '.join(map(str, reference[:3]))}, ...; the query has {', '.join(map(str, own[:3]))}, ...."
    )
