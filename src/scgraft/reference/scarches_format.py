"""Bundle -> Reference: a folder of scArches' own classes, of which scPoli is read.

Such a folder has weights (``model_params.pt``), attributes (``attr.pkl``), gene names (``var_names.csv``) and often the cells
with their counts (``adata.h5ad``). It has no version, no registry and no stored latent. Source: the files of scArches 0.5.10 and
0.6.1; the names of before 0.5.8 are from its source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scgraft.errors import CorruptFile, UnsupportedModel
from scgraft.files.budget import Budget
from scgraft.files.h5ad import open_h5ad
from scgraft.files.hashes import sha256
from scgraft.model.families import family_of
from scgraft.model.tensors import check_tensors
from scgraft.reference.beside import load_budget, read_card_text
from scgraft.reference.maps import read_maps
from scgraft.reference.model_file import float_weights, read_names
from scgraft.reference.saved_registry import levels, mapping, names
from scgraft.reference.scarches_attributes import COMBINED, kept_attributes
from scgraft.reference.unpickle import read_pickle, read_torch_file
from scgraft.values.names import BATCH, column_text, covariate_name, level_name, shown
from scgraft.values.reference import BaseId, Bundle, Covariate, Reference, Schema

if TYPE_CHECKING:
    import pandas as pd

# Classes of scArches with the same three files, told by their attributes, and what is known of each.
OTHERS = {
    "trVAE": "its conditions are one-hot columns, and no published reference was found",
    "expiMap": "its latent are gene programmes under a mask, and no published reference was found",
    "SCGEN": "it has no conditions: there is nothing to extend",
}
# Attributes that one or the other of them has, and scvi-tools has not.
OWN = frozenset({"condition_keys_", "condition_key_", "cell_types_", "mask_", "x_dim_"})
# Attributes of scPoli by their names before 0.5.8, when it had one condition.
RENAMED = {"landmarks_labeled_": "prototypes_labeled_", "landmarks_unlabeled_": "prototypes_unlabeled_"}
FLAGS, LISTS = ("use_bn_", "use_ln_"), ("hidden_layer_sizes_", "embedding_dims_", "inject_condition_")


def is_scarches(bundle: Bundle, budget: Budget | None = None) -> bool:
    """Whether a folder was written by scArches' own classes and not by scvi-tools."""
    if not bundle.model.name.endswith("model_params.pt"):
        return False
    attributes = bundle.model.with_name(bundle.model.name.removesuffix("model_params.pt") + "attr.pkl")
    return attributes.is_file() and bool(OWN & read_pickle(attributes, budget).keys())


def read(bundle: Bundle, budget: Budget | None = None) -> Reference:
    """Read a reference from its files within a budget (None: its own); nothing in them is executed.

    Returns
    -------
    Reference
        Without a latent: it is encoded from the counts in ``adata.h5ad``, where that is there.

    Raises
    ------
    UnsafeFile, CorruptFile
        The files hold something that is not on the allow-list, or contradict one another.
    UnsupportedModel
        Another class of scArches, or an option that scgraft does not know.
    """
    budget = budget or load_budget(bundle)
    prefix = bundle.model.name.removesuffix("model_params.pt")
    attr_path, names_path = (bundle.model.with_name(f"{prefix}{name}") for name in ("attr.pkl", "var_names.csv"))
    raw = read_pickle(attr_path, budget)
    attributes = read_attributes(raw, attr_path.name)
    weights = float_weights(read_torch_file(bundle.model, budget), bundle.model.name)
    if "embedding.weight" in weights:  # the only one, before there were several
        weights["embeddings.0.weight"] = weights.pop("embedding.weight")
    schema = read_schema(attributes, np.array(read_names(names_path), dtype=str), attr_path.name)
    family = family_of("scPoli")
    hyper = family.read_hyper(attributes, weights, schema)
    assert family.tensors is not None
    if len(hyper.embedding_dims) != len(attributes["condition_keys_"]):
        raise CorruptFile(
            f"{attr_path.name} has {len(hyper.embedding_dims)} embeddings for {len(attributes['condition_keys_'])} condition "
            "keys; its files contradict one another. Download it again."
        )
    check_tensors(weights, family.tensors(hyper, schema), bundle.model.name)
    obs, var, maps, remarks = _read_cells(bundle.adata, attributes, budget) if bundle.adata else (None, None, {}, ())
    if obs is not None:  # what users add to an atlas's file stays, what they took out cannot be transferred
        schema = replace(schema, label_levels=tuple(key for key in schema.label_levels if key in obs))
    return Reference(
        base=BaseId(bundle.repo, bundle.revision, sha256(bundle.model), "scPoli"),
        schema=schema,
        hyper=hyper,
        weights=weights,
        scvi_version="none: saved by scArches",
        card=read_card_text(bundle.card, budget) if bundle.card else None,
        adata_path=None if bundle.adata is None else bundle.adata.absolute(),
        attributes={
            "prototypes": prototypes(attributes, hyper.n_latent, attr_path.name),
            "saved": kept_attributes(raw, attributes),
        },
        obs=obs,
        var=var,
        maps=maps,
        remarks=remarks,
    )


