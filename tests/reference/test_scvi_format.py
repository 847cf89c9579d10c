"""Odd and old repositories: legacy folders, missing registry entries, every spelling of the minified keys, hostile metadata."""

import json
import logging
import pickle
import sys
from dataclasses import replace

import anndata
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from scipy.sparse import csr_matrix

from scgraft.errors import CorruptFile, UnsafeFile
from scgraft.mapping.load import load_reference
from scgraft.reference.counts import stored_counts
from scgraft.reference.saved_registry import flat_options
from scgraft.testing import configs, write_hub_folder
from scgraft.testing.tiny_model import TinyConfig
from shared_files import SHARED

MINIFIED = TinyConfig(minified="latent_posterior_parameters")


def edit(folder, change):
    """Rewrite model.pt after `change` has worked on what it holds."""
    saved = torch.load(folder / "model.pt", weights_only=False)
    change(saved)
    torch.save(saved, folder / "model.pt")
    return folder


@pytest.mark.parametrize("folder", sorted(SHARED.glob("hub/cells/*")), ids=lambda f: f.name)
def test_every_shared_reference_loads_with_its_latent(folder):
    reference = load_reference(folder)
    assert reference.latent_source == "stored posterior" and len(reference.latent.mean) == len(reference.obs)
    assert reference.card.startswith("---") and reference.scvi_version == "1.4.2"
    assert "field_registries" in reference.registry


@settings(max_examples=20)
@given(configs())
def test_every_configuration_loads(tmp_path_factory, config):
    reference = load_reference(write_hub_folder(tmp_path_factory.mktemp("hub") / "r", config))
    assert reference.schema.batches == tuple(map(str, config.batches or (0,)))
    if config.model not in ("PEAKVI", "POISSONVI"):  # their observations are no option
        assert reference.hyper.gene_likelihood == config.gene_likelihood
    assert (reference.latent is not None) or "cannot be encoded" in reference.latent_source


@pytest.mark.parametrize("style", ["current", "1.2.1", "old"])
@pytest.mark.parametrize("model", ["SCVI", "SCANVI"])
def test_every_spelling_of_the_minified_keys(style, model, tmp_path):
    config = replace(MINIFIED, key_style=style, model=model)
    reference = load_reference(write_hub_folder(tmp_path / "r", config))
    assert reference.minified == "latent_posterior_parameters" and reference.latent_source == "stored posterior"


def test_the_file_is_believed_where_the_registry_is_silent(tmp_path):
    def forget(saved):
        registry = saved["attr_dict"]["registry_"]
        registry.pop("setup_method_name", None)
        for name in ("latent_qzm", "latent_qzv", "minify_type", "observed_lib_size"):
            registry["field_registries"].pop(name, None)

    reference = load_reference(edit(write_hub_folder(tmp_path / "r", MINIFIED), forget))
    assert reference.latent_source == "stored posterior" and reference.library is not None


def test_zeros_are_never_encoded(tmp_path):
    """A minified file whose posterior was lost: X is empty, and is not taken for counts."""
    folder = write_hub_folder(tmp_path / "r", MINIFIED)
    adata = anndata.read_h5ad(folder / "adata.h5ad")
    for key in [k for k in adata.obsm if "latent" in k]:
        del adata.obsm[key]
    adata.write_h5ad(folder / "adata.h5ad")
    reference = load_reference(folder)
    assert reference.latent is None and "cannot be encoded" in reference.latent_source


