"""Bundle -> Reference: reads what any version of scvi-tools saved, believing the file's contents and nothing else.

The registry says where the minified posterior is; constants differ between versions. The card and the registry are not
believed about the state of X: it is looked at.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scgraft.errors import CorruptFile, UnsupportedModel
from scgraft.files.h5ad import open_h5ad
from scgraft.files.hashes import sha256
from scgraft.files.structure import check_element
from scgraft.model.families import family_of, recognised
from scgraft.reference.maps import read_maps
from scgraft.reference.unpickle import read_pickle, read_torch_file
from scgraft.values.names import level_name
from scgraft.values.reference import BaseId, Bundle, Covariate, Latent, Reference, Schema

if TYPE_CHECKING:
    import h5py
    import pandas as pd

LEGACY_KEYS = {"batch_indices": "batch", "cat_covs": "extra_categorical_covs", "cont_covs": "extra_continuous_covs"}
KEPT = ("init_params_", "train_indices_", "validation_indices_", "test_indices_")
MINIFY_FLAGS = ("_scvi_adata_minify_type", "_scvi_adata_latent")


@dataclass(frozen=True)
class _Saved:
    """What a model file holds, whatever version wrote it."""

    weights: dict[str, np.ndarray]
    genes: np.ndarray
    attrs: Mapping[str, Any]
    registry: Mapping[str, Any]


def read(bundle: Bundle) -> Reference:
    """Read a reference from its files; nothing in them is executed.

    Returns
    -------
    Reference
        With the stored posterior as its latent where there is one.

    Raises
    ------
    UnsafeFile, CorruptFile
        The files hold something that is not on the allow-list, or contradict one another.
    UnsupportedModel
        A class or an option that scgraft does not know.
    """
    saved = _read_legacy(bundle.model) if bundle.model.name.endswith("model_params.pt") else _read_model(bundle.model)
    metadata = _read_metadata(bundle.metadata)
    name = _model_class(saved, metadata)
    family = family_of(name)
    schema = read_schema(saved.registry, saved.genes, saved.attrs, model=name, keeps_unlabeled=family.keeps_unlabeled)
    hyper = family.read_hyper(flat_options(saved.attrs.get("init_params_")), saved.weights, schema)
    family.slots(hyper, schema, saved.weights)
    base = BaseId(bundle.repo, bundle.revision, sha256(bundle.model), name)
    version = saved.registry.get("scvi_version") or metadata.get("scvi_version") or "unknown"
    card = bundle.card.read_text(encoding="utf-8", errors="replace") if bundle.card else None
    cells = _read_cells(bundle.adata, saved.registry, hyper.n_latent) if bundle.adata else {}
    return Reference(
        base=base,
        schema=schema,
        hyper=hyper,
        weights=saved.weights,
        scvi_version=str(version),
        registry=saved.registry,
        card=card,
        adata_path=bundle.adata,
        attributes={key: saved.attrs[key] for key in KEPT if saved.attrs.get(key) is not None},
        **cells,
    )


def _read_model(path: Path) -> _Saved:
    raw = read_torch_file(path)
    missing = {"model_state_dict", "var_names", "attr_dict"} - set(raw)
    if missing:
        raise CorruptFile(
            f"{path.name} lacks {', '.join(sorted(missing))}: it is not a model saved by scvi-tools (found: "
            f"{', '.join(map(str, list(raw)[:6]))})."
        )
    attrs, names = raw["attr_dict"], raw["var_names"]
    if isinstance(names, dict):
        names = next(iter(names.values()))
    registry = attrs.get("registry_")
    if not isinstance(registry, dict):
        raise CorruptFile(f"{path.name} has no registry: it was saved by an unknown version of scvi-tools.")
    return _Saved(_arrays(raw["model_state_dict"]), np.asarray(names).astype(str), attrs, registry)


def _read_legacy(path: Path) -> _Saved:
    """Folders of scvi-tools before 0.15: ``model_params.pt``, ``attr.pkl``, ``var_names.csv``, a prefix on all."""
    prefix = path.name.removesuffix("model_params.pt")
    attr_path, names_path = path.with_name(f"{prefix}attr.pkl"), path.with_name(f"{prefix}var_names.csv")
    for needed in (attr_path, names_path):
        if not needed.is_file():
            raise CorruptFile(f"{path.name} is a model of scvi-tools before 0.15, which needs {needed.name} beside it.")
    attrs = read_pickle(attr_path)
    setup = attrs.get("scvi_setup_dict_")
    if not isinstance(setup, dict):
        raise CorruptFile(f"{attr_path.name} has no setup dictionary: it is not a model saved by scvi-tools.")
    genes = np.array(names_path.read_text(encoding="utf-8").splitlines(), dtype=str)
    return _Saved(_arrays(read_torch_file(path)), genes, attrs, _modern_registry(setup))


def _arrays(state: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {k: v for k, v in state.items() if isinstance(v, np.ndarray)}


def _modern_registry(setup: Mapping[str, Any]) -> dict[str, Any]:
    """The registry that scvi-tools would write today for a setup dictionary of before 0.15."""
    fields: dict[str, Any] = {}
    mappings = setup.get("categorical_mappings", {})
    for old, place in setup.get("data_registry", {}).items():
        key = LEGACY_KEYS.get(old, old)
        attr_key = None if place.get("attr_key") in (None, "None") else place["attr_key"]
        fields[key] = {"data_registry": {"attr_name": place["attr_name"], "attr_key": attr_key}, "state_registry": {}}
        mapping = mappings.get(place.get("attr_key"))
        if mapping:
            fields[key]["state_registry"] = {
                "categorical_mapping": mapping["mapping"],
                "original_key": mapping["original_key"],
            }
    extra = setup.get("extra_categoricals")
    if extra:
        fields.setdefault("extra_categorical_covs", {"data_registry": {}})["state_registry"] = {
            "field_keys": list(extra["keys"]),
            "mappings": extra["mappings"],
            "n_cats_per_key": list(extra["n_cats_per_key"]),
        }
    if setup.get("extra_continuous_keys") is not None:
        columns = list(setup["extra_continuous_keys"])
        fields.setdefault("extra_continuous_covs", {"data_registry": {}})["state_registry"] = {"columns": columns}
    return {
        "scvi_version": setup.get("scvi_version", "unknown"),
        "setup_args": {},
        "field_registries": fields,
        "setup_method_name": "setup_anndata",
    }


def _read_metadata(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CorruptFile(f"{path.name} is not JSON: {error}.") from error
    return metadata if isinstance(metadata, dict) else {}


def _model_class(saved: _Saved, metadata: Mapping[str, Any]) -> str:
    name = saved.registry.get("model_name") or metadata.get("model_cls_name")
    if name:
        return str(name)
    return recognised(saved.weights)


def flat_options(init: Any) -> dict[str, Any]:
    """Options of the model's constructor, from ``init_params_`` of any version."""
    if not isinstance(init, dict):
        return {}
    if "non_kwargs" in init or "kwargs" in init:
        flat = dict(init.get("non_kwargs") or {})
        for name, value in (init.get("kwargs") or {}).items():
            flat.update(value if isinstance(value, dict) else {name: value})
        return flat
    flat = {}
    for name, value in init.items():
        flat.update(value if isinstance(value, dict) else {name: value})
    return flat


