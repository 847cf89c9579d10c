"""The one door of every h5ad file, of a reference or of a query: walked and checked before it is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from scgraft.errors import CorruptFile, ScgraftError, UnsafeFile
from scgraft.files.kinds import check_pointer
from scgraft.files.known import read_known, unknown_places
from scgraft.files.structure import PARTS, check_indices, check_matrices, check_structure
from scgraft.files.trial import check_trial

if TYPE_CHECKING:
    import h5py
    from anndata import AnnData


@contextmanager
def open_h5(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file to read from, of which nothing leads out; whatever fails inside the block is an error of this file.

    Raises
    ------
    UnsafeFile
        A link, a virtual dataset or a storage leads out of the file.
    CorruptFile
        It is not an HDF5 file, or is damaged.
    """
    import h5py

    try:
        check_pointer(path)
        check_trial(path)
        with h5py.File(path, "r") as file:
            yield file
    except (UnsafeFile, CorruptFile) as error:
        raise type(error)(f"{path.name} cannot be read: {error}") from error
    except ScgraftError:
        raise
    except Exception as error:
        raise CorruptFile(f"{path.name} cannot be read as an HDF5 file: {type(error).__name__}: {error}.") from error


@contextmanager
def open_h5ad(path: Path, parts: Iterable[str] = PARTS) -> Iterator[h5py.File]:
    """An AnnData file to read `parts` from: opened as :func:`open_h5` does, and its structure checked."""
    with open_h5(path) as file:
        check_structure(file, parts)
        yield file


def read_h5ad(path: Path, *, backed: bool = False) -> AnnData:
    """Read an AnnData file, after its links and its structure were checked.

    Parameters
    ----------
    path
        The file.
    backed
        Leave X on disk.

    Raises
    ------
    UnsafeFile
        A link, a virtual dataset or a storage leads out of the file.
    CorruptFile
        Cut, damaged, or not an AnnData file; the text names the place.
    """
    import anndata

    with open_h5ad(path) as file:
        if backed and "X" in file and str(file["X"].attrs.get("encoding-type", "")).startswith("csc"):
            check_indices(file["X"], "X")
        known = None if not unknown_places(file) else read_known(file)
    try:
        adata = known if known is not None else anndata.read_h5ad(path, backed="r" if backed else None)
    except Exception as error:
        raise CorruptFile(f"{path.name} cannot be read as an AnnData file: {type(error).__name__}: {error}.") from error
    try:
        check_matrices(adata)
    except CorruptFile as error:
        raise CorruptFile(f"{path.name} cannot be read: {error}") from error
    return adata
