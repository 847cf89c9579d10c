"""The registry and attributes of a model as scvi-tools 1.4 writes them, for a reference that a graft extends.

Levels keep their order: the reference's first, then the graft's, which is the order of the widened columns.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scgraft.model.families import family_of
from scgraft.model.families.family import ScviOptions
from scgraft.reference import mudata_registry
from scgraft.reference.saved_registry import flat_options
from scgraft.values.blocks import PROTEINS
from scgraft.values.graft import Graft
from scgraft.values.names import BATCH, covariate_name
from scgraft.values.reference import Reference

OTHERS = (
    "encode_covariates", "deeply_inject_covariates", "use_batch_norm", "use_layer_norm", "log_variational",
    "batch_representation", "latent_distribution",
)  # fmt: skip
BATCH_COLUMN = "scgraft_batch"
PROTEIN_KEY = "protein_expression"  # where scvi-tools' own tutorials have the proteins
MINIFIED = "latent_posterior_parameters"


@dataclass(frozen=True)
class Levels:
    """Levels of one categorical column: the obs column, their names as text, and the values that obs holds for them."""

    key: str | None
    names: tuple[str, ...]
    values: np.ndarray


def extended_levels(reference: Reference, graft: Graft | None) -> dict[str, Levels]:
    """Levels of the batch and of each covariate, the graft's new ones last.

    Values stay as the reference's registry has them while there is no new level. With new ones they are whole numbers
    where all names are, else text.
    """
    schema, found = reference.schema, {}
    keys = {BATCH: schema.batch_key} | {covariate_name(c.key): c.key for c in schema.categorical}
    for name, known in schema.levels.items():
        new = () if graft is None else graft.levels.get(name, ())
        names, saved = (*known, *new), _saved_mapping(reference, name)
        if not new and saved is not None and len(saved) == len(known):
            values = np.asarray(saved)
        elif saved is not None and np.asarray(saved).dtype.kind in "iu" and all(_is_whole(n) for n in names):
            values = np.array([int(n) for n in names])
        else:
            values = np.array(names, object)
        key = keys[name]
        if key is None and new:
            key = BATCH_COLUMN
        found[name] = Levels(key, names, values)
    return found


def label_values(reference: Reference, extra: str | None = None) -> np.ndarray:
    """Categories of the labels as the registry has them, in code order; `extra` is one more, at the end."""
    saved = _state(reference, "labels").get("categorical_mapping")
    values = np.array([0]) if saved is None else np.asarray(saved)
    if reference.schema.unlabeled is not None and saved is None:
        values = np.array([*reference.schema.labels, reference.schema.unlabeled], object)
    return values if extra is None else np.array([*values.tolist(), extra], object)


def make_registry(
    reference: Reference,
    levels: Mapping[str, Levels],
    labels: np.ndarray,
    *,
    n_cells: int,
    minified: bool,
    version: str,
) -> dict[str, Any]:
    """``registry_`` of the extended model: nothing but plain mappings, lists, texts, numbers and arrays."""
    schema, proteins = reference.schema, next((b for b in reference.schema.blocks if b.name == PROTEINS), None)
    panel = None if proteins is None or proteins.panel == BATCH else levels[proteins.panel]
    keys = [c.key for c in schema.categorical if panel is None or c.key != panel.key]
    batch, categorical = levels[BATCH], [levels[covariate_name(key)] for key in keys]
    setup: dict[str, Any] = {
        "layer": schema.layer,
        "batch_key": batch.key,
        "labels_key": schema.labels_key,
        "size_factor_key": schema.size_factor_key,
        "categorical_covariate_keys": keys or None,
        "continuous_covariate_keys": list(schema.continuous) or None,
    }
    label_state: dict[str, Any] = {
        "categorical_mapping": labels,
        "original_key": schema.labels_key or "_scvi_labels",
    }
    if family_of(reference.base.family).keeps_unlabeled:
        # With use_minified off, scvi-tools would encode the zeros of its own minified file.
        setup |= {"unlabeled_category": _unlabeled(reference), "use_minified": True}
        label_state["unlabeled_category"] = _unlabeled(reference)
    batch_state = {"categorical_mapping": batch.values, "original_key": batch.key or "_scvi_batch"}
    covariate_state = {
        "mappings": {key: level.values for key, level in zip(keys, categorical, strict=True)},
        "field_keys": keys,
        "n_cats_per_key": [len(level.names) for level in categorical],
    }
    genes = np.array([str(gene) for gene in schema.genes], object)
    counts = {"n_obs": n_cells, "n_vars": len(genes), "column_names": genes}
    place: tuple[str, str | None] = ("layers", schema.layer) if schema.layer else ("X", None)
    fields = {
        "X": _field(place, counts, {"n_vars": len(genes), "n_cells": n_cells}),
        "batch": _field(("obs", "_scvi_batch"), batch_state, {"n_batch": len(batch.names)}),
        "labels": _field(("obs", "_scvi_labels"), label_state, {"n_labels": len(labels)}),
        "size_factor": _field(("obs", schema.size_factor_key) if schema.size_factor_key else None, {}, {}),
        "extra_categorical_covs": _field(
            ("obsm", "_scvi_extra_categorical_covs") if keys else None,
            covariate_state if keys else {},
            {"n_extra_categorical_covs": len(keys)},
        ),
        "extra_continuous_covs": _field(
            ("obsm", "_scvi_extra_continuous_covs") if schema.continuous else None,
            {"columns": np.array(schema.continuous, object)} if schema.continuous else {},
            {"n_extra_continuous_covs": len(schema.continuous)},
        ),
    }
    options, saved = family_of(reference.base.family).scvi_options, reference.registry.get("setup_args") or {}
    if options is not None and options.as_saved and not options.on_mudata and saved:
        # Other classes take fewer arguments, and stock scvi-tools is called with all that stand here.
        setup = {name: value for name, value in setup.items() if name in saved}
        known = reference.registry["field_registries"]
        fields = {name: field for name, field in fields.items() if name in known}
    if proteins is not None:
        setup |= {"protein_expression_obsm_key": PROTEIN_KEY, "protein_names_uns_key": None}
        fields[PROTEINS] = _protein_field(reference, len(levels[proteins.panel].names))
    if panel is not None:
        setup["panel_key"] = panel.key
        state = {"categorical_mapping": panel.values, "original_key": panel.key}
        fields["panel"] = _field(("obs", "_scvi_panel"), state, {"n_panel": len(panel.names)})
    if minified:
        fields |= _minified_fields(reference)
    if options is not None and options.on_mudata:
        setup, fields = mudata_registry.on_mudata(reference, setup, fields, n_cells)
    return {
        "scvi_version": version,
        "model_name": reference.base.family,
        "setup_args": setup,
        "setup_method_name": "setup_mudata" if options is not None and options.on_mudata else "setup_anndata",
        "field_registries": fields,
        "_scvi_uuid": str(uuid.uuid4()),
    }


def var_names(reference: Reference) -> np.ndarray | dict[str, np.ndarray]:
    """Names of the features as ``model.pt`` holds them: one array, or one for each modality."""
    options = family_of(reference.base.family).scvi_options
    if options is not None and options.on_mudata:
        return mudata_registry.var_names(reference)
    return np.array([str(gene) for gene in reference.schema.genes], object)


def _protein_field(reference: Reference, n_levels: int) -> dict[str, Any]:
    """The proteins as a table of obsm, and which of them each batch (or panel) measured: all of them in a new one."""
    names = np.array(reference.schema.block(PROTEINS).features, object)
    mask = np.ones((n_levels, len(names)), bool)
    saved = reference.attributes.get("protein_mask")
    if saved is not None:
        mask[: len(saved)] = saved
    state: dict[str, Any] = {"column_names": names.tolist()}
    if not mask.all():
        state["protein_batch_mask"] = {str(code): row for code, row in enumerate(mask)}
    return _field(("obsm", PROTEIN_KEY), state, {"n_proteins": len(names)})


def latent_keys(reference: Reference) -> tuple[str, str]:
    """Names of the stored posterior's mean and variance in obsm, as scvi-tools 1.2.2 and later has them."""
    options = family_of(reference.base.family).scvi_options
    name = (options and options.minified) or reference.base.family.lower()
    return f"{name}_latent_qzm", f"{name}_latent_qzv"