def _field(registry: Mapping[str, Any], name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Where a field's data is, and its state."""
    entry = (registry.get("field_registries") or {}).get(name) or {}
    return dict(entry.get("data_registry") or {}), dict(entry.get("state_registry") or {})


def read_schema(
    registry: Mapping[str, Any],
    genes: np.ndarray,
    attrs: Mapping[str, Any],
    *,
    model: str,
    keeps_unlabeled: bool = False,
) -> Schema:
    """What the reference asks of a query, from its registry."""
    setup = registry.get("setup_args") or {}
    if registry.get("setup_method_name") == "setup_mudata":
        raise UnsupportedModel(f"The {model} model was set up on MuData; supported are models set up on AnnData.")
    place, _ = _field(registry, "X")
    layer = place.get("attr_key") if place.get("attr_name") == "layers" else None
    _, batch = _field(registry, "batch")
    batches = tuple(level_name(v) for v in batch.get("categorical_mapping", [0]))
    batch_key = batch.get("original_key")
    _, label = _field(registry, "labels")
    labels = [level_name(v) for v in label.get("categorical_mapping", [])]
    labels_key = label.get("original_key")
    unlabeled = label.get("unlabeled_category", attrs.get("unlabeled_category_")) if keeps_unlabeled else None
    if unlabeled is not None:
        unlabeled = level_name(unlabeled)
        labels = [v for v in labels if v != unlabeled]
    _, covariates = _field(registry, "extra_categorical_covs")
    mappings = covariates.get("mappings") or {}
    _, continuous = _field(registry, "extra_continuous_covs")
    factor, _ = _field(registry, "size_factor")
    return Schema(
        genes=genes,
        batch_key=None if batch_key in (None, "_scvi_batch") else str(batch_key),
        batches=batches,
        labels_key=None if labels_key in (None, "_scvi_labels") else str(labels_key),
        labels=tuple(labels),
        unlabeled=unlabeled,
        layer=layer,
        categorical=tuple(
            Covariate(str(key), tuple(level_name(v) for v in mappings[key])) for key in covariates.get("field_keys", [])
        ),
        continuous=tuple(str(c) for c in _columns(continuous)),
        size_factor_key=setup.get("size_factor_key") or factor.get("attr_key"),
    )


def _columns(state: Mapping[str, Any]) -> list[Any]:
    columns = state.get("columns")
    return [] if columns is None else list(columns)


def _read_cells(path: Path, registry: Mapping[str, Any], n_latent: int) -> dict[str, Any]:
    """Cells of the reference: annotation, two-dimensional maps, and stored posterior; never X of a minified file."""
    from anndata.io import read_elem

    with open_h5ad(path, ("obs", "var", "uns")) as file:
        obs, var = read_elem(file["obs"]), read_elem(file["var"])
        obsm = file["obsm"] if "obsm" in file else {}
        flag = next((file["uns"][f] for f in MINIFY_FLAGS if "uns" in file and f in file["uns"]), None)
        minified = None if flag is None else str(read_elem(flag))
        latent = _stored_posterior(obsm, registry, obs, n_latent)
        maps, remarks = read_maps(obsm, len(obs))
    place, _ = _field(registry, "observed_lib_size")
    key = place.get("attr_key") or "observed_lib_size"
    library = np.asarray(obs[key], dtype=np.float32) if key in obs else None
    return {
        "latent": latent,
        "latent_source": "none" if latent is None else "stored posterior",
        "obs": obs,
        "var": var,
        "maps": maps,
        "remarks": remarks,
        "library": library,
        "minified": (minified or "latent_posterior_parameters") if latent is not None else None,
    }


def _stored_posterior(
    obsm: h5py.Group | dict[str, Any], registry: Mapping[str, Any], obs: pd.DataFrame, n_latent: int
) -> Latent | None:
    """Posterior where the registry says it is, or under any spelling that a version of scvi-tools used."""
    found = {}
    for part in ("latent_qzm", "latent_qzv"):
        place, _ = _field(registry, part)
        spellings = [place.get("attr_key"), *sorted(k for k in obsm if k.endswith(part))]
        key = next((k for k in spellings if k and k in obsm), None)
        if key is None:
            return None
        check_element(obsm[key], f"obsm/{key}")
        found[part] = np.asarray(obsm[key], dtype=np.float32)
        if found[part].shape != (len(obs), n_latent):
            raise CorruptFile(
                f"The stored posterior obsm[{key!r}] has shape {found[part].shape}; {len(obs)} cells and {n_latent} "
                "latent dimensions were expected. The AnnData file and the model do not belong together."
            )
    if not all(np.isfinite(values).all() for values in found.values()) or (found["latent_qzv"] < 0).any():
        raise CorruptFile("The stored posterior in obsm holds NaN, infinite numbers, or negative variances.")
    cells = np.asarray(obs.index.astype(str), dtype=str)
    return Latent(found["latent_qzm"], found["latent_qzv"], cells)