def test_the_module_named_in_the_metadata_is_never_imported(tmp_path, monkeypatch):
    folder = write_hub_folder(tmp_path / "r", MINIFIED)
    (tmp_path / "hostile_module.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    path = folder / "_scvi_required_metadata.json"
    metadata = json.loads(path.read_text()) | {"model_parent_module": "hostile_module", "extra": 1}
    path.write_text(json.dumps(metadata))
    load_reference(folder)
    assert "hostile_module" not in sys.modules and not (tmp_path / "canary").exists()


def legacy(folder, tmp_path, prefix=""):
    """The same model as a folder of scvi-tools before 0.15."""
    saved = torch.load(folder / "model.pt", weights_only=False)
    registry = saved["attr_dict"]["registry_"]["field_registries"]
    batch = registry["batch"]["state_registry"]
    setup = {
        "scvi_version": "0.0.0",
        "categorical_mappings": {
            "_scvi_batch": {"original_key": batch["original_key"], "mapping": batch["categorical_mapping"]}
        },
        "data_registry": {
            "X": {"attr_name": "X", "attr_key": "None"},
            "batch_indices": {"attr_name": "obs", "attr_key": "_scvi_batch"},
        },
        "summary_stats": {},
        "extra_categoricals": {},
    }
    init = flat_options(saved["attr_dict"]["init_params_"])
    attrs = {"init_params_": init | {"use_cuda": True, "model_kwargs": {}}, "scvi_setup_dict_": setup, "history_": {}}
    out = tmp_path / "legacy"
    out.mkdir()
    state = {k: v for k, v in saved["model_state_dict"].items() if isinstance(v, torch.Tensor)}
    torch.save(state, out / f"{prefix}model_params.pt")
    (out / f"{prefix}attr.pkl").write_bytes(pickle.dumps(attrs))
    (out / f"{prefix}var_names.csv").write_text("\n".join(saved["var_names"]) + "\n")
    (folder / "adata.h5ad").rename(out / "adata.h5ad")
    return out


@pytest.mark.parametrize("prefix", ["", "lung_"])
def test_legacy_folders(prefix, tmp_path):
    config = TinyConfig(encode_covariates=True)
    modern = load_reference(write_hub_folder(tmp_path / "r", config))
    old = load_reference(legacy(tmp_path / "r", tmp_path, prefix))
    assert old.schema.batches == modern.schema.batches and old.schema.batch_key == modern.schema.batch_key
    assert np.array_equal(old.latent.mean, modern.latent.mean) and old.base.family == "SCVI"


@pytest.mark.parametrize("change", [lambda text: "\ufeff" + text, lambda text: text.replace("\n", "\r\n\r\n")])
def test_names_of_genes_with_a_byte_order_mark_or_blank_lines(tmp_path, change):
    made = legacy(write_hub_folder(tmp_path / "r", TinyConfig()), tmp_path, "")
    expected = load_reference(made).schema.genes
    path = made / "var_names.csv"
    path.write_bytes(change(path.read_text()).encode())
    assert load_reference(made).schema.genes.tolist() == expected.tolist()


def test_a_hostile_legacy_pickle(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "canary"), "w"))

    folder = legacy(write_hub_folder(tmp_path / "r", TinyConfig()), tmp_path)
    (folder / "attr.pkl").write_bytes(pickle.dumps({"scvi_setup_dict_": Evil()}))
    with pytest.raises(UnsafeFile, match="attr.pkl refers to .*open"):
        load_reference(folder)
    assert not (tmp_path / "canary").exists()


def test_damaged_files_are_named(tmp_path):
    folder = write_hub_folder(tmp_path / "r", MINIFIED)
    whole = (folder / "adata.h5ad").read_bytes()
    (folder / "adata.h5ad").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CorruptFile, match="adata.h5ad cannot be read"):
        load_reference(folder)
    (folder / "adata.h5ad").write_bytes(whole)
    (folder / "_scvi_required_metadata.json").write_text("{")
    with pytest.raises(CorruptFile, match="is not JSON"):
        load_reference(folder)
    (folder / "_scvi_required_metadata.json").unlink()
    assert load_reference(folder).base.family == "SCVI"
    edit(folder, lambda saved: saved["attr_dict"].pop("registry_"))
    with pytest.raises(CorruptFile, match="has no registry"):
        load_reference(folder)
    edit(folder, lambda saved: saved.pop("attr_dict"))
    with pytest.raises(CorruptFile, match="lacks attr_dict"):
        load_reference(folder)


