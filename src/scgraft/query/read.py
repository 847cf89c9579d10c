"""Reads a query from the files that people have."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scgraft.errors import CorruptFile, QueryError, ScgraftError, UnsafeFile
from scgraft.files.h5ad import open_h5, packed_budget, read_h5ad
from scgraft.files.h5mu import read_h5mu
from scgraft.files.known import read_known, unknown_places
from scgraft.files.stores import open_store
from scgraft.files.structure import MAX_RATIO, SMALL, check_element, check_matrices
from scgraft.query.mtx import find_mtx, read_mtx
from scgraft.query.tables import is_table, read_loom, read_table

if TYPE_CHECKING:
    from anndata import AnnData

# What to do with files of R, which only R reads.
IN_R = (
    " This one is read by R: write it from there, for example with SeuratDisk's or zellkonverter's conversion to .h5ad."
)
OTHERS = {".rds": IN_R, ".rdata": IN_R, ".rda": IN_R, ".h5seurat": IN_R, ".qs": IN_R}


def read_query(path: str | Path, *, backed: bool = False) -> AnnData:
    """Read cells from ``.h5ad``, ``.zarr``, a 10x ``.h5`` file, a folder with ``matrix.mtx``, ``.h5mu``, ``.loom`` or a table of text.

    What a file is, is told by what is in it: a 10x file called ``.h5ad``, and an AnnData file called ``.h5``, are read too. The
    folder may be that of Cell Ranger (``outs``), STARsolo or an archive with a prefix before the names; a zarr store may have any
    name, and may be zipped. Tables (.csv, .tsv, .txt, also .gz) have names in their first row and column.

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
            if path.suffix == ".h5":
                return _read_10x(path) if _is_10x(path) else read_h5ad(path, backed=backed)
            if path.suffix == ".loom":
                return _sound(read_loom(path))
            if path.is_dir() and any((path / name).exists() for name in (".zgroup", "zarr.json", ".zattrs")):
                open_store(path, budget=packed_budget(path))
                return _sound(_read_zarr(path))
            if path.suffix == ".zip":
                return _sound(_read_zipped(path))
            if path.is_dir() and (matrix := find_mtx(path)) is not None:
                return read_mtx(matrix)
            if path.suffix == ".mtx" or path.name.endswith(".mtx.gz"):
                return read_mtx(path)
            if is_table(path) and path.is_file():
                return _sound(read_table(path))
        except UnsafeFile:
            raise
        except ScgraftError as error:
            raise QueryError(str(error)) from error
        except Exception as error:
            raise QueryError(f"{path} cannot be read: {type(error).__name__}: {error}") from error
    raise QueryError(
        f"{path} is not a query that can be read. Known are .h5ad, .zarr (also zipped), 10x .h5, .h5mu, .loom, tables (.csv, .tsv, "
        f".txt, also .gz), and a 10x folder with matrix.mtx(.gz).{OTHERS.get(path.suffix.lower(), '')}"
    )


def _read_zarr(store: Any) -> AnnData:
    """A zarr store, of which what is in an unknown encoding is left out."""
    import anndata
    import zarr

    group = zarr.open_group(store, mode="r") if isinstance(store, Path) else store
    return read_known(group) if unknown_places(group) else anndata.read_zarr(group)


def _read_zipped(path: Path) -> AnnData:
    """A zarr store in a zip file, at its top or in its only folder."""
    import zipfile

    import zarr
    from zarr.storage import ZipStore

    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith((".zgroup", "zarr.json", ".zattrs"))]
        size, packed = (sum(getattr(i, n) for i in archive.infolist()) for n in ("file_size", "compress_size"))
    if size > SMALL and size > MAX_RATIO * packed:
        raise CorruptFile(f"{path.name} declares {size / 1e9:.1f} GB, but {packed} bytes of it are stored.")
    if not names:
        raise QueryError(f"{path.name} holds no zarr store. Unpack it (unzip {path.name}), and give what is in it.")
    top = min(names, key=lambda name: name.count("/")).rpartition("/")[0]
    store = ZipStore(path, mode="r")
    try:
        return _read_zarr(zarr.open_group(store, path=top, mode="r"))
    finally:
        store.close()


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
