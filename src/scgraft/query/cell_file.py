"""Cells on disk that are read in runs of rows: what a query that does not fit into memory is mapped from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from scgraft.errors import CorruptFile, NotCounts, QueryError
from scgraft.files.h5ad import open_h5, open_h5ad
from scgraft.files.links import check_folder
from scgraft.query.align import select_genes
from scgraft.query.counts import INTEGER_TOLERANCE, LIKELY_LAYERS, to_csr
from scgraft.query.genes import GeneMatch

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

BLOCK = 2048  # cells that are read at a time, with all genes of the file: as many as are embedded at a time
LOOKED_AT = 50  # cells that say whether a matrix holds counts; every other cell is checked when it is read
BYTES = 22  # of memory for each stored count of a query that is mapped in memory, measured on 300,000 cells


@dataclass(frozen=True)
class OnDisk:
    """A matrix of a file, of which runs of rows are read; it is opened for each of them.

    Parameters
    ----------
    path, place
        The file, and where the matrix is in it: ``"X"``, ``"layers/<name>"`` or ``"raw/X"``.
    rows, columns
        Which of its rows and columns these are, (n,) and (m,); None for all of them.
    """

    path: Path
    place: str
    rows: np.ndarray | None = None
    columns: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns."""
        with opened(self.path) as group:
            n, m = _matrix(group[self.place]).shape
        return (
            n if self.rows is None else len(self.rows),
            m if self.columns is None else len(self.columns),
        )

    def __getitem__(self, rows: slice) -> Any:
        with opened(self.path) as group:
            matrix = _matrix(group[self.place])
            if self.rows is None:
                found = matrix[rows]
            else:  # HDF5 gives rows in the order of the file
                at, back = np.unique(self.rows[rows], return_inverse=True)
                found = matrix[at][back]
        return found if self.columns is None else found[:, self.columns]


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
    n_cells
        How many cells it holds.
    obs
        Some columns of the cells, (n, ...), without names.
    var
        Its genes.
    cells
        Names of the cells, (n,); None leaves them in the file until they are needed.
    match, own
        Which of them is which gene of the reference, and the reference's names of its genes, (G,); without these, all genes are
        read by their own names.
    """

    path: Path | str
    matrix: Any
    place: str
    n_cells: int
    obs: pd.DataFrame
    var: pd.DataFrame
    cells: np.ndarray | None = None
    match: GeneMatch | None = None
    own: np.ndarray | None = None

    def read(self, rows: slice) -> AnnData:
        """A run of cells, in memory, with their counts in X."""
        import anndata
        import pandas as pd

        counts = self._counts(rows)
        obs = self.obs.iloc[rows].set_axis(self.names(rows), axis=0)
        if self.match is None or self.own is None:
            return anndata.AnnData(counts, obs=obs, var=self.var)
        return anndata.AnnData(counts, obs=obs, var=pd.DataFrame(index=self.own[self._found].astype(str)))

    @property
    def _found(self) -> np.ndarray:
        """Positions of the reference's genes that the file has."""
        assert self.match is not None
        return np.unique(self.match.gene)

    def _counts(self, rows: slice) -> sparse.csr_matrix:
        """Counts of a run of cells over the genes that are read; the others are never there for all of its cells at once."""
        parts = []
        for start in range(rows.start, rows.stop, BLOCK):
            part = to_csr(here(self.matrix[start : min(start + BLOCK, rows.stop)]))
            if self.match is not None and self.own is not None:
                part = select_genes(part, self.match, len(self.own))[:, self._found]
            parts.append(part)
        return parts[0] if len(parts) == 1 else sparse.vstack(parts, format="csr")

    def names(self, rows: slice) -> np.ndarray:
        """Names of a run of cells."""
        if self.cells is not None:
            names: np.ndarray = self.cells[rows].astype(str)
            return names
        with opened(Path(self.path)) as group:
            return _names(group["obs"], rows)

    def matched(self, match: GeneMatch, own: np.ndarray) -> CellFile:
        """The same file, of which the reference's genes are read, by the reference's names."""
        return replace(self, match=match, own=own)


def here(matrix: Any) -> Any:
    """Rows in memory; what dask would compute is computed in this thread, as a worker may be doing."""
    return matrix.compute(scheduler="synchronous") if hasattr(matrix, "compute") else matrix


def stacked(parts: Sequence[AnnData]) -> AnnData:
    """The cells of several runs, one after the other."""
    import anndata
    import pandas as pd

    counts = sparse.vstack([part.X for part in parts], format="csr")
    return anndata.AnnData(counts, obs=pd.concat([part.obs for part in parts]), var=parts[0].var)


def can_stream(path: Path) -> bool:
    """Whether a file is of a kind that can be read in runs of rows."""
    return path.suffix in (".h5ad", ".zarr")


