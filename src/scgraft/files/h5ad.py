"""The one door of every h5ad file, of a reference or of a query: walked and checked before it is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from scgraft.errors import CorruptFile, ScgraftError, UnsafeFile
from scgraft.files.budget import Budget, stored_bytes
from scgraft.files.kinds import check_pointer
from scgraft.files.known import read_known, unknown_places
from scgraft.files.structure import PARTS, check_indices, check_matrices, check_structure
from scgraft.files.trial import check_trial

if TYPE_CHECKING:
    import h5py
    from anndata import AnnData


LAZY = ("X", "raw")  # what anndata leaves on disk of a backed file


@contextmanager
def open_h5(path: Path, budget: Budget | None = None) -> Iterator[h5py.File]:
    """An HDF5 file to read from, of which nothing leads out; whatever fails inside the block is an error of this file.

    Its texts are paid from the budget: many may be one and the same in the file. None gives it one of its own.

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
        texts = check_trial(path)
        (budget or packed_budget(path)).spend(texts, "it")
        with h5py.File(path, "r") as file:
            yield file
    except (UnsafeFile, CorruptFile) as error:
        raise type(error)(f"{path.name} cannot be read: {error}") from error
    except ScgraftError:
        raise
    except Exception as error:
        raise CorruptFile(f"{path.name} cannot be read as an HDF5 file: {type(error).__name__}: {error}.") from error


@contextmanager
def open_h5ad(
    path: Path, parts: Iterable[str] = PARTS, *, budget: Budget | None = None, unread: Iterable[str] = ()
) -> Iterator[h5py.File]:
    """An AnnData file to read `parts` from: opened as :func:`open_h5` does, its structure checked, and its memory paid."""
    budget = budget or packed_budget(path)
    with open_h5(path, budget) as file:
        check_structure(file, parts, budget=budget, unread=unread)
        yield file


def packed_budget(path: Path) -> Budget:
    """What reading one file or store of cells may cost."""
    return Budget(0, path.name, packed=stored_bytes(path))


def read_h5ad(path: Path, *, backed: bool = False, budget: Budget | None = None) -> AnnData:
    """Read an AnnData file, after its links and its structure were checked.

    Parameters
    ----------
    path
        The file.
    backed
        Leave X on disk.
    budget
        What is left to a reference whose counts these are, which are paid though they stay on disk; None gives the file its own.

    Raises
    ------
    UnsafeFile
        A link, a virtual dataset or a storage leads out of the file.
    CorruptFile
        Cut, damaged, or not an AnnData file; the text names the place.
    """
    import anndata

    unread = LAZY if backed and budget is None else ()
    with open_h5ad(path, budget=budget, unread=unread) as file:
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
