"""The files of a tiny reference beside its cells: registry, attributes, metadata and model card, as scvi-tools' own."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scgraft.testing.tiny_cells import (
    BATCH_KEY,
    CATEGORICAL,
    CONTINUOUS,
    LABELS_KEY,
    MINIFY_TYPE,
    SIZE_FACTOR_KEY,
    gene_names,
    make_uuid,
    minified_keys,
)
from scgraft.testing.tiny_model import TinyConfig

OPTIONS = ("encode_covariates", "deeply_inject_covariates", "use_batch_norm", "use_layer_norm", "batch_representation")


# Fields that a class does not register, and that its setup takes no argument for.
ABSENT = {
    "LinearSCVI": ("size_factor", "extra_categorical_covs", "extra_continuous_covs"),
    "PEAKVI": ("size_factor",),
}


def _mapping(levels: Sequence[str] | Sequence[int] | None) -> np.ndarray:
    """Categories as the registry holds them; the single category 0 where there is no column."""
    if not levels:
        return np.array([0])
    return np.array(levels) if all(isinstance(level, int) for level in levels) else np.array(levels, object)


def _field(place: tuple[str, str | None] | None, state: Mapping[str, Any], stats: Mapping[str, int]) -> dict[str, Any]:
    """One entry of the field registries; a field without data has no place."""
    found = {} if place is None else {"attr_name": place[0], "attr_key": place[1]}
    return {"data_registry": found, "state_registry": dict(state), "summary_stats": dict(stats)}


def make_registry(config: TinyConfig) -> dict[str, Any]:
    """``registry_``: what the model was told of its data."""
    c = config
    labels_key = LABELS_KEY if c.labels else None
    keys = list(c.covariates)
    setup: dict[str, Any] = {
        "layer": c.layer,
        "batch_key": BATCH_KEY if c.batches else None,
        "labels_key": labels_key,
        "size_factor_key": SIZE_FACTOR_KEY if c.size_factor else None,
        "categorical_covariate_keys": keys or None,
        "continuous_covariate_keys": list(c.continuous) or None,
    }
    batch = {"categorical_mapping": _mapping(c.batches), "original_key": setup["batch_key"] or "_scvi_batch"}
    labels: dict[str, Any] = {
        "categorical_mapping": _mapping(c.categories),
        "original_key": labels_key or "_scvi_labels",
    }
    if c.model == "SCANVI":
        setup = {"labels_key": labels_key, "unlabeled_category": c.unlabeled} | setup
        setup |= {"use_minified": True} if since(c, 1, 3, 1) else {}
        labels["unlabeled_category"] = c.unlabeled
    categorical = {
        "mappings": {key: _mapping(levels) for key, levels in c.covariates.items()},
        "field_keys": keys,
        "n_cats_per_key": [len(levels) for levels in c.covariates.values()],
    }
    counts = {"n_obs": c.n_cells, "n_vars": c.n_genes, "column_names": gene_names(c)}
    fields: dict[str, dict[str, Any]] = defaultdict(dict)
    fields["X"] = _field(
        ("layers", c.layer) if c.layer else ("X", None), counts, {"n_vars": c.n_genes, "n_cells": c.n_cells}
    )
    fields["batch"] = _field(("obs", "_scvi_batch"), batch, {"n_batch": c.n_batches})
    fields["labels"] = _field(("obs", "_scvi_labels"), labels, {"n_labels": len(labels["categorical_mapping"])})
    fields["size_factor"] = _field(("obs", SIZE_FACTOR_KEY) if c.size_factor else None, {}, {})
    fields["extra_categorical_covs"] = _field(
        ("obsm", CATEGORICAL) if keys else None, categorical if keys else {}, {"n_extra_categorical_covs": len(keys)}
    )
    fields["extra_continuous_covs"] = _field(
        ("obsm", CONTINUOUS) if c.continuous else None,
        {"columns": np.array(c.continuous, object)} if c.continuous else {},
        {"n_extra_continuous_covs": len(c.continuous)},
    )
    for name in ABSENT.get(c.model, ()):
        setup.pop(f"{name}_key" if name == "size_factor" else f"{name.removeprefix('extra_')[:-5]}_covariate_keys")
        fields.pop(name)
    found = {"scvi_version": c.scvi_version, "model_name": c.model, "setup_args": setup, "field_registries": fields}
    if c.minified is None:
        found["setup_method_name"] = "setup_anndata"
    else:
        fields.update(_minified_fields(c))
    return found | {"_scvi_uuid": make_uuid(c, 5)}


def _minified_fields(config: TinyConfig) -> dict[str, dict[str, Any]]:
    mean_key, variance_key, library_key = minified_keys(config)
    state, d = {"column_names": np.arange(config.n_latent)}, config.n_latent
    return {
        "latent_qzm": _field(("obsm", mean_key), state, {"n_latent_qzm": d}),
        "latent_qzv": _field(("obsm", variance_key), state, {"n_latent_qzv": d}),
        "observed_lib_size": _field(("obs", library_key), {}, {}),
        "minify_type": _field(("uns", MINIFY_TYPE), {}, {}),
    }


def since(config: TinyConfig, *version: int) -> bool:
    """Whether the files claim this version of scvi-tools or a later one."""
    return tuple(int(part) for part in config.scvi_version.split(".")) >= version


def make_init_params(config: TinyConfig) -> dict[str, Any]:
    """``init_params_``: options of the signature in non_kwargs; others only where they differ from the default."""
    c = config
    if c.model in ("PEAKVI", "POISSONVI"):
        return _region_options(c)
    named: dict[str, Any] = {name: getattr(c, name) for name in ("n_hidden", "n_latent", "n_layers")}
    named |= {"dropout_rate": 0.1, "dispersion": c.dispersion, "gene_likelihood": c.gene_likelihood}
    others = {name: getattr(c, name) for name in OPTIONS if getattr(c, name) != getattr(TinyConfig, name)}
    if c.batch_representation == "embedding":
        others["batch_embedding_kwargs"] = {"embedding_dim": c.embedding_dim}
    if since(c, 1, 3, 1):
        named["use_observed_lib_size"] = c.use_observed_lib_size
    elif not c.use_observed_lib_size:
        others["use_observed_lib_size"] = False
    if c.model == "LinearSCVI":
        others = {"use_observed_lib_size": True} if c.use_observed_lib_size and not since(c, 1, 3, 1) else {}
        return {
            "kwargs": {"model_kwargs": others},
            "non_kwargs": named | {"latent_distribution": c.latent_distribution},
        }
    if c.model == "SCVI":
        return {"kwargs": {"kwargs": others}, "non_kwargs": named | {"latent_distribution": c.latent_distribution}}
    if c.latent_distribution != "normal":
        others["latent_distribution"] = c.latent_distribution
    named |= {"linear_classifier": c.linear_classifier} | ({"datamodule": None} if since(c, 1, 3, 1) else {})
    return {"kwargs": {"model_kwargs": others}, "non_kwargs": named}


def _region_options(config: TinyConfig) -> dict[str, Any]:
    """Options of PEAKVI, which has all of them in its signature, and of POISSONVI, which implies the norms."""
    c = config
    named: dict[str, Any] = {"n_hidden": c.n_hidden, "n_latent": c.n_latent, "dropout_rate": 0.1}
    named["latent_distribution"] = c.latent_distribution
    if c.model == "POISSONVI":
        others = {
            name: getattr(c, name)
            for name in ("encode_covariates", "deeply_inject_covariates")
            if getattr(c, name) != getattr(TinyConfig, name)
        }
        return {"kwargs": {"model_kwargs": others}, "non_kwargs": named | {"n_layers": c.n_layers}}
    named |= {
        "n_layers_encoder": c.n_layers,
        "n_layers_decoder": c.n_layers,
        "model_depth": True,
        "region_factors": True,
    }
    named |= {name: getattr(c, name) for name in OPTIONS if name != "batch_representation"}
    return {"kwargs": {"model_kwargs": {}}, "non_kwargs": named}


def make_attributes(config: TinyConfig, labels: Sequence[str]) -> dict[str, Any]:
    """``attr_dict``: everything that is saved beside the weights. `labels` are those of the reference's cells."""
    order = np.random.default_rng([config.seed, 7]).permutation(config.n_cells)
    n_held_out = config.n_cells // 10
    found: dict[str, Any] = {
        "history_": {},
        "init_params_": make_init_params(config),
        "is_trained_": True,
        "registry_": make_registry(config),
        "test_indices_": np.array([], np.int64),
        "train_indices_": order[n_held_out:],
        "validation_indices_": order[:n_held_out],
    }
    if since(config, 1, 3, 2):
        found["get_normalized_function_name_"] = "get_normalized_expression"
    if since(config, 1, 4):
        found |= {"run_id_": "", "run_name_": "tiny"}
    if config.model == "SCANVI":
        found |= {
            "unlabeled_category_": config.unlabeled,
            "semisupervised_history_": None,
            "unsupervised_history_": None,
        }
        if since(config, 1, 3, 1):
            found["labels_"] = np.array(labels, object)
    return found


