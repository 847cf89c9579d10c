"""A zarr store whose links lead out is not read; a 10x file passes the same walk as any HDF5 file."""

import shutil
import warnings

import h5py
import numpy as np
import pytest
import zarr

from scgraft.errors import QueryError, UnsafeFile
from scgraft.query.cell_file import open_cells
from scgraft.query.read import read_query
from scgraft.testing import tiny_query
from scgraft.testing.tiny_model import TinyConfig


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("zarr") / "query.zarr"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of zarr's next format
        tiny_query(TinyConfig(), n_cells=10).write_zarr(path)
    return path


def test_a_sound_store_is_read(store):
    assert read_query(store).n_obs == 10


@pytest.mark.parametrize(
    "place", ["obs", "var", "X", "uns", "obs/batch", "stolen", "obs/_index/c", "X/data/c", "var/_index", "obsm/x"]
)
@pytest.mark.parametrize("target", ["file", "folder", "nothing"])
def test_a_link_out_of_a_store_is_refused(store, tmp_path, place, target):
    copy = shutil.copytree(store, tmp_path / "query.zarr")
    (tmp_path / "file").write_text("secret")
    (tmp_path / "folder").mkdir()
    link = copy / place
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_dir():
        shutil.rmtree(link)
    link.symlink_to(tmp_path / target)
    with pytest.raises(UnsafeFile, match="is a link out of"):
        read_query(copy)


BOMBS = {
    "an array of 1e12 numbers": ("uns/huge", (10**6, 10**6), (1000, 1000)),
    "a posterior of 1e9 cells": ("obsm/scvi_latent_qzm", (10**9, 10), (10**5, 10)),
    "a chunk of 3 GB": ("uns/huge", (10,), (750_000_000,)),
    "a layer of 1e12 numbers": ("layers/huge", (10**6, 10**6), (1000, 1000)),
    "a column of 1e11 numbers": ("obs/huge", (10**11,), (10**6,)),
    "a column of genes of 1e11 numbers": ("var/huge", (10**11,), (10**6,)),
    "pairs of 1e6 cells": ("obsp/huge", (10**6, 10**6), (1000, 1000)),
    "loadings of 1e9 genes": ("varm/huge", (10**9, 50), (10**5, 50)),
    "deep in uns": ("uns/a/b/c/huge", (10**11,), (10**6,)),
    "many that are each small": ("uns/many", (15_000_000,), (10**5,)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_store_that_declares_more_than_it_holds_is_refused(store, tmp_path, name):
    copy, (place, shape, chunks) = shutil.copytree(store, tmp_path / "query.zarr"), BOMBS[name]
    root = zarr.open_group(copy, mode="a")
    for i in range(20 if "many" in name else 1):
        root.create_array(f"{place}{i}", shape=shape, chunks=chunks, dtype="f4")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(copy)  # without which what was added is not seen
    with pytest.raises(QueryError, match="declares .* GB"):
        read_query(copy)
    with pytest.raises(QueryError, match="declares .* GB"):
        open_cells(copy, ["batch"])


def tenx(path, **changes):
    arrays = {
        "data": np.ones(3, np.int32), "indices": np.arange(3), "indptr": np.array([0, 2, 3]), "shape": np.array([5, 2]),
        "barcodes": np.array([b"a", b"b"]), "genes": np.array([b"g"] * 5), "gene_names": np.array([b"g"] * 5),
    } | changes  # fmt: skip
    with h5py.File(path, "w") as file:
        group = file.create_group("mm10")
        for name, value in arrays.items():
            if isinstance(value, h5py.ExternalLink):
                group[name] = value
            elif isinstance(value, tuple):
                group.create_dataset(name, value, "i4", chunks=(1 << 20,))
            else:
                group[name] = value
    return path


def test_a_sound_10x_file_is_read(tmp_path):
    assert read_query(tenx(tmp_path / "a.h5")).shape == (2, 5)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"barcodes": h5py.ExternalLink("/etc/hosts", "/")}, UnsafeFile),
        ({"data": h5py.ExternalLink("other.h5", "/x")}, UnsafeFile),
        ({"data": (10**11,)}, QueryError),
        ({"indices": (10**11,)}, QueryError),
        ({"indices": np.array([0, 1, 10**6])}, QueryError),
        ({"indices": np.array([0, 1, -7])}, QueryError),
        ({"indptr": np.array([0, 10**6, 3])}, QueryError),
        ({"indptr": np.array([0, 2, 10**6])}, QueryError),
        ({"indptr": np.array([1, 2, 3])}, QueryError),
        ({"shape": np.array([5, 10**6])}, QueryError),
        ({"data": np.array([b"x", b"y", b"z"])}, QueryError),
    ],
)
def test_a_damaged_10x_file_is_named(tmp_path, changes, error):
    with pytest.raises(error):
        read_query(tenx(tmp_path / "a.h5", **changes))
