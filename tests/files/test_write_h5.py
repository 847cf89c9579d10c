"""Cells are written as anndata writes them; a full disk is in test_atomic.py."""

import errno

import anndata
import h5py
import numpy as np
import pytest
from scipy.sparse import csr_matrix

from scgraft.files.write_h5 import write_h5ad, writing_h5
from scgraft.testing import tiny_query
from scgraft.testing.tiny_model import TinyConfig


def cells(with_x=True):
    adata = tiny_query(TinyConfig(), n_cells=25)
    adata.obs["text"] = np.array(["a", "b", "c", "d", "e"] * 5, object)
    adata.raw = adata.copy()
    adata.obsm["x"], adata.uns["y"] = np.arange(50.0).reshape(25, 2), {"z": {"deep": np.arange(3), "text": "t"}}
    adata.obsp["p"] = csr_matrix(np.eye(25, dtype=np.float32))
    if not with_x:
        adata.X = None
    return adata


def content(path):
    """Every place of a file with its attributes and what is there."""
    found = {}

    def add(name, item):
        value = item[()] if isinstance(item, h5py.Dataset) else None
        found[name] = (
            repr(sorted((k, str(v)) for k, v in item.attrs.items())),
            str(getattr(item, "dtype", "")),
            repr(value),
        )

    with h5py.File(path) as file:
        add("/", file)
        file.visititems(add)
    return found


@pytest.mark.parametrize("compression", [None, "gzip"])
@pytest.mark.parametrize("with_x", [True, False])
def test_a_file_is_as_anndata_writes_it(tmp_path, compression, with_x):
    cells(with_x).write_h5ad(tmp_path / "theirs.h5ad", compression=compression)
    write_h5ad(cells(with_x), tmp_path / "ours.h5ad", compression=compression)
    assert content(tmp_path / "ours.h5ad") == content(tmp_path / "theirs.h5ad")
    assert anndata.read_h5ad(tmp_path / "ours.h5ad").shape == (25, cells().n_vars)


def test_cells_on_disk_are_copied(tmp_path):
    cells().write_h5ad(tmp_path / "a.h5ad")
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    write_h5ad(backed, tmp_path / "b.h5ad")
    assert content(tmp_path / "b.h5ad")["obs"] == content(tmp_path / "a.h5ad")["obs"]


def test_a_file_is_changed_in_place(tmp_path):
    with writing_h5(tmp_path / "a.h5") as file:
        file["a"] = np.arange(1000)
        file["b"] = np.arange(10)
    with writing_h5(tmp_path / "a.h5", "r+") as file:
        file["a"][500:] = 7
        del file["b"]
    with h5py.File(tmp_path / "a.h5") as file:
        assert list(file) == ["a"] and file["a"][499:502].tolist() == [499, 7, 7]


def test_what_fails_inside_is_told_as_it_is_and_a_full_disk_at_the_end(tmp_path, monkeypatch):
    with pytest.raises(KeyError), writing_h5(tmp_path / "a.h5"):
        raise KeyError("x")
    written = []

    class Full:
        def __init__(self, *arguments):
            self.file = open(*arguments, buffering=0)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, data):
            written.append(len(data))
            if sum(written) > 3000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(data)

    monkeypatch.setattr("scgraft.files.write_h5.FileIO", lambda path, mode: Full(path, mode + "b"))
    with pytest.raises(OSError, match="No space left"), writing_h5(tmp_path / "b.h5") as file:
        for i in range(50):
            file[f"x{i}"] = np.arange(1000)
            assert file[f"x{i}"].shape == (1000,)
