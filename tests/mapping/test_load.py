"""What a folder's cells were when a graft was made is known again, whatever else happened to the file."""

import os
import shutil

import h5py
import pytest

from scgraft.errors import BaseMismatch
from scgraft.files.hashes import sha256
from scgraft.graft.fit import fit
from scgraft.graft.merge import merge_grafts
from scgraft.graft.store import load_graft, save_graft
from scgraft.mapping.load import load_reference
from scgraft.query.align import align
from scgraft.testing import tiny_query, write_hub_folder
from scgraft.testing.tiny_model import TinyConfig
from scgraft.values.graft import FitConfig

CONFIG = TinyConfig(minified="latent_posterior_parameters")


def grafted(reference, batch):
    query = align(reference, tiny_query(CONFIG, n_cells=20, batches=(batch,)), batch_key="batch")
    return fit(reference, query, FitConfig(epochs=0))


def test_a_changed_file_of_cells_is_another_base_and_a_copy_is_not(tmp_path):
    folder = write_hub_folder(tmp_path / "r", CONFIG)
    reference = load_reference(folder)
    assert reference.base.cells == sha256(folder / "adata.h5ad")
    graft = grafted(reference, "q")
    save_graft(graft, tmp_path / "g")
    os.utime(folder / "adata.h5ad", (1, 1))
    copy = shutil.copytree(folder, tmp_path / "copy")
    for same in (folder, copy):
        assert load_graft(tmp_path / "g", reference=load_reference(same)).base == reference.base
    with h5py.File(copy / "adata.h5ad", "r+") as file:
        file["obsm/scvi_latent_qzm"][0, 0] += 1
    changed = load_reference(copy)
    with pytest.raises(BaseMismatch, match="the file was changed"):
        load_graft(tmp_path / "g", reference=changed)
    with pytest.raises(BaseMismatch, match="other cells of one model"):
        merge_grafts([graft, grafted(changed, "p")])


def test_a_model_without_cells_has_no_hash_of_them(tmp_path):
    folder = write_hub_folder(tmp_path / "r", CONFIG)
    (folder / "adata.h5ad").unlink()
    assert load_reference(folder).base.cells == ""
