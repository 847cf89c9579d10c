"""Cells on disk that are read in runs of rows: what a query that does not fit into memory is mapped from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from scgraft.errors import NotCounts, QueryError
from scgraft.files.known import read_table
from scgraft.files.structure import KNOWN, encoding_of
from scgraft.query.align import select_genes
from scgraft.query.counts import counts_of, take_first
from scgraft.query.genes import GeneMatch
from scgraft.query.judge import NAMED, Asked, Judged, Used, doubts, passed_over
from scgraft.query.kept import KeptCounts
from scgraft.query.on_disk import BY_GENES, OnDisk, check_file, members, names_of, opened, row_names, rows_of
from scgraft.query.places import TOTALS, Cells, Place, here, in_order, joined, judged_rows, sample, to_csr, totals_of
from scgraft.query.spatial import spatial_messages

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

BLOCK = 1024  # cells that are read at a time, with all genes of the file: 60 MB with what is made of 1,500 counts each
BYTES = 22  # of memory for each stored count of a query that is mapped in memory, measured on 300,000 cells


@dataclass(frozen=True)
class CellFile:
    """Counts and annotation of cells on disk.

    Parameters
    ----------
    path
        The file, in messages: ``"the query"`` where it is not known.
    matrix
        The counts: something that gives rows for a slice.
    place
        Where its counts are: ``"X"``, ``"layers/<name>"`` or ``"raw/X"``.
    source
        The same in words, or what they are recovered from there.
    n_cells
        How many cells it holds.
    obs
        Some columns of the cells, (n, ...), without names.
    var
        Its genes.
    used
        Columns whose values matter, (k,).
    factor
        What every count is multiplied by.
    log1p
        Whether the values are log1p of normalised counts, which are recovered run by run.
    totals
        Total counts of the cells as obs gives them, by column, each (n,).
    notes
        What is odd about the place, and why others were passed over.
    cells
        Names of the cells, (n,); None leaves them in the file until they are needed.
    match, own
        Which of them is which gene of the reference, and the reference's names of its genes, (G,); without these, all genes are
        read by their own names.
    kept
        Where counts over the reference's genes are kept that were read before; None where none are.
    """

    path: Path | str
    matrix: Any
    place: str
    source: str
    n_cells: int
    obs: pd.DataFrame
    var: pd.DataFrame
    used: np.ndarray
    factor: int = 1
    log1p: bool = False
    totals: Mapping[str, np.ndarray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    cells: np.ndarray | None = None
    match: GeneMatch | None = None
    own: np.ndarray | None = None
    kept: KeptCounts | None = None

    @property
    def where(self) -> Place:
        """The place, without its values."""
        layer = self.place.removeprefix("layers/") if self.place.startswith("layers/") else None
        return Place({"X": "X", "raw/X": "raw.X"}.get(self.place, f"layers[{layer!r}]"), None, self.var, layer)

    def read(self, rows: slice) -> AnnData:
        """A run of cells, in memory, with their counts in X."""
        import anndata

        counts = self._counts(rows)
        return anndata.AnnData(counts, obs=self.obs.iloc[rows].set_axis(self.names(rows), axis=0), var=self.var_of_run)

    @property
    def var_of_run(self) -> pd.DataFrame:
        """The genes of every run of cells that is read."""
        import pandas as pd

        if self.match is None or self.own is None:
            return self.var
        return pd.DataFrame(index=self.own[self.found].astype(str))

    @property
    def found(self) -> np.ndarray:
        """Positions of the reference's genes that the file has."""
        assert self.match is not None
        return np.unique(self.match.gene)

    def _counts(self, rows: slice) -> sparse.csr_matrix:
        """Counts of a run of cells over the genes that are read; the others are never there for all of its cells at once."""
        if self.kept is not None and self.match is not None:
            before = self.kept.read(rows, len(self.found))
            if before is not None:
                return before
        parts = []
        for start in range(rows.start, rows.stop, BLOCK):
            some = slice(start, min(start + BLOCK, rows.stop))
            part = self._counted(to_csr(here(self.matrix[some])), some)
            if self.match is not None and self.own is not None:
                to = replace(self.match, gene=np.searchsorted(self.found, self.match.gene))
                part = select_genes(part, to, len(self.found))
            parts.append(part)
        return joined(parts)

    def _counted(self, matrix: sparse.csr_matrix, rows: slice) -> sparse.csr_matrix:
        """The counts of a run of cells from what is stored, by what the sample of the file told."""
        if self.factor == 1 and not self.log1p and self._are_whole(matrix):
            return matrix
        judged = Judged(replace(self.where, matrix=matrix), self.used, 1.0, NAMED, self.factor)
        totals = [total[rows] for total in self.totals.values()]
        found = counts_of(judged, matrix, totals, lambda at: self.names(rows)[at].tolist())
        if isinstance(found, str):
            error = NotCounts(
                f"{self.where.source} {found}. The sample of cells that the place was judged by did not show it."
            )
        elif not self.log1p and found.from_log or self.factor > 1 and found.matrix is matrix and matrix.nnz:
            error = NotCounts(
                f"These cells of {self.where.source} are not like those that the place was judged by: those were "
                f"{self.source}, these {found.source}. Write their counts into a layer, and name it (--layer)."
            )
        else:
            return found.matrix
        error.add_note(f"Seen in cells {rows.start} to {rows.stop - 1} of {self.path}, in {self.source}.")
        raise error

    def _are_whole(self, matrix: sparse.csr_matrix) -> bool:
        """Whether the values that matter are counts as they are: looked up without a copy of the matrix of these."""
        if _whole(matrix.data):
            return True
        used = np.zeros(matrix.shape[1], bool)
        used[self.used] = True
        return _whole(matrix.data[used[matrix.indices]])

    def names(self, rows: slice) -> np.ndarray:
        """Names of a run of cells."""
        if self.cells is not None:
            names: np.ndarray = self.cells[rows].astype(str)
            return names
        with opened(Path(self.path)) as group:
            return names_of(group["obs"], rows)

    def matched(self, match: GeneMatch, own: np.ndarray) -> CellFile:
        """The same file, of which the reference's genes are read, by the reference's names."""
        return replace(self, match=match, own=own)


