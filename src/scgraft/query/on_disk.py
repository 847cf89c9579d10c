"""Matrices and names of cells in .h5ad files and .zarr folders, of which runs of rows are read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scgraft.errors import CorruptFile, QueryError
from scgraft.files.h5ad import open_h5, open_h5ad
from scgraft.files.stores import open_store

BY_GENES = (
    "is stored gene by gene (CSC), so that no cell can be read without reading all: map the file with `scgraft map`, which writes "
    "it cell by cell once, on the disk; or write it so yourself (adata.X = adata.X.tocsr()), or give more memory (memory=, --memory)"
)


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
            n, m = matrix_of(group[self.place]).shape
        return (
            n if self.rows is None else len(self.rows),
            m if self.columns is None else len(self.columns),
        )

    def __getitem__(self, rows: slice) -> Any:
        with opened(self.path) as group:
            matrix = matrix_of(group[self.place])
            if self.rows is None:
                found = matrix[rows]
            else:  # HDF5 gives rows in the order of the file
                at, back = np.unique(self.rows[rows], return_inverse=True)
                found = matrix[at][back]
        return found if self.columns is None else found[:, self.columns]


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The root of an .h5ad file or a .zarr folder, for reading; nothing of it leads out."""
    try:
        if path.suffix == ".zarr":
            yield open_store(path)
            return
        with open_h5(path) as file:
            yield file
    except CorruptFile as error:
        raise QueryError(str(error)) from error


def check_file(path: Path) -> None:
    """Look at the structure of an .h5ad file once, before its runs of rows are read."""
    if path.suffix == ".zarr":
        return
    try:
        with open_h5ad(path):
            pass
    except CorruptFile as error:
        raise QueryError(str(error)) from error


def members(group: Any, name: str) -> dict[str, Any]:
    """What a group holds; nothing where it is absent or null."""
    return {key: group[name][key] for key in group[name]} if name in group and hasattr(group[name], "keys") else {}


def matrix_of(element: Any) -> Any:
    """Something that gives rows for a slice: a sparse matrix on disk, or a dense array."""
    found = rows_of(element)
    if found is BY_GENES:
        raise QueryError(f"The matrix {BY_GENES}.")
    return found


def rows_of(element: Any) -> Any:
    """Something that gives rows for a slice; `BY_GENES` where there is nothing like it."""
    from anndata.io import sparse_dataset

    if not hasattr(element, "keys"):
        return element
    return BY_GENES if element.attrs.get("encoding-type") == "csc_matrix" else sparse_dataset(element)


def row_names(frame: Any) -> Any:
    """The names of a frame's rows on disk, unread: (n,)."""
    names = frame[frame.attrs.get("_index", "_index")]
    # Text that may be missing is a group of values and a mask.
    return names["values"] if hasattr(names, "keys") else names


def names_of(obs: Any, rows: slice) -> np.ndarray:
    """Names of a run of a frame's rows on disk, (n,) str."""
    names = row_names(obs)
    return np.asarray(names.asstr()[rows] if hasattr(names, "asstr") else names[rows], dtype=object).astype(str)
