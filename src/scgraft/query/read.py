"""Reads a query from the files that people have."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from scgraft.errors import QueryError, ScgraftError, UnsafeFile
from scgraft.files.h5ad import open_h5, read_h5ad
from scgraft.files.h5mu import read_h5mu
from scgraft.files.stores import open_store
from scgraft.files.structure import check_element, check_matrices
from scgraft.query.mtx import find_mtx, read_mtx

if TYPE_CHECKING:
    from anndata import AnnData


def read_query(path: str | Path, *, backed: bool = False) -> AnnData:
    """Read cells from ``.h5ad``, ``.h5mu``, ``.zarr``, a 10x ``.h5`` file, or a folder with ``matrix.mtx``.

    What a file is, is told by what is in it: a 10x file called ``.h5ad``, and an AnnData file called ``.h5``, are read too. The
    folder may be that of Cell Ranger (``outs``), STARsolo or an archive with a prefix before the names.

    Parameters
    ----------
    path
        The file or folder.
    backed
        Leave the matrix of an ``.h5ad`` file on disk.

    Raises
    ------
    QueryError
        Not one of these, or it cannot be read.
    UnsafeFile
        The file refers to another file.
    """
    import anndata

    path = Path(path)
    if not path.exists():
        raise QueryError(f"{path} does not exist.")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*names are not unique.*")
        try:
            if path.suffix == ".h5ad":
                return read_h5ad(path, backed=backed) if not _is_10x(path) else _read_10x(path)
            if path.suffix == ".h5mu":
                return read_h5mu(path)
            if path.suffix == ".zarr":
                open_store(path)
                return _sound(anndata.read_zarr(path))
            if path.suffix == ".h5":
                return _read_10x(path) if _is_10x(path) else read_h5ad(path, backed=backed)
            if (path / ".zgroup").exists() or (path / "zarr.json").exists():
                open_store(path)
                return _sound(anndata.read_zarr(path))
            if path.is_dir() and (matrix := find_mtx(path)) is not None:
                return read_mtx(matrix)
            if path.suffix == ".mtx" or path.name.endswith(".mtx.gz"):
                return read_mtx(path)
        except UnsafeFile:
            raise
        except ScgraftError as error:
            raise QueryError(str(error)) from error
        except Exception as error:
            raise QueryError(f"{path} cannot be read: {type(error).__name__}: {error}") from error
    raise QueryError(
        f"{path} is not a query that can be read. Known are .h5ad, .h5mu, .zarr, 10x .h5, and a 10x folder with matrix.mtx(.gz)."
    )


def _is_10x(path: Path) -> bool:
    """Whether an HDF5 file is laid out as Cell Ranger does; its suffix does not tell."""
    with open_h5(path) as file:
        return "obs" not in file and any("barcodes" in group for group in file.values() if hasattr(group, "keys"))


def _read_10x(path: Path) -> AnnData:
    import scanpy

    with open_h5(path) as file:
        check_element(file, "matrix")
    return _sound(scanpy.read_10x_h5(path, gex_only=False))


def _sound(adata: AnnData) -> AnnData:
    check_matrices(adata)
    return adata