def make_attributes(
    reference: Reference, registry: Mapping[str, Any], labels: Sequence[Any], *, keep_split: bool
) -> dict[str, Any]:
    """``attr_dict``: what scvi-tools keeps beside the weights. `labels` are those of the cells, for a family with an unlabeled category.

    `keep_split` is off where cells were left out, so that the positions of the training cells mean nothing any more.
    """
    saved = reference.attributes
    found: dict[str, Any] = {
        "history_": {},
        "init_params_": make_init_params(reference),
        "is_trained_": True,
        "registry_": dict(registry),
        "get_normalized_function_name_": (family_of(reference.base.family).scvi_options or ScviOptions()).normalized,
        "run_id_": "",
        "run_name_": "scgraft",
    }
    for key in ("train_indices_", "validation_indices_", "test_indices_"):
        indices = saved.get(key)
        found[key] = np.asarray(indices, np.int64) if keep_split and indices is not None else None
    if family_of(reference.base.family).keeps_unlabeled:
        found |= {
            "unlabeled_category_": _unlabeled(reference),
            "labels_": np.array(list(labels), object),
            "semisupervised_history_": None,
            "unsupervised_history_": None,
        }
    return found


def model_options(reference: Reference) -> dict[str, Any]:
    """Options of the model by name: as it was read, or, for a family that is not exported, as they were saved."""
    if family_of(reference.base.family).scvi_options is None:
        return flat_options(reference.attributes.get("init_params_"))
    init = make_init_params(reference)
    return init["non_kwargs"] | {key: value for group in init["kwargs"].values() for key, value in group.items()}