def read_attributes(raw: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Attributes of a scPoli model under today's names, every one that is used checked.

    Raises
    ------
    UnsupportedModel
        They are those of another class of scArches.
    CorruptFile
        One is not what scArches writes there.
    """
    found = {RENAMED.get(key, key): value for key, value in raw.items()}
    if "cell_types_" not in found:
        others = {"trVAE": "condition_key_", "expiMap": "mask_", "SCGEN": "x_dim_"}
        likely = next((kind for kind in ("expiMap", "SCGEN", "trVAE") if others[kind] in found), None)
        said = (
            f"{likely} ({OTHERS[likely]})"
            if likely
            else f"an unknown class (attributes: {', '.join(sorted(found)[:6])})"
        )
        raise UnsupportedModel(f"{name} was saved by scArches as {said}; of its own classes, scgraft maps onto scPoli.")
    if "condition_keys_" not in found:
        key, conditions = found.get("condition_key_"), found.get("conditions_")
        found |= {"condition_keys_": [key], "conditions_": {key: conditions}, "conditions_combined_": conditions}
        found["embedding_dims_"] = [found.get("embedding_dim_")]
    keys = names(found["condition_keys_"], f"condition_keys_ of {name}")
    conditions = mapping(found.get("conditions_"), f"conditions_ of {name}")
    if missing := [key for key in keys if key not in conditions]:
        raise CorruptFile(
            f"conditions_ of {name} has no levels of {', '.join(missing)}; the file was changed. Download it again."
        )
    found["conditions_"] = {key: _levels(conditions[key], f"conditions_[{key!r}] of {name}") for key in keys}
    found["conditions_combined_"] = _levels(found.get("conditions_combined_"), f"conditions_combined_ of {name}")
    found["cell_type_keys_"] = names(found.get("cell_type_keys_") or [], f"cell_type_keys_ of {name}")
    found["unknown_ct_names_"] = _levels(found.get("unknown_ct_names_") or [], f"unknown_ct_names_ of {name}")
    types = found["cell_types_"] or {}
    if not isinstance(types, dict):
        raise _wrong(f"cell_types_ of {name}", types, "label columns by cell type")
    found["cell_types_"] = {
        level_name(label): names(columns, f"cell_types_[{label!r}] of {name}") for label, columns in types.items()
    }
    for key in LISTS:
        if not isinstance(found.get(key), list):
            raise _wrong(f"{key} of {name}", found.get(key), "a list")
    for key in FLAGS:
        if not isinstance(found.get(key), bool):
            raise _wrong(f"{key} of {name}", found.get(key), "True or False")
    norm = found.get("embedding_max_norm_", 1.0)
    if norm is not None and (isinstance(norm, bool) or not isinstance(norm, (int, float)) or not 0 < norm < np.inf):
        raise _wrong(f"embedding_max_norm_ of {name}", norm, "a positive number")
    return found | {"condition_keys_": keys, "embedding_max_norm_": norm}


def _levels(value: object, where: str) -> tuple[str, ...]:
    return tuple(level_name(item) for item in levels(value, where).tolist())


def _wrong(where: str, value: object, expected: str) -> CorruptFile:
    return CorruptFile(
        f"{where} is {shown(value)}; {expected} was expected. The file was changed, or was not written by scArches: download "
        "it again."
    )


def read_schema(attributes: Mapping[str, Any], genes: np.ndarray, name: str) -> Schema:
    """What the reference asks of a query. The first condition is the batch, and the first label column that of the labels."""
    first, *others = attributes["condition_keys_"]
    conditions, combined = attributes["conditions_"], attributes["conditions_combined_"]
    categorical = [Covariate(key, conditions[key]) for key in others]
    if combined != conditions[first] or others:
        known = (BATCH, *(covariate_name(key) for key in others))
        categorical.append(Covariate(COMBINED, combined, of=known))
    columns, types = tuple(attributes["cell_type_keys_"]), attributes["cell_types_"]
    key = columns[0] if columns else None
    return Schema(
        genes=genes,
        batch_key=first,
        batches=conditions[first],
        labels_key=key,
        labels=tuple(label for label, where in types.items() if key in where),
        unlabeled=next(iter(attributes["unknown_ct_names_"]), None),
        label_levels=columns,
        categorical=tuple(categorical),
    )


def prototypes(
    attributes: Mapping[str, Any], n_latent: int, name: str
) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """Cell types and their points (C, d) in the latent, float32, by label column; none where no prototypes were trained."""
    saved = mapping(attributes.get("prototypes_labeled_"), f"prototypes_labeled_ of {name}").get("mean")
    types = attributes["cell_types_"]
    if saved is None or not types:
        return {}
    if not isinstance(saved, np.ndarray) or saved.shape != (len(types), n_latent) or saved.dtype.kind != "f":
        raise _wrong(f"prototypes_labeled_ of {name}", saved, f"{len(types)} points with {n_latent} numbers each")
    if not np.isfinite(saved).all():
        raise _wrong(f"prototypes_labeled_ of {name}", saved, "finite numbers")
    found = {}
    for key in attributes["cell_type_keys_"]:
        own = [i for i, columns in enumerate(types.values()) if key in columns]
        if own:
            found[key] = (tuple(list(types)[i] for i in own), saved[own].astype(np.float32))
    return found


def _read_cells(
    path: Path, attributes: Mapping[str, Any], budget: Budget
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, np.ndarray], tuple[str, ...]]:
    """Annotation of the cells and genes, and two-dimensional maps; all names of an unknown cell type become the first."""
    from anndata.io import read_elem

    with open_h5ad(path, ("obs", "var", "uns"), budget=budget, unread=("uns",)) as file:
        obs, var = read_elem(file["obs"]), read_elem(file["var"])
        maps, remarks = read_maps(file["obsm"] if "obsm" in file else {}, len(obs), budget)
    unknown = attributes["unknown_ct_names_"]
    for key in attributes["cell_type_keys_"]:
        if len(unknown) > 1 and key in obs:
            text = column_text(obs[key])
            obs[key] = np.where(np.isin(text, unknown), unknown[0], text)
    return obs, var, maps, remarks