def test_weights_that_do_not_fit_the_registry(tmp_path):
    def one_more_batch(saved):
        state = saved["attr_dict"]["registry_"]["field_registries"]["batch"]["state_registry"]
        state["categorical_mapping"] = np.append(state["categorical_mapping"], "another")

    with pytest.raises(CorruptFile, match="contradict one another"):
        load_reference(edit(write_hub_folder(tmp_path / "r", MINIFIED), one_more_batch))


def test_what_is_odd_about_the_files_is_said(tmp_path):
    """A column that was dropped, a model that was not trained."""
    config = replace(MINIFIED, covariates={"donor": ("a", "b")})
    folder = edit(write_hub_folder(tmp_path / "r", config), lambda saved: saved["attr_dict"].update(is_trained_=False))
    adata = anndata.read_h5ad(folder / "adata.h5ad")
    del adata.obs["donor"]
    adata.write_h5ad(folder / "adata.h5ad")
    notes = load_reference(folder).notes
    assert len(notes) == 2 and "not trained" in notes[0] and "obs['donor']" in notes[1]


@pytest.mark.parametrize("minified", [None, "latent_posterior_parameters"])
@pytest.mark.parametrize("key", ["batch", "donor"])
def test_levels_that_the_model_was_not_trained_with_are_refused(tmp_path, key, minified):
    """Names of batches, or of levels of a covariate, that were changed after the training: which, how many, and what is known."""
    folder = write_hub_folder(tmp_path / "r", replace(MINIFIED, covariates={"donor": ("a", "b")}, minified=minified))
    adata = anndata.read_h5ad(folder / "adata.h5ad")
    first, *others = adata.obs[key].cat.categories
    number = int((adata.obs[key] == first).sum())
    adata.obs[key] = adata.obs[key].cat.rename_categories({first: "renamed"})
    adata.write_h5ad(folder / "adata.h5ad")
    with pytest.raises(
        CorruptFile, match=rf"obs\['{key}'\].*'renamed' \({number} of {adata.n_obs} cells\).*'{first}', '{others[0]}'"
    ):
        load_reference(folder)


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
def test_cells_without_a_count_and_with_one_name_keep_the_stored_counts(tmp_path):
    """The rows that were asked for, zeros where a cell has none: not one of them makes all of them generated."""
    folder = write_hub_folder(tmp_path / "r", TinyConfig(minified="latent_posterior_parameters_with_counts"))
    adata = anndata.read_h5ad(folder / "adata.h5ad")
    counts = adata.X.toarray()
    counts[3] = 0
    adata.X = csr_matrix(counts)
    adata.obs_names = ["twin", "twin", *adata.obs_names[2:]]
    adata.write_h5ad(folder / "adata.h5ad")
    index = np.array([7, 3, 0, 1, 3])
    assert np.array_equal(stored_counts(load_reference(folder), index).toarray(), counts[index])


def test_stored_counts_that_cannot_be_used_are_said(tmp_path, caplog):
    folder = write_hub_folder(tmp_path / "r", TinyConfig(minified="latent_posterior_parameters_with_counts"))
    adata = anndata.read_h5ad(folder / "adata.h5ad")
    adata.X = csr_matrix(adata.X.toarray() * 0.3)
    adata.write_h5ad(folder / "adata.h5ad")
    reference = load_reference(folder)
    with caplog.at_level(logging.WARNING):
        assert stored_counts(reference, np.arange(5)) is None
    assert "its cells are drawn from the model" in caplog.text and "fractions" in caplog.text


@pytest.mark.parametrize(("name", "value"), [("qzm", np.nan), ("qzm", np.inf), ("qzv", np.nan), ("qzv", -1)])
def test_a_posterior_that_is_no_posterior_is_refused(tmp_path, name, value):
    folder = write_hub_folder(tmp_path / "r", TinyConfig(minified="latent_posterior_parameters"))
    adata = anndata.read_h5ad(folder / "adata.h5ad")
    key = next(key for key in adata.obsm if key.endswith(name))
    changed = np.array(adata.obsm[key])
    changed[3, 1] = value
    adata.obsm[key] = changed
    adata.write_h5ad(folder / "adata.h5ad")
    with pytest.raises(CorruptFile, match="posterior"):
        load_reference(folder)
