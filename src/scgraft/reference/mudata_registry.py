"""The registry of a MULTIVI model as scvi-tools 1.4 writes it: a set-up on MuData, whatever the reference was set up on.

scvi-tools before 1.4 set these models up on AnnData too, with genes and regions in one matrix. Since 1.4 it reads the form on MuData
alone. The weights are the same in both, so a reference in the old form is written in the new one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scgraft.values.blocks import PROTEINS
from scgraft.values.reference import Reference

# Field of the registry, argument of the set-up, and the modality's name where the reference has none.
KINDS = {
    "genes": ("X", "rna_layer", "rna"),
    "regions": ("atac", "atac_layer", "atac"),
    PROTEINS: (PROTEINS, "protein_layer", "prot"),
}


@dataclass(frozen=True)
class Modality:
    """One kind of features: its field in the registry, the argument of the set-up, its place in the MuData, and their names."""

    field: str
    argument: str
    name: str
    layer: str | None
    features: np.ndarray


def modalities(reference: Reference) -> list[Modality]:
    """Modalities of the model, in the order that scvi-tools wants: names and layers as the reference was set up, else its own."""
    schema = reference.schema
    features = {kind: np.array([str(n) for n in schema.genes[at]], object) for kind, at in schema.kinds.items()}
    features |= {block.name: np.array(block.features, object) for block in schema.blocks}
    on_mudata = reference.registry.get("setup_method_name") == "setup_mudata"
    found = []
    for kind, (field, argument, name) in KINDS.items():
        if not len(features.get(kind, ())):
            continue
        entry = (reference.registry.get("field_registries") or {}).get(field) or {}
        place = entry.get("data_registry") or {}
        layer = schema.layer if kind != PROTEINS else None
        if on_mudata:
            layer = place.get("attr_key") if place.get("attr_name") == "layers" else None
        found.append(Modality(field, argument, place.get("mod_key") or name, layer, features[kind]))
    return found


def var_names(reference: Reference) -> dict[str, np.ndarray]:
    """Names of the features by modality, as ``model.pt`` holds them."""
    return {m.name: m.features for m in modalities(reference)}


def on_mudata(
    reference: Reference, setup: Mapping[str, Any], fields: Mapping[str, Any], n_cells: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of ``MULTIVI.setup_mudata`` and its fields, from those of a set-up on AnnData; obs is that of the MuData itself."""
    own = modalities(reference)
    layers = {argument: None for _, argument, _ in KINDS.values()} | {m.argument: m.layer for m in own}
    kept = ("batch_key", "size_factor_key", "categorical_covariate_keys", "continuous_covariate_keys")
    arguments = {
        **layers, **{key: setup[key] for key in kept}, "idx_layer": None,
        "modalities": {m.argument: m.name for m in own},
    }  # fmt: skip
    placed = {key: field for key, field in fields.items() if key not in ("X", PROTEINS)}
    placed["ind_x"] = _field({"attr_name": "obs", "attr_key": "_indices"}, {}, {})
    for m in own:
        place = {"attr_name": "layers" if m.layer else "X", "attr_key": m.layer, "mod_key": m.name}
        state = {"n_obs": n_cells, "n_vars": len(m.features), "column_names": m.features}
        count = {"X": "n_vars", PROTEINS: "n_proteins"}.get(m.field, f"n_{m.field}")
        counts = {count: len(m.features)} | ({"n_cells": n_cells} if m.field == "X" else {})
        placed[m.field] = _field(place, state, counts)
    return arguments, placed


def _field(place: Mapping[str, Any], state: Mapping[str, Any], counts: Mapping[str, int]) -> dict[str, Any]:
    return {"data_registry": dict(place), "state_registry": dict(state), "summary_stats": dict(counts)}