def _whole(values: np.ndarray) -> bool:
    """Whether values are finite whole numbers from 0 on; NaN compares with nothing."""
    return not len(values) or bool(values.min() >= 0 and values.max() < np.inf and (values == np.rint(values)).all())


def stacked(parts: list[tuple[pd.DataFrame, sparse.csr_matrix]], var: pd.DataFrame) -> AnnData:
    """Cells of several runs (annotation and counts), one after the other; the list is emptied, so that no count is in memory twice."""
    import anndata
    import pandas as pd

    obs, counts = pd.concat([obs for obs, _ in parts]), [counts for _, counts in parts]
    parts.clear()
    return anndata.AnnData(joined(counts), obs=obs, var=var)


def can_stream(path: Path) -> bool:
    """Whether a file is of a kind that can be read in runs of rows."""
    return path.suffix in (".h5ad", ".zarr")


def bytes_in_memory(path: Path) -> int:
    """Memory in bytes that mapping a file in one piece would take: 22 for each count, 8 for each value of other matrices."""
    with opened(path) as group:
        places = ["X", *(f"layers/{name}" for name in members(group, "layers")), "raw/X"]
        stored = [_n_stored(group[place]) for place in places if place in group]
    return BYTES * max(stored, default=0) + 8 * (sum(stored) - max(stored, default=0))


