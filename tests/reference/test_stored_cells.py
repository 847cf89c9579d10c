"""The cells beside a model are the same whatever wrote them; one whose cells have no labels labels by its own classifier."""

import os
import shutil
import warnings

import anndata
import h5py
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from anndata.io import read_elem, write_elem
from huggingface_hub.utils import filter_repo_objects

from scgraft.errors import CorruptFile, RepositoryNotFound, UnsafeFile
from scgraft.files.hashes import git_blob
from scgraft.labels.votes import classify
from scgraft.mapping.check import check
from scgraft.mapping.load import load_reference
from scgraft.mapping.map import map_query
from scgraft.query.read import read_query
from scgraft.reference import hub
from scgraft.reference.hub import fetch
from scgraft.testing import tiny_query, write_hub_folder
from scgraft.testing.tiny_model import TinyConfig
from tiny_totalvi import write_totalvi_folder

MINIFIED = "latent_posterior_parameters"


def as_zarr(folder):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Writing zarr v2")
        anndata.read_h5ad(folder / "adata.h5ad").write_zarr(folder / "adata.zarr")
    (folder / "adata.h5ad").unlink()


def as_anndata_0_6(folder):
    """Frames as tables of records, categories in uns, one table for obsm, a sparse matrix with its own attributes."""
    path = folder / "adata.h5ad"
    adata = anndata.read_h5ad(path)
    with h5py.File(path, "w") as file:
        counts = sp.csr_matrix(adata.X)
        for name in ("data", "indices", "indptr"):
            file[f"X/{name}"] = getattr(counts, name)
        file["X"].attrs["h5sparse_format"], file["X"].attrs["h5sparse_shape"] = "csr", counts.shape
        for name, frame in (("obs", adata.obs), ("var", adata.var)):
            columns = {"index": np.array(frame.index.tolist(), "S20")}
            for column in frame:
                values = frame[column]
                if values.dtype == "category":
                    file[f"uns/{column}_categories"] = np.array(values.cat.categories.tolist(), "S20")
                    values = values.cat.codes
                columns[column] = np.array(values.tolist(), values.dtype if values.dtype.kind in "iuf" else "S20")
            table = np.zeros(len(frame), [(column, array.dtype) for column, array in columns.items()])
            for column, array in columns.items():
                table[column] = array
            file[name] = table
        if len(adata.obsm):
            table = np.zeros(adata.n_obs, [(name, "f4", (array.shape[1],)) for name, array in adata.obsm.items()])
            for name, array in adata.obsm.items():
                table[name] = array
            file["obsm"] = table
        for name, value in adata.uns.items():
            file[f"uns/{name}"] = value


@pytest.mark.parametrize("minified", [None, MINIFIED])
@pytest.mark.parametrize("change", [as_zarr, as_anndata_0_6])
def test_the_cells_are_those_of_the_file(tmp_path, change, minified):
    folder = write_hub_folder(tmp_path / "r", TinyConfig(minified=minified))
    expected = load_reference(folder)
    change(folder)
    found = load_reference(folder)
    assert found.base.cells not in ("", expected.base.cells)
    assert (found.latent_source, found.minified) == (expected.latent_source, expected.minified)
    assert np.array_equal(found.latent.mean, expected.latent.mean)
    assert found.latent.cells.tolist() == expected.latent.cells.tolist() and found.maps.keys() == expected.maps.keys()
    for key in ("batch", "cell_type"):
        assert found.obs[key].astype(str).tolist() == expected.obs[key].astype(str).tolist()
    load_reference(folder)


def test_a_store_in_the_cache_of_the_hub_is_made_of_links_into_it(tmp_path):
    """And one whose links lead elsewhere is refused, wherever it lies."""
    made = write_hub_folder(tmp_path / "r", TinyConfig(minified=MINIFIED))
    as_zarr(made)
    blobs, snapshot = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots" / ("0" * 40)
    blobs.mkdir(parents=True)
    for i, path in enumerate(sorted(p for p in made.rglob("*") if p.is_file())):
        place = snapshot / path.relative_to(made)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, blobs / str(i))
        place.symlink_to(os.path.relpath(blobs / str(i), place.parent))
    assert np.array_equal(load_reference(snapshot).latent.mean, load_reference(made).latent.mean)
    stolen = next(path for path in (snapshot / "adata.zarr").rglob("*") if path.is_symlink())
    stolen.unlink()
    stolen.symlink_to("/etc/hosts")
    with pytest.raises(UnsafeFile, match="is a link out of"):
        load_reference(snapshot)


@pytest.mark.parametrize("damage", ["obs", "obsm", "zarr.json", ".zgroup"])
def test_a_damaged_store_is_named(tmp_path, damage):
    folder = write_hub_folder(tmp_path / "r", TinyConfig(minified=MINIFIED))
    as_zarr(folder)
    path = folder / "adata.zarr" / damage
    if damage == "obs":
        shutil.rmtree(path)
    elif path.is_dir():
        for item in path.glob("*latent_qzm/**/*"):
            if item.is_file():
                item.write_bytes(b"{")
    elif path.exists():
        path.write_bytes(b"{")
    else:
        pytest.skip("the other format of zarr")
    with pytest.raises(CorruptFile, match="adata.zarr cannot be read as a zarr store"):
        load_reference(folder)


