"""Reads a query from the files that people have."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from scgraft.errors import QueryError, ScgraftError, UnsafeFile
from scgraft.files.h5ad import open_h5, read_h5ad
from scgraft.files.links import check_folder
from scgraft.files.structure import check_element, check_matrices

if TYPE_CHECKING:
    from anndata import AnnData


def read_query(path: str | Path, *, backed: bool = False) -> AnnData:
    """Read cells from ``.h5ad``, ``.zarr``, a 10x ``.h5`` file, or a 10x folder with ``matrix.mtx``.

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
                return read_h5ad(path, backed=backed)
            if path.suffix == ".zarr":
                check_folder(path)
                return _sound(anndata.read_zarr(path))
            if path.suffix == ".h5":
                import scanpy

                with open_h5(path) as file:
                    check_element(file, "matrix")
                return _sound(scanpy.read_10x_h5(path))
            if path.is_dir() and any((path / name).exists() for name in ("matrix.mtx", "matrix.mtx.gz")):
                import scanpy

                return _sound(scanpy.read_10x_mtx(path))
        except UnsafeFile:
            raise
        except ScgraftError as error:
            raise QueryError(str(error)) from error
        except Exception as error:
            raise QueryError(f"{path} cannot be read: {type(error).__name__}: {error}") from error
    raise QueryError(
        f"{path} is not a query that can be read. Known are .h5ad, .zarr, 10x .h5, and a 10x folder with matrix.mtx(.gz)."
    )


def _sound(adata: AnnData) -> AnnData:
    check_matrices(adata)
    return adata