def bytes_in_memory(path: Path) -> int:
    """Memory in bytes that mapping a file in one piece would take: 22 for each count, 8 for each value of other matrices."""
    with opened(path) as group:
        places = ["X", *(f"layers/{name}" for name in group.get("layers", ())), "raw/X"]
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


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The root of an .h5ad file or a .zarr folder, for reading; nothing of it leads out."""
    try:
        if path.suffix == ".zarr":
            import zarr

            check_folder(path)
            yield zarr.open_group(path, mode="r")
            return
        with open_h5(path) as file:
            yield file
    except CorruptFile as error:
        raise QueryError(str(error)) from error


def _check(path: Path) -> None:
    """Look at the structure of an .h5ad file once, before its runs of rows are read."""
    if path.suffix == ".zarr":
        return
    try:
        with open_h5ad(path):
            pass
    except CorruptFile as error:
        raise QueryError(str(error)) from error


def open_cells(path: Path, columns: Sequence[str], *, layer: str | None = None, prefer: str | None = None) -> CellFile:
    """A file of cells, with some columns of obs where it has them; its counts stay on disk.

    Parameters
    ----------
    path
        ``.h5ad`` or ``.zarr``.
    columns
        Columns of obs to read.
    layer, prefer
        Where the counts are, and where they are looked for first, as for :func:`scgraft.align`.

    Raises
    ------
    QueryError
        The file is not laid out by cells, or is of an anndata before 0.7.
    NotCounts
        None of its matrices holds integers; what can be recovered from other numbers is recovered in memory only.
    """
    import pandas as pd
    from anndata.io import read_elem

    _check(path)
    with opened(path) as group:
        if "obs" not in group or not hasattr(group["obs"], "keys"):
            raise QueryError(
                f"{path} has no table of cells as anndata writes it since 0.7. Read it and write it again."
            )
        place = _find_counts(group, layer, prefer)
        matrix = _matrix(group[place])
        var = read_elem(group["raw/var" if place == "raw/X" else "var"])
        n_cells = int(matrix.shape[0])
        there = [name for name in dict.fromkeys(columns) if name in group["obs"]]
        obs = pd.DataFrame({name: read_elem(group["obs"][name]) for name in there}, index=range(n_cells))
    obs = as_codes(obs)
    return CellFile(path, OnDisk(path, place), place, n_cells, obs, var)


def as_codes(obs: pd.DataFrame) -> pd.DataFrame:
    """Columns of text as categories: text takes 50 bytes a cell, its codes one or two."""
    text = [name for name in obs if obs[name].dtype.kind not in "biufc"]
    return obs.astype(dict.fromkeys(text, "category"))


def _n_stored(element: Any) -> int:
    return int(element["data"].shape[0] if hasattr(element, "keys") else np.prod(element.shape))


def _find_counts(group: Any, layer: str | None, prefer: str | None) -> str:
    names = list(group["layers"]) if "layers" in group else []
    order = sorted(names, key=lambda n: (n != prefer, n.lower() not in LIKELY_LAYERS))
    places = [f"layers/{name}" for name in order]
    places = places[:1] * (prefer in names) + ["X"] + places[prefer in names :] + ["raw/X"]
    if layer is not None:
        places = [{"X": "X", "raw": "raw/X"}.get(layer, f"layers/{layer}")]
    found = [place for place in places if place in group]
    for place in found:
        matrix = _matrix(group[place])
        head = to_csr(matrix[slice(0, min(LOOKED_AT, matrix.shape[0]))]).data
        if not len(head) or (head >= 0).all() and np.abs(head - np.rint(head)).max() <= INTEGER_TOLERANCE:
            return place
    raise NotCounts(
        f"No raw counts were found in {', '.join(found) or 'the file'}: only counts can be read piece by piece. Name the "
        "layer that holds them (--layer), or give more memory (--memory), so that counts are recovered from the whole matrix."
    )


def _matrix(element: Any) -> Any:
    """Something that gives rows for a slice: a sparse matrix on disk, or a dense array."""
    from anndata.io import sparse_dataset

    if not hasattr(element, "keys"):
        return element
    if element.attrs.get("encoding-type") == "csc_matrix":
        raise QueryError(
            "The counts are stored gene by gene (CSC), so that no cell can be read without reading all. Write them cell by cell "
            "(adata.X = adata.X.tocsr()), or give more memory (--memory)."
        )
    return sparse_dataset(element)


def row_names(frame: Any) -> Any:
    """The names of a frame's rows on disk, unread: (n,)."""
    names = frame[frame.attrs.get("_index", "_index")]
    # Text that may be missing is a group of values and a mask.
    return names["values"] if hasattr(names, "keys") else names


def _names(obs: Any, rows: slice) -> np.ndarray:
    names = row_names(obs)
    return np.asarray(names.asstr()[rows] if hasattr(names, "asstr") else names[rows], dtype=object).astype(str)
