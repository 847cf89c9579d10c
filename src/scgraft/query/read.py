"""Reads a query from the files that people have."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from scgraft.errors import QueryError

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
    """
    import anndata

    path = Path(path)
    if not path.exists():
        raise QueryError(f"{path} does not exist.")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*names are not unique.*")
        try:
            if path.suffix == ".h5ad":
                return anndata.read_h5ad(path, backed="r" if backed else None)
            if path.suffix == ".zarr":
                return anndata.read_zarr(path)
            if path.suffix == ".h5":
                import scanpy

                return scanpy.read_10x_h5(path)
            if path.is_dir() and any((path / name).exists() for name in ("matrix.mtx", "matrix.mtx.gz")):
                import scanpy

                return scanpy.read_10x_mtx(path)
        except (OSError, KeyError, ValueError) as error:
            raise QueryError(f"{path} cannot be read: {error}") from error
    raise QueryError(
        f"{path} is not a query that can be read. Known are .h5ad, .zarr, 10x .h5, and a 10x folder with matrix.mtx(.gz)."
    )