def free_memory() -> int:
    """Memory in bytes that the machine can give; 4 GB where it does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            found = {line.split(":")[0]: line.split()[1] for line in lines}
        return 1024 * int(found["MemAvailable"])
    except (OSError, KeyError, ValueError):
        return 4_000_000_000


def open_cells(
    path: Path,
    columns: Sequence[str],
    *,
    layer: str | None = None,
    prefer: str | None = None,
    used: Used | None = None,
    molecules: bool = True,
) -> CellFile:
    """A file of cells, with some columns of obs where it has them; its counts stay on disk.

    Where the counts are is decided as in memory, by a sample of cells from all over the file.

    Parameters
    ----------
    path
        ``.h5ad`` or ``.zarr``.
    columns
        Columns of obs to read.
    layer, prefer, used, molecules
        As for :func:`scgraft.query.counts.find_counts`.

    Raises
    ------
    QueryError
        The file is not laid out by cells, or is of an anndata before 0.7.
    NotCounts
        None of its matrices holds counts, or what they can be recovered from.
    """
    import pandas as pd
    from anndata.io import read_elem

    check_file(path)
    with opened(path) as group:
        if "obs" not in group or not hasattr(group["obs"], "keys"):
            raise QueryError(
                f"{path} has no table of cells as anndata writes it since 0.7. Read it and write it again."
            )
        n_cells = int(row_names(group["obs"]).shape[0])
        there = [name for name in dict.fromkeys([*columns, *TOTALS]) if name in group["obs"]]
        obs = pd.DataFrame({name: read_elem(group["obs"][name]) for name in there}, index=range(n_cells))
        cells = _cells(group, n_cells, totals_of(obs), prefer)
        obs = obs[[name for name in there if name in columns]]
        asked = Asked(prefer, layer, molecules)
        spatial = spatial_messages(members(group, "obsm"), members(group, "uns"), group["obs"])
        found = found_cells(path, cells, obs, asked, used, lambda place: OnDisk(path, place))
        return replace(found, notes=(*found.notes, *spatial))


def found_cells(
    path: Path | str,
    cells: Cells,
    obs: pd.DataFrame,
    asked: Asked,
    used: Used | None,
    matrix: Callable[[str], Any],
    names: np.ndarray | None = None,
) -> CellFile:
    """Cells of which the best place was found; `matrix` opens a place (``"layers/<name>"``), and the rest is as in the value."""
    best, (factor, log1p, source, notes) = take_first(cells, asked, used, _try(cells))
    place = {"X": "X", "raw.X": "raw/X"}.get(best.place.source, f"layers/{best.place.layer}")
    return CellFile(
        path,
        matrix(place),
        place,
        source,
        cells.n,
        as_codes(obs),
        best.place.var,
        best.used,
        factor,
        log1p,
        cells.totals,
        notes,
        names,
    )


def as_codes(obs: pd.DataFrame) -> pd.DataFrame:
    """Columns of text as categories: text takes 50 bytes a cell, its codes one or two."""
    text = [name for name in obs if obs[name].dtype.kind not in "biufc"]
    return obs.astype(dict.fromkeys(text, "category"))


def _cells(group: Any, n: int, totals: Mapping[str, np.ndarray], prefer: str | None) -> Cells:
    """Where the counts of a file could be; what cannot be read by cells is no such place, and says why when no other is."""
    layers = {n: rows_of(item) for n, item in members(group, "layers").items() if encoding_of(item) in KNOWN}
    raw = members(group, "raw")
    places = in_order(
        rows_of(group["X"]) if "X" in group and group["X"].attrs.get("encoding-type") != "null" else None,
        layers,
        read_table(group["var"]),
        (rows_of(raw["X"]), read_table(raw["var"])) if "X" in raw else None,
        prefer,
    )
    names = row_names(group["obs"])
    return Cells(
        tuple(replace(p, problem=BY_GENES) if p.matrix is BY_GENES else p for p in places),
        n,
        totals,
        lambda rows: (
            [str(names_of(group["obs"], slice(int(r), int(r) + 1))[0]) for r in rows] if names.shape[0] else []
        ),
    )


def _try(cells: Cells) -> Callable[[Judged, Sequence[Judged]], tuple[int, bool, str, tuple[str, ...]] | str]:
    """How the counts of a place are read, tried on the sample: the factor, whether they are recovered, the source, notes."""

    def tried(judged: Judged, others: Sequence[Judged]) -> tuple[int, bool, str, tuple[str, ...]] | str:
        rows = judged_rows(cells.n)
        found = counts_of(
            judged,
            sample(judged.place.matrix),
            [total[rows] for total in cells.totals.values()],
            lambda at: cells.names(rows[at]),
        )
        if isinstance(found, str):
            return found
        source = f"recovered from log1p-normalised {judged.place.source}" if found.from_log else found.source
        return judged.factor, found.from_log, source, (*doubts(judged), *passed_over(judged, others))

    return tried


def _n_stored(element: Any) -> int:
    if hasattr(element, "keys"):
        return int(element["data"].shape[0]) if "data" in element else 0
    return int(np.prod(element.shape)) if element.shape is not None else 0
