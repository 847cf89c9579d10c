"""Proteins in the registry of a model: their names, where they are, and which of them each batch or panel measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from scgraft.errors import CorruptFile
from scgraft.reference.saved_registry import mapping, texts, whole
from scgraft.values.blocks import PROTEINS, Block
from scgraft.values.names import covariate_name, level_name, shown
from scgraft.values.reference import Covariate


def gene_names(registry: Mapping[str, Any], name: str) -> np.ndarray:
    """Names of the genes (G,) of a model set up on MuData, whose file may list all modalities in one."""
    return feature_names(registry, "X", name)


def feature_names(registry: Mapping[str, Any], field: str, name: str) -> np.ndarray:
    """Names of the columns of a field, (m,)."""
    _, state = _field(registry, field)
    return np.array(
        texts(state.get("column_names"), f"column_names of field {field!r} in the registry of {name}"), dtype=str
    )


def features_of(registry: Mapping[str, Any], saved: np.ndarray, n_regions: object, name: str) -> tuple[np.ndarray, int]:
    """Genes followed by regions, (G + R,), of a model of both, and how many are regions.

    A model that was set up on AnnData has them in one matrix (`saved` are its names), and its options say how many are regions.
    """
    if registry.get("setup_method_name") == "setup_mudata":
        there = registry["field_registries"]
        parts = [feature_names(registry, field, name) for field in ("X", "atac") if field in there]
        regions = len(parts[-1]) if "atac" in there else 0
        return (np.concatenate(parts) if parts else np.zeros(0, dtype=str)), regions
    regions = whole(n_regions, f"n_regions in init_params_ of {name}")
    if regions > len(saved):
        raise CorruptFile(
            f"The options of {name} speak of {regions} regions, and it names {len(saved)} features: its files contradict one another."
        )
    return saved, regions


def protein_block(registry: Mapping[str, Any], name: str) -> tuple[Block, Covariate | None]:
    """The proteins of the registry, which has them, and the covariate that says which panel a cell was stained with, where there are panels."""
    place, state = _field(registry, PROTEINS)
    saved = state.get("column_names")
    if isinstance(saved, (list, np.ndarray)):  # an array without names is numbered
        saved = [level_name(item) for item in saved]
    names = tuple(texts(saved, f"column_names of field 'proteins' in the registry of {name}"))
    where = place.get("mod_key") or place.get("attr_key")
    _, panel = _field(registry, "panel")
    if panel.get("categorical_mapping") is None or panel.get("original_key") is None:
        return Block(PROTEINS, names, where), None
    key = panel["original_key"]
    levels = tuple(level_name(value) for value in panel["categorical_mapping"])
    return Block(PROTEINS, names, where, covariate_name(key)), Covariate(key, levels)


def protein_mask(
    registry: Mapping[str, Any], n_levels: int, n_proteins: int, *, minified: bool, name: str
) -> np.ndarray:
    """Which proteins the batches (or panels) measured, (B, P) bool.

    All of them where the registry does not say, and for a minified model: scvi-tools makes its mask from counts that are gone.
    """
    mask = np.ones((n_levels, n_proteins), bool)
    _, state = _field(registry, PROTEINS)
    where = f"protein_batch_mask in the registry of {name}"
    for code, raw in mapping(None if minified else state.get("protein_batch_mask"), where).items():
        own = raw.ravel() if isinstance(raw, np.ndarray) else np.zeros(0)  # a sparse layer gives a matrix of one row
        if not code.isdigit() or int(code) >= n_levels or own.shape != (n_proteins,) or own.dtype != bool:
            raise CorruptFile(
                f"{where[0].upper()}{where[1:]} has {shown(raw)} for {code!r}; {n_proteins} times True or False were expected for "
                f"each of {n_levels} batches. The file was changed: download it again."
            )
        mask[int(code)] = own
    return mask


def _field(registry: Mapping[str, Any], name: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    entry = registry["field_registries"].get(name) or {}
    return entry.get("data_registry") or {}, entry.get("state_registry") or {}