def lose_labels(folder):
    with h5py.File(folder / "adata.h5ad", "r+") as file:
        del file["obs/cell_type"]
        left = [name for name in file["obs"].attrs["column-order"] if name != "cell_type"]
        file["obs"].attrs["column-order"] = np.array(left, object)


def unlabel(folder):
    adata = anndata.read_h5ad(folder / "adata.h5ad")
    adata.obs["cell_type"] = "Unknown"
    adata.write_h5ad(folder / "adata.h5ad")


@pytest.mark.parametrize("change", [lose_labels, unlabel])
@pytest.mark.parametrize("labels", ["auto", ["cell_type"]])
def test_a_model_whose_cells_have_no_labels_labels_by_its_own_classifier(tmp_path, change, labels):
    config = TinyConfig(model="SCANVI", minified=MINIFIED, encode_covariates=True)
    folder = write_hub_folder(tmp_path / "r", config)
    change(folder)
    reference = load_reference(folder)
    assert "labels come from the model's own classifier" in " ".join(reference.notes)
    query = tiny_query(config, n_cells=40, batches=("n1", "n2"))
    mapped = map_query(reference, query, batch_key="batch", labels=labels)
    found = mapped.labels["cell_type"]
    assert list(mapped.labels) == ["cell_type"] and found.method == "the reference model's own classifier"
    votes = classify(reference, mapped.latent, device="cpu")
    assert found.label.tolist() == np.array(reference.schema.labels)[votes.argmax(axis=1)].tolist()
    assert found.pvalues is None and mapped.novelty is not None and (found.unknown >= mapped.novelty.novel).all()
    (line,) = (finding for finding in check(reference, query, batch_key="batch").findings if finding.name == "labels")
    assert line.grade == "warning" and "own classifier gives 3 labels" in line.sentence


def test_what_is_not_the_file_itself_is_said(tmp_path):
    folder = write_hub_folder(tmp_path / "r", TinyConfig())
    shutil.make_archive(str(tmp_path / "a"), "zip", folder)
    shutil.make_archive(str(tmp_path / "a"), "gztar", folder)
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"
    (tmp_path / "pointer").write_bytes(pointer)
    said = {
        "a.zip": "unzip a.zip",
        "a.tar.gz": "tar xf a.tar.gz",
        "pointer": "git lfs pull",
        "r/model.pt": "pass the folder",
    }
    for name, action in said.items():
        with pytest.raises(RepositoryNotFound, match=action):
            fetch(tmp_path / name)
    for name in ("adata.h5ad", "model.pt"):
        kept = (folder / name).read_bytes()
        (folder / name).write_bytes(pointer)
        with pytest.raises(CorruptFile, match=f"{name} .*Git LFS pointer.*git lfs pull"):
            load_reference(folder)
        (folder / name).write_bytes(kept)


def test_a_store_is_asked_of_the_hub_and_each_of_its_files_compared_with_the_stated_hash(tmp_path, monkeypatch):
    names = [
        "adata.zarr/.zattrs",
        "adata.zarr/obs/batch/codes/0",
        "run1_adata.zarr/zarr.json",
        "model.pt",
        "other/model.bin",
    ]
    assert list(filter_repo_objects(names, allow_patterns=hub.PATTERNS)) == names[:-1]
    made = write_hub_folder(tmp_path / "r", TinyConfig(minified=MINIFIED))
    as_zarr(made)
    blobs, snapshot = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots" / ("0" * 40)
    blobs.mkdir(parents=True)
    for path in sorted(p for p in made.rglob("*") if p.is_file()):
        place = snapshot / path.relative_to(made)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, blobs / git_blob(path))
        place.symlink_to(os.path.relpath(blobs / git_blob(path), place.parent))
    monkeypatch.setattr(hub, "_snapshot", lambda *args: snapshot)
    assert fetch("a/b").adata == snapshot / "adata.zarr"
    changed = next(path for path in (snapshot / "adata.zarr" / "obsm").rglob("*") if path.is_file())
    changed.resolve().write_bytes(b"other")
    with pytest.raises(CorruptFile, match="in the cache is not the file of the hub"):
        fetch("a/b")


@pytest.mark.parametrize("modality", ["rna", "prot"])
def test_a_batch_column_in_the_obs_of_a_modality_is_read(tmp_path, modality):
    whole = load_reference(write_totalvi_folder(tmp_path / "whole", mudata=True))
    folder = write_totalvi_folder(tmp_path / "moved", mudata=True)
    content = torch.load(folder / "model.pt", weights_only=False)
    content["attr_dict"]["registry_"]["field_registries"]["batch"]["data_registry"]["mod_key"] = modality
    torch.save(content, folder / "model.pt")
    with h5py.File(folder / "mdata.h5mu", "r+") as file:
        obs, own = read_elem(file["obs"]), read_elem(file[f"mod/{modality}/obs"])
        own["batch"] = obs["batch"].to_numpy()
        write_elem(file["mod"][modality], "obs", own[::-1])  # found by the cells' names
        write_elem(file["mod"][modality], "X", read_elem(file[f"mod/{modality}/X"])[::-1])
        write_elem(file, "obs", obs.drop(columns="batch"))
    moved = load_reference(folder)
    assert moved.obs["batch"].astype(str).tolist() == whole.obs["batch"].astype(str).tolist()
    np.testing.assert_array_equal(moved.latent.mean, whole.latent.mean)
    query = read_query(folder / "mdata.h5mu")
    assert query.obs["batch"].astype(str).tolist() == whole.obs["batch"].astype(str).tolist()
