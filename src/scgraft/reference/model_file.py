"""model.pt, or the three files of scvi-tools before 0.15 -> what they hold, checked, whatever version wrote them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scgraft.errors import CorruptFile
from scgraft.files.budget import Budget
from scgraft.reference.saved_registry import level, mapping, read_attributes, read_registry, texts
from scgraft.reference.unpickle import read_pickle, read_torch_file

LEGACY_KEYS = {"batch_indices": "batch", "cat_covs": "extra_categorical_covs", "cont_covs": "extra_continuous_covs"}
# Prefixes of a model that was trained on several devices, or compiled, around each name.
WRAPPERS = ("module.", "_orig_mod.")
WHOLE = "num_batches_tracked"  # the only whole numbers among the tensors that matter


@dataclass(frozen=True)
class Saved:
    """What a model file holds: float32 weights, gene names (G,), checked attributes and registry.

    `unlabeled` is SCANVI's unlabeled category where the attributes have it; `trained` what they say of the training.
    """

    weights: dict[str, np.ndarray]
    genes: np.ndarray
    attributes: dict[str, Any]
    registry: dict[str, Any]
    unlabeled: object = None
    trained: bool = True


def read_model_file(path: Path, budget: Budget | None = None) -> Saved:
    """Read a model file through the allow-list, within a budget; nothing in it is executed.

    Raises
    ------
    UnsafeFile, CorruptFile
        As :func:`scgraft.reference.unpickle.read_torch_file`; or what it holds is not a model of scvi-tools.
    """
    return (_read_legacy if path.name.endswith("model_params.pt") else _read_modern)(path, budget)


def _read_modern(path: Path, budget: Budget | None) -> Saved:
    raw = read_torch_file(path, budget)
    missing = {"model_state_dict", "var_names", "attr_dict"} - set(raw)
    if missing:
        raise CorruptFile(
            f"{path.name} lacks {', '.join(sorted(missing))}: it is not a model saved by scvi-tools (found: "
            f"{', '.join(map(str, list(raw)[:6]))})."
        )
    attrs = mapping(raw["attr_dict"], f"attr_dict of {path.name}")
    if not isinstance(attrs.get("registry_"), dict):
        raise CorruptFile(f"{path.name} has no registry: it was saved by an unknown version of scvi-tools.")
    return _saved(raw["model_state_dict"], raw["var_names"], attrs, attrs["registry_"], path.name)


def _read_legacy(path: Path, budget: Budget | None) -> Saved:
    """Folders of scvi-tools before 0.15: ``model_params.pt``, ``attr.pkl``, ``var_names.csv``, a prefix on all."""
    prefix = path.name.removesuffix("model_params.pt")
    attr_path, names_path = path.with_name(f"{prefix}attr.pkl"), path.with_name(f"{prefix}var_names.csv")
    for needed in (attr_path, names_path):
        if not needed.is_file():
            raise CorruptFile(f"{path.name} is a model of scvi-tools before 0.15, which needs {needed.name} beside it.")
    state = read_torch_file(path, budget)
    attrs = read_pickle(attr_path, budget)
    if not isinstance(attrs.get("scvi_setup_dict_"), dict):
        raise CorruptFile(f"{attr_path.name} has no setup dictionary: it is not a model saved by scvi-tools.")
    return _saved(
        state,
        read_names(names_path),
        attrs,
        _modern_registry(attrs["scvi_setup_dict_"], attr_path.name),
        attr_path.name,
    )


def read_names(path: Path) -> list[str]:
    """Gene names of ``var_names.csv``, one on each line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise CorruptFile(f"{path.name} is not a text file with a gene name on each line: {error}.") from error
    return [line for line in lines if line.strip()]


def _saved(state: object, var_names: object, attrs: Mapping[str, Any], registry: object, name: str) -> Saved:
    if isinstance(var_names, dict) and var_names:  # of a MuData: one array for each modality
        var_names = next(iter(var_names.values()))
    genes = texts(var_names, f"var_names of {name}")
    unlabeled = attrs.get("unlabeled_category_")
    return Saved(
        weights=float_weights(mapping(state, f"the state dict of {name}"), name),
        genes=np.array(genes, dtype=str),
        attributes=read_attributes(attrs, name),
        registry=read_registry(registry, name),
        unlabeled=None if unlabeled is None else level(unlabeled, f"unlabeled_category_ of {name}"),
        trained=attrs.get("is_trained_") is not False,
    )


def float_weights(state: Mapping[str, Any], name: str) -> dict[str, np.ndarray]:
    """Tensors of a state dict, float32; what is no tensor (the store of pyro) is left out."""
    found = {key: value for key, value in state.items() if isinstance(value, np.ndarray)}
    for wrapper in WRAPPERS:
        if found and all(key.startswith(wrapper) for key in found):
            found = {key.removeprefix(wrapper): value for key, value in found.items()}
    for key, value in found.items():
        if value.dtype.kind != ("i" if key.endswith(WHOLE) else "f"):
            expected = "whole numbers" if key.endswith(WHOLE) else "floating-point numbers"
            raise CorruptFile(
                f"The tensor {key} of {name} holds {value.dtype} values; {expected} were expected. The file was changed, "
                "or its weights were quantised: take the original model."
            )
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as such
        return {k: v if k.endswith(WHOLE) else v.astype(np.float32, copy=False) for k, v in found.items()}


def _modern_registry(setup: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The registry that scvi-tools would write today for a setup dictionary of before 0.15."""
    where = f"the setup dictionary of {name}"
    fields: dict[str, Any] = {}
    mappings = mapping(setup.get("categorical_mappings"), f"categorical_mappings in {where}")
    for old, raw in mapping(setup.get("data_registry"), f"data_registry in {where}").items():
        place = mapping(raw, f"{old} in {where}")
        key = LEGACY_KEYS.get(old, old)
        attr_key = None if place.get("attr_key") in (None, "None") else place["attr_key"]
        found = {"attr_name": place.get("attr_name"), "attr_key": attr_key}
        fields[key] = {"data_registry": found, "state_registry": {}}
        saved = mappings.get(attr_key) if isinstance(attr_key, str) else None
        if saved is not None:
            levels = mapping(saved, f"categorical_mappings[{attr_key!r}] in {where}")
            fields[key]["state_registry"] = {
                "categorical_mapping": levels.get("mapping"),
                "original_key": levels.get("original_key"),
            }
    extra = mapping(setup.get("extra_categoricals"), f"extra_categoricals in {where}")
    if extra:
        fields.setdefault("extra_categorical_covs", {"data_registry": {}})["state_registry"] = {
            "field_keys": extra.get("keys"),
            "mappings": extra.get("mappings"),
            "n_cats_per_key": extra.get("n_cats_per_key"),
        }
    columns = setup.get("extra_continuous_keys")
    if columns is not None:
        fields.setdefault("extra_continuous_covs", {"data_registry": {}})["state_registry"] = {"columns": columns}
    return {"scvi_version": setup.get("scvi_version"), "field_registries": fields, "setup_method_name": "setup_anndata"}
