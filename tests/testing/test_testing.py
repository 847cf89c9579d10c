"""Tiny references must be what scvi-tools would have written: checked against its own files where they are at hand."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from scipy.sparse import csr_matrix

from scgraft import testing
from scgraft.errors import OutputExists
from scgraft.testing import configs, tiny_query, write_hub_folder
from scgraft.testing.tiny_cells import encode
from scgraft.testing.tiny_hub import make_init_params, make_registry
from scgraft.testing.tiny_model import TinyConfig, make_weights

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden"
FOLDERS = [f for v in ("1.2.1", "1.4.2") for m in ("scvi", "scanvi", "seed") for f in sorted(GOLDEN.glob(f"{m}*__{v}"))]
MINIFIED, WITH_COUNTS = "latent_posterior_parameters", "latent_posterior_parameters_with_counts"


def load(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "model.pt", weights_only=False, map_location="cpu")


def shapes(state: dict[str, Any]) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    return {key: (tuple(t.shape), t.dtype) for key, t in state.items() if isinstance(t, torch.Tensor)}


def as_golden(folder: Path, saved: dict[str, Any]) -> TinyConfig:
    """The tiny configuration with the options and the categories of a file that scvi-tools wrote."""
    told = json.loads((folder / "golden.json").read_text(encoding="utf-8"))
    options, setup, fields = dict(told["init"]), told["setup"], saved["attr_dict"]["registry_"]["field_registries"]
    options.pop("dropout_rate", None)
    options |= {"embedding_dim": d["embedding_dim"]} if (d := options.pop("batch_embedding_kwargs", None)) else {}
    labels = fields["labels"]["state_registry"]["categorical_mapping"].tolist()
    unlabeled = setup.get("unlabeled_category")
    current = "1.2.1" if "latent_qzm" in _keys(fields) else "current"
    return TinyConfig(
        **{"n_hidden": 128, "n_latent": 10} | options,
        model=told["cls"],
        n_genes=fields["X"]["summary_stats"]["n_vars"],
        n_cells=fields["X"]["summary_stats"]["n_cells"],
        batches=tuple(fields["batch"]["state_registry"]["categorical_mapping"].tolist())
        if setup.get("batch_key")
        else None,
        covariates={
            k: tuple(v) for k, v in fields["extra_categorical_covs"]["state_registry"].get("mappings", {}).items()
        },
        continuous=tuple(setup.get("continuous_covariate_keys", ())),
        labels=tuple(label for label in labels if label != unlabeled) if setup.get("labels_key") else (),
        unlabeled=unlabeled,
        all_labeled=unlabeled not in set(anndata.read_h5ad(folder / "adata.h5ad").obs.get("cell_type", ())),
        size_factor="size_factor_key" in setup,
        minified=told["minify"],
        key_style=current,
        layer=setup.get("layer"),
        scvi_version=told["scvi_version"],
    )


def _keys(fields: dict[str, Any]) -> set[str]:
    return {f["data_registry"].get("attr_key") for f in fields.values()}


# Names of obs columns that the tiny references choose differently from the golden files.
RENAMED = {"donor_assay": "batch", "cell_ontology_class": "cell_type", "sf": "size_factor"}


def plain(value: Any) -> Any:
    """Registry that == compares: without arrays, identifiers, names of genes and columns, and what the maker decides.

    ``use_minified`` is False in a SCANVI that was made from an SCVI model.
    """
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if k not in ("_scvi_uuid", "column_names", "use_minified")}
    if isinstance(value, np.ndarray):
        return [str(value.dtype), value.tolist()]
    return RENAMED.get(value, value) if isinstance(value, str) else value


@pytest.mark.skipif(not FOLDERS, reason="the golden files of scvi-tools (../shared/golden) are not here")
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_model_file_is_laid_out_as_scvi_tools_does(folder: Path, tmp_path: Path) -> None:
    golden = load(folder)
    config = as_golden(folder, golden)
    tiny = load(write_hub_folder(tmp_path / "hub", config))
    assert shapes(tiny["model_state_dict"]) == shapes(golden["model_state_dict"])
    assert list(tiny["model_state_dict"]) == list(golden["model_state_dict"])
    assert set(tiny) == set(golden)
    assert set(tiny["attr_dict"]) == set(golden["attr_dict"])
    ours, theirs = (saved["attr_dict"]["registry_"] for saved in (tiny, golden))
    assert plain(ours) == plain(theirs)
    assert list(ours["field_registries"]) == list(theirs["field_registries"])
    assert isinstance(ours["field_registries"], defaultdict)


@pytest.mark.skipif(not FOLDERS, reason="the golden files of scvi-tools (../shared/golden) are not here")
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_options_and_data_are_laid_out_as_scvi_tools_does(folder: Path, tmp_path: Path) -> None:
    golden = load(folder)
    config = as_golden(folder, golden)
    theirs, ours = golden["attr_dict"]["init_params_"], make_init_params(config)
    assert set(ours["kwargs"]) == set(theirs["kwargs"])
    named = theirs["non_kwargs"] | {"dropout_rate": 0.1}
    flat = {k: v for group in ours["kwargs"].values() for k, v in group.items()}
    assert ours["non_kwargs"] == named
    for name, value in next(iter(theirs["kwargs"].values())).items():
        assert flat.get(name, getattr(TinyConfig, name, None)) == value
    found = anndata.read_h5ad(write_hub_folder(tmp_path / "hub", config) / "adata.h5ad")
    expected = anndata.read_h5ad(folder / "adata.h5ad")
    assert (type(found.X), found.X.dtype, found.shape) == (type(expected.X), expected.X.dtype, expected.shape)
    assert (found.X.nnz == 0) == (expected.X.nnz == 0)
    assert set(found.layers) == set(expected.layers)
    assert set(found.uns) == set(expected.uns)
    extra = {"X_latent_qzm", "X_latent_qzv"} & set(expected.obsm)
    assert set(found.obsm) - {"X_umap"} == set(expected.obsm) - extra
    codes = ["_scvi_batch", "_scvi_labels"]
    assert found.obs[codes].dtypes.tolist() == expected.obs[codes].dtypes.tolist()
    if config.minified:
        assert "observed_lib_size" in found.obs and "observed_lib_size" in expected.obs
        key = next(k for k in found.obsm if k.endswith("latent_qzm"))
        assert (found.obsm[key].dtype, found.obsm[key].shape) == (expected.obsm[key].dtype, expected.obsm[key].shape)


@pytest.mark.skipif(not FOLDERS, reason="the golden files of scvi-tools (../shared/golden) are not here")
@pytest.mark.parametrize("folder", [f for f in FOLDERS if f.name.endswith("1.4.2")], ids=lambda folder: folder.name)
def test_naive_encoder_agrees_with_scvi_tools(folder: Path) -> None:
    saved = load(folder)
    with np.load(folder / "golden.npz") as file:
        truth = {name: file[name] for name in ("ref_qzm", "ref_qzv")}
    config = as_golden(folder, saved)
    weights = {k: t.numpy() for k, t in saved["model_state_dict"].items() if isinstance(t, torch.Tensor)}
    counts = folder / "ref_counts.h5ad"
    adata = anndata.read_h5ad(counts if counts.exists() else folder / "adata.h5ad")
    x = csr_matrix(adata.X if config.layer is None else adata.layers[config.layer])
    nothing = np.zeros((adata.n_obs, 0))
    covariates = np.asarray(adata.obsm.get("_scvi_extra_categorical_covs", nothing), int)
    continuous = np.asarray(adata.obsm.get("_scvi_extra_continuous_covs", nothing), np.float64)
    batch = np.zeros(adata.n_obs, int)
    if config.batches:
        key = saved["attr_dict"]["registry_"]["field_registries"]["batch"]["state_registry"]["original_key"]
        batch = np.array([config.batches.index(b) for b in adata.obs[key]])
    mean, variance = encode(config, weights, x.toarray(), np.column_stack([batch, covariates]), continuous)
    np.testing.assert_allclose(mean, truth["ref_qzm"], atol=1e-5)
    np.testing.assert_allclose(variance, truth["ref_qzv"], rtol=1e-5)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(configs())
def test_any_configuration_makes_a_consistent_folder(config: TinyConfig) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = write_hub_folder(Path(name) / "hub", config)
        saved, adata = load(folder), anndata.read_h5ad(folder / "adata.h5ad")
    registry = saved["attr_dict"]["registry_"]
    for field in registry["field_registries"].values():
        if place := field["data_registry"]:
            holder = getattr(adata, place["attr_name"])
            assert place["attr_key"] is None or place["attr_key"] in holder
    batch = registry["field_registries"]["batch"]["state_registry"]
    if config.batches:
        told = batch["categorical_mapping"][adata.obs["_scvi_batch"]]
        assert told.tolist() == adata.obs[batch["original_key"]].tolist()
        assert set(adata.obs["_scvi_batch"]) == set(range(len(config.batches)))
    labels = registry["field_registries"]["labels"]["state_registry"]
    if config.labels:
        told = labels["categorical_mapping"][adata.obs["_scvi_labels"]]
        assert told.tolist() == adata.obs[labels["original_key"]].tolist()
    if config.model == "SCANVI":
        assert labels["categorical_mapping"][-1] == config.unlabeled
        assert len(labels["categorical_mapping"]) == config.n_labels + 1
    assert saved["var_names"].tolist() == adata.var_names.tolist()
    query = tiny_query(config, n_cells=7, batches=("q0",))
    assert query.var_names.equals(adata.var_names)
    needed = {*config.covariates, *config.continuous, *(["size_factor"] if config.size_factor else [])}
    assert needed | {"batch", "cell_type"} == set(query.obs)


@pytest.mark.parametrize("minified", [MINIFIED, WITH_COUNTS])
def test_minified_latent_is_the_encoding_of_the_counts(minified, tmp_path: Path) -> None:
    config = TinyConfig(
        encode_covariates=True, n_layers=2, minified=minified, covariates={"donor": ("d0", "d1")}, seed=4
    )
    whole = TinyConfig(**{k: getattr(config, k) for k in TinyConfig.__dataclass_fields__} | {"minified": None})
    stored = anndata.read_h5ad(write_hub_folder(tmp_path / "a", config) / "adata.h5ad")
    counts = anndata.read_h5ad(write_hub_folder(tmp_path / "b", whole) / "adata.h5ad")
    codes = np.column_stack([counts.obs["_scvi_batch"], counts.obsm["_scvi_extra_categorical_covs"]]).astype(int)
    mean, variance = encode(config, make_weights(config), counts.X.toarray(), codes, np.zeros((counts.n_obs, 0)))
    np.testing.assert_array_equal(stored.obsm["scvi_latent_qzm"], mean.astype(np.float32))
    np.testing.assert_array_equal(stored.obsm["scvi_latent_qzv"], variance.astype(np.float32))
    np.testing.assert_array_equal(stored.obs["observed_lib_size"], counts.X.sum(1).A1)
    assert stored.uns["_scvi_adata_minify_type"] == minified
    assert stored.X.nnz == (0 if minified == MINIFIED else counts.X.nnz)


def test_keys_of_the_minified_latent_follow_the_release() -> None:
    def places(model: str, style: str) -> list[str]:
        fields = make_registry(TinyConfig(model=model, minified=MINIFIED, key_style=style))["field_registries"]
        return [fields[name]["data_registry"]["attr_key"] for name in ("latent_qzm", "latent_qzv", "observed_lib_size")]

    assert places("SCVI", "current") == ["scvi_latent_qzm", "scvi_latent_qzv", "observed_lib_size"]
    assert places("SCANVI", "1.2.1") == ["latent_qzm", "latent_qzv", "observed_lib_size"]
    assert places("SCANVI", "old") == ["_scanvi_latent_qzm", "_scanvi_latent_qzv", "_scanvi_observed_lib_size"]


def test_neighbours_in_the_latent_share_their_cell_type(tmp_path: Path) -> None:
    config = TinyConfig(n_cells=150, minified=MINIFIED)
    adata = anndata.read_h5ad(write_hub_folder(tmp_path / "hub", config) / "adata.h5ad")
    query = tiny_query(config, n_cells=90)
    codes, nothing = np.zeros((query.n_obs, 1), int), np.zeros((query.n_obs, 0))
    mean, _ = encode(config, make_weights(config), query.X.toarray(), codes, nothing)
    distance = ((mean[:, None] - adata.obsm["scvi_latent_qzm"][None]) ** 2).sum(-1)
    found = adata.obs["cell_type"].to_numpy()[distance.argmin(1)]
    assert (found == query.obs["cell_type"].to_numpy()).mean() > 0.9


def test_same_seed_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    files = [
        write_hub_folder(tmp_path / str(i), TinyConfig(seed=seed)) / "model.pt" for i, seed in enumerate((3, 3, 4))
    ]
    first, again, other = (file.read_bytes() for file in files)
    assert first == again
    assert first != other


def test_query_has_the_batches_levels_and_counts_asked_for() -> None:
    config = TinyConfig(covariates={"donor": ("d0", "d1"), "sex": ("f",)}, continuous=("age",), size_factor=True)
    query = tiny_query(config, n_cells=30, batches=("b1", "new"), covariates={"donor": ("d1", "d9")}, seed=5)
    assert set(query.obs["batch"]) == {"b1", "new"}
    assert set(query.obs["donor"]) == {"d1", "d9"}
    assert set(query.obs["sex"]) == {"f"}
    assert set(query.obs["cell_type"]) == set(config.labels)
    assert (query.X.format, query.X.dtype) == ("csr", np.float32)
    assert (query.X.data == np.round(query.X.data)).all()
    assert query.X.sum(1).min() > 0
    again, other = (tiny_query(config, n_cells=30, batches=("b1", "new"), seed=seed).X for seed in (5, 6))
    assert (again != query.X).nnz == 0
    assert (other != query.X).nnz > 0


def test_card_holds_the_model_of_the_file(tmp_path: Path) -> None:
    config = TinyConfig(model="SCANVI", use_layer_norm="both", minified=MINIFIED)
    folder = write_hub_folder(tmp_path / "hub", config)
    card = (folder / "README.md").read_text(encoding="utf-8")
    parameters = json.loads(card.split("```json\n")[1].split("```")[0])
    setup = json.loads(card.split("```json\n")[2].split("```")[0])
    assert (parameters["n_hidden"], parameters["use_layer_norm"]) == (16, "both")
    assert setup["unlabeled_category"] == "Unknown"
    assert card.startswith("---\nlibrary_name: scvi-tools\n")
    assert "model_cls_name:SCANVI" in card
    assert "- **Data is Minified**: True" in card
    metadata = json.loads((folder / "_scvi_required_metadata.json").read_text(encoding="utf-8"))
    assert metadata["model_cls_name"] == "SCANVI"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"model": "TOTALVI"}, "only SCVI, SCANVI, LinearSCVI"),
        ({"model": "PEAKVI"}, "PEAKVI has other options"),
        ({"model": "SCANVI", "labels": ()}, "SCANVI needs labels"),
        ({"model": "SCANVI", "unlabeled": "alpha"}, "not a label"),
        ({"linear_classifier": True}, "only SCANVI has a classifier"),
        ({"labels": (), "dispersion": "gene-label"}, "needs labels"),
        ({"model": "SCANVI", "dispersion": "gene-label"}, "no dispersion by label"),
        (
            {"model": "SCANVI", "batch_representation": "embedding", "encode_covariates": True},
            "does not encode a batch embedding",
        ),
        ({"use_observed_lib_size": False, "minified": MINIFIED}, "cannot be minified"),
        ({"batches": None, "batch_representation": "embedding"}, "needs batches"),
        ({"covariates": {"donor": ()}}, "needs levels"),
        ({"batches": ("a", "a")}, "twice"),
        ({"n_cells": 2}, "too few"),
        ({"n_latent": 0}, "positive"),
    ],
)
def test_impossible_configurations_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        TinyConfig(**options)


def test_a_folder_that_holds_a_model_is_not_overwritten(tmp_path: Path) -> None:
    write_hub_folder(tmp_path, TinyConfig(seed=1))
    before = (tmp_path / "model.pt").read_bytes()
    with pytest.raises(OutputExists, match="already holds a model.pt"):
        write_hub_folder(tmp_path, TinyConfig(seed=2))
    assert (tmp_path / "model.pt").read_bytes() == before


def test_a_query_that_cannot_be_made_is_refused() -> None:
    with pytest.raises(ValueError, match="no covariate donor"):
        tiny_query(TinyConfig(), covariates={"donor": ("d0",)})
    with pytest.raises(ValueError, match="at least one batch"):
        tiny_query(TinyConfig(), batches=())


def test_strategies_say_that_hypothesis_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "hypothesis", None)
    with pytest.raises(ImportError, match="pip install hypothesis"):
        configs()


def test_public_names() -> None:
    assert testing.__all__ == sorted(testing.__all__)
    assert all(hasattr(testing, name) for name in testing.__all__)