def make_metadata(config: TinyConfig) -> dict[str, str | None]:
    """Content of ``_scvi_required_metadata.json``."""
    return {
        "scvi_version": config.scvi_version,
        "anndata_version": "0.12.0",
        "model_cls_name": config.model,
        "training_data_url": None,
        "model_parent_module": "scvi.external" if config.model == "POISSONVI" else "scvi.model",
    }


def make_card(config: TinyConfig) -> str:
    """Text of ``README.md``: the hub's headings and blocks around the model's own values."""
    metadata, registry, options = make_metadata(config), make_registry(config), make_init_params(config)
    named = options["non_kwargs"] | {k: v for group in options["kwargs"].values() for k, v in group.items()}
    places = {key: f["data_registry"] for key, f in registry["field_registries"].items() if f["data_registry"]}
    stats = {k: v for f in registry["field_registries"].values() for k, v in f["summary_stats"].items()}
    tags = ["biology", "genomics", "single-cell"]
    tags += [f"{key}:{metadata[key]}" for key in ("model_cls_name", "scvi_version", "anndata_version")]
    tags += ["modality:rna", "annotated:True"]
    rows = [
        f"| {k} | adata.{p['attr_name']}" + (f"['{p['attr_key']}']" if p["attr_key"] else "") + " |"
        for k, p in places.items()
    ]
    return "\n".join(
        ["---", "library_name: scvi-tools", "license: cc0-1.0", "tags:", *(f"- {tag}" for tag in tags), "---", ""]
        + [f"A tiny {config.model} model with random weights, for tests.", "", "# Model Description", ""]
        + ["Simulated cells; it was never trained.", "", "# Model Properties", ""]
        + _details("Model Parameters", ["```json", json.dumps(named, indent=4), "```"])
        + _details("Setup Data Arguments", ["```json", json.dumps(registry["setup_args"], indent=4), "```"])
        + _details(
            "Data Registry",
            ["| Registry Key | scvi-tools Location |", "|---|---|", *rows, ""]
            + [f"- **Data is Minified**: {config.minified is not None}"],
        )
        + _details(
            "Summary Statistics",
            ["| Summary Stat Key | Value |", "|---|---|"] + [f"| {k} | {v} |" for k, v in stats.items()],
        )
        + ["# References", "", "None: made by scgraft.testing.", ""]
    )


def _details(title: str, lines: Sequence[str]) -> list[str]:
    """Lines of a block that a reader of the card can unfold."""
    return ["<details>", f"<summary><strong>{title}</strong></summary>", "", *lines, "", "</details>", ""]
