"""All files of a reference are read within one budget: each may take what it alone would be given, all together may not."""

import zlib

import h5py
import numpy as np
import pytest
import torch

from scgraft.errors import CorruptFile, QueryError
from scgraft.files import budget
from scgraft.files.budget import Budget
from scgraft.mapping.load import load_reference
from scgraft.query.read import read_query
from scgraft.reference.stand_ins import NUMBER
from scgraft.testing import tiny_query, write_hub_folder
from scgraft.testing.tiny_model import TinyConfig

MINIFIED = TinyConfig(minified="latent_posterior_parameters")
COUNTS = TinyConfig(minified=None)
MORE = "far more memory than its size explains"
ROOM = 6 << 20  # bytes, in place of the real ones, so that the tests are fast
PART = int(0.7 * ROOM)  # two are more than the budget of these small files, one is not


@pytest.fixture(autouse=True)
def small_budgets(monkeypatch):
    monkeypatch.setattr(budget, "ROOM", ROOM)
    monkeypatch.setattr(budget, "PACKED_GROWTH", 1)


def packed(group, name, shape, dtype):
    """Zeros that take next to nothing on disk, and are there."""
    item = group.create_dataset(name, data=np.zeros(shape, dtype), compression="gzip", chunks=shape)
    item.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    return item


def add_column(file, frame, name):
    n = file[frame]["_index"].shape[0]
    packed(file[frame], name, (n,), f"S{PART // n}")
    columns = [*file[frame].attrs["column-order"], name]
    file[frame].attrs["column-order"] = np.array(columns, dtype=object)


def add_map(file, name):
    """Numbers of every cell in a map that is read; too many for a real one, as their width is."""
    n = file["obs/_index"].shape[0]
    if name in file["obsm"]:
        del file["obsm"][name]
    packed(file["obsm"], name, (n, 2), f"S{PART // n // 2}")


def add_texts(file, name):
    """One long text that many places of an array lead to."""
    n, long = 1000, PART // 1000
    kind = h5py.string_dtype()
    space = h5py.h5s.create_simple((1,))
    made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    made.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    one = h5py.h5d.create(
        file["uns"].id, f"{name}_one".encode(), h5py.h5t.py_create(kind, logical=True), space, dcpl=made
    )
    h5py.Dataset(one)[0] = "x" * long
    file.flush()
    with open(file.filename, "rb") as raw:
        raw.seek(one.get_offset())
        pointer = raw.read(16)
    many = file["uns"].create_dataset(name, (n,), kind, chunks=(n,), compression="gzip")
    many.id.write_direct_chunk((0,), zlib.compress(pointer * n))
    many.attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})


ADD = {
    "obs": lambda file: add_column(file, "obs", "padding"),
    "var": lambda file: add_column(file, "var", "padding"),
    "maps": lambda file: add_map(file, "X_umap"),
    "texts": lambda file: add_texts(file, "padding"),
}


def damage(path, *parts):
    with h5py.File(path, "r+") as file:
        file.require_group("obsm")
        file.require_group("uns")
        for part in parts:
            ADD[part](file)


@pytest.mark.parametrize("part", ADD)
def test_one_part_is_within_the_budget(tmp_path, part):
    write_hub_folder(tmp_path, MINIFIED)
    damage(tmp_path / "adata.h5ad", part)
    assert load_reference(tmp_path).latent is not None


@pytest.mark.parametrize(
    "parts",
    [("obs", "var"), ("obs", "maps"), ("var", "maps"), ("texts", "obs"), ("texts", "maps"), ("obs", "var", "maps")],
)
def test_parts_that_each_are_within_the_budget_exceed_it_together(tmp_path, parts):
    write_hub_folder(tmp_path, MINIFIED)
    damage(tmp_path / "adata.h5ad", *parts)
    with pytest.raises(CorruptFile, match=MORE):
        load_reference(tmp_path)


def test_the_model_and_its_cells_share_the_budget(tmp_path):
    """A model whose attributes take much of it loads alone; what it took is not there for the cells."""
    write_hub_folder(tmp_path, MINIFIED)
    saved = torch.load(tmp_path / "model.pt", weights_only=False)
    saved["attr_dict"]["padding_"] = range(PART // NUMBER)
    torch.save(saved, tmp_path / "model.pt")
    assert load_reference(tmp_path).latent is not None
    damage(tmp_path / "adata.h5ad", "obs")
    with pytest.raises(CorruptFile, match=MORE):
        load_reference(tmp_path)


def test_every_file_is_paid_from_one_budget(tmp_path, monkeypatch):
    write_hub_folder(tmp_path, COUNTS)
    paid = []
    spend = Budget.spend
    monkeypatch.setattr(Budget, "spend", lambda self, n, name="": paid.append((id(self), name)) or spend(self, n, name))
    load_reference(tmp_path)
    assert len({own for own, _ in paid}) == 1
    assert {"", "README.md", "_scvi_required_metadata.json", "it"} <= {name for _, name in paid}


@pytest.mark.parametrize("place", ["X", "layers"])
def test_counts_that_are_encoded_are_paid_by_the_reference(tmp_path, place):
    write_hub_folder(tmp_path, COUNTS)
    with h5py.File(tmp_path / "adata.h5ad", "r+") as file:
        shape = (file["obs/_index"].shape[0], file["var/_index"].shape[0])
        group = file if place == "X" else file.require_group("layers")
        if place == "X":
            del file["X"]
        packed(group, "X" if place == "X" else "more", shape, f"S{2 * PART // shape[0] // shape[1]}")
    with pytest.raises(CorruptFile, match=MORE if place == "layers" else "X does not hold numbers|" + MORE):
        load_reference(tmp_path)


def test_a_dataset_counts_as_often_as_it_has_a_name(tmp_path):
    """A thousand columns that are one and the same in the file are a thousand in memory."""
    write_hub_folder(tmp_path, MINIFIED)
    with h5py.File(tmp_path / "adata.h5ad", "r+") as file:
        packed(file["obs"], "c0", (file["obs/_index"].shape[0],), "S1000")
        names = [f"c{i}" for i in range(1000)]
        for name in names[1:]:
            file["obs"][name] = file["obs/c0"]
        file["obs"].attrs["column-order"] = np.array([*file["obs"].attrs["column-order"], *names], dtype=object)
    with pytest.raises(CorruptFile, match=MORE):
        load_reference(tmp_path)


@pytest.mark.parametrize("parts", [("obs", "var"), ("obs", "texts"), ("obs", "maps", "texts")])
def test_a_query_has_a_budget_of_its_own(tmp_path, parts):
    path = tmp_path / "query.h5ad"
    tiny_query(COUNTS, n_cells=30).write_h5ad(path)
    for part in parts[:1]:
        damage(path, part)
    assert read_query(path).n_obs == 30
    damage(path, *parts[1:])
    with pytest.raises(QueryError, match=MORE):
        read_query(path)


def test_a_long_card_is_read_to_its_millionth_character(tmp_path):
    write_hub_folder(tmp_path, MINIFIED)
    with (tmp_path / "README.md").open("a") as card:
        card.write("x" * 5_000_000)
    assert len(load_reference(tmp_path).card) == 1_000_000