def make_init_params(reference: Reference) -> dict[str, Any]:
    """``init_params_`` from the hyper-parameters as they were read, every one explicit, or as they were saved."""
    options, hyper = family_of(reference.base.family).scvi_options, reference.hyper
    assert options is not None
    if options.as_saved:
        return dict(reference.attributes.get("init_params_") or {"kwargs": {}, "non_kwargs": {}})
    saved = flat_options(reference.attributes.get("init_params_"))
    named = {name: getattr(hyper, name) for name in options.by_name}
    named["n_hidden"] = int(reference.weights["z_encoder.mean_encoder.weight"].shape[1])
    named["dropout_rate"] = float(saved.get("dropout_rate", 0.1))
    others = {name: getattr(hyper, name) for name in OTHERS if name not in named}
    if hyper.batch_representation == "embedding":
        width = reference.weights["_embeddings_dict.batch.weight"].shape[1]
        others["batch_embedding_kwargs"] = {"embedding_dim": int(width)}
    if saved.get("classifier_parameters"):
        others["classifier_parameters"] = dict(saved["classifier_parameters"])
    return {"kwargs": {options.others: others}, "non_kwargs": named}


def _is_whole(name: str) -> bool:
    return name.lstrip("-").isdigit() and str(int(name)) == name


def _unlabeled(reference: Reference) -> Any:
    """The unlabeled category with the type that the registry gives it."""
    return _state(reference, "labels").get("unlabeled_category", reference.schema.unlabeled)


def _state(reference: Reference, field: str) -> Mapping[str, Any]:
    entry = (reference.registry.get("field_registries") or {}).get(field) or {}
    return entry.get("state_registry") or {}


def _saved_mapping(reference: Reference, covariate: str) -> Any:
    if covariate == BATCH:
        return _state(reference, "batch").get("categorical_mapping")
    panel = _state(reference, "panel")
    if panel.get("original_key") == covariate.removeprefix("covariate:"):
        return panel.get("categorical_mapping")
    mappings = _state(reference, "extra_categorical_covs").get("mappings") or {}
    return mappings.get(covariate.removeprefix("covariate:"))


def _field(place: tuple[str, str | None] | None, state: Mapping[str, Any], stats: Mapping[str, int]) -> dict[str, Any]:
    found = {} if place is None else {"attr_name": place[0], "attr_key": place[1]}
    return {"data_registry": found, "state_registry": dict(state), "summary_stats": dict(stats)}


def _minified_fields(reference: Reference) -> dict[str, dict[str, Any]]:
    (mean, variance), d = latent_keys(reference), int(reference.hyper.n_latent)
    columns = {"column_names": np.arange(d)}
    return {
        "latent_qzm": _field(("obsm", mean), columns, {"n_latent_qzm": d}),
        "latent_qzv": _field(("obsm", variance), columns, {"n_latent_qzv": d}),
        "observed_lib_size": _field(("obs", "observed_lib_size"), {}, {}),
        "minify_type": _field(("uns", "_scvi_adata_minify_type"), {}, {}),
    }
