"""Attributes of a scPoli model as scArches 0.6 writes them, for a reference that a graft extends: plain values and arrays.

Levels keep their order: the reference's first, then the graft's, which is the order of the widened rows and columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from scgraft.values.graft import Graft
from scgraft.values.names import BATCH, covariate_name, level_name
from scgraft.values.reference import Reference

COMBINED = "conditions_combined"  # what scArches calls the column that joins all conditions
# How a model is trained, which scArches asks for when it loads one; its own defaults.
TRAINING: dict[str, Any] = {
    "beta_": 1, "dr_rate_": 0.05, "mmd_boundary_": None, "mmd_on_": "z", "use_mmd_": False, "share_metadata_": True,
    "prototype_training_": True, "unlabeled_prototype_training_": True, "is_trained_": True,
}  # fmt: skip
# What is written as it was read.
KEPT = (
    "cell_type_keys_", "embedding_dims_", "embedding_max_norm_", "hidden_layer_sizes_", "latent_dim_", "recon_loss_", "use_bn_", "use_ln_",
)  # fmt: skip
PROTOTYPES = ("prototypes_labeled_", "prototypes_unlabeled_")


def kept_attributes(raw: Mapping[str, Any], checked: Mapping[str, Any]) -> dict[str, Any]:
    """What an export needs of a file's attributes (`raw`, and `checked` under today's names): names, sizes, points.

    Levels stay as the file has them, so that whole numbers stay such.
    """
    plain = (bool, int, float, str, type(None))
    training = {key: raw[key] if type(raw.get(key, ())) in plain else value for key, value in TRAINING.items()}
    found = training | {key: checked[key] for key in KEPT}
    found["inject_condition_"] = [part for part in ("encoder", "decoder") if part in checked["inject_condition_"]]
    saved: Any = raw.get("conditions_")
    conditions = saved if isinstance(saved, dict) else {raw.get("condition_key_"): saved}
    found["conditions_"] = {key: list(conditions[key]) for key in checked["condition_keys_"]}
    found["conditions_combined_"] = list(raw.get("conditions_combined_", saved) or ())
    found["unknown_ct_names_"] = list(checked["unknown_ct_names_"]) or None
    found["cell_types_"] = checked["cell_types_"]
    found |= {key: checked.get(key) for key in PROTOTYPES}
    labeled = _points(found, PROTOTYPES[0])
    found["lacks_spread"] = "mean" in labeled and "cov" not in labeled  # scArches does not load such a file
    return found


def extended_attributes(reference: Reference, graft: Graft | None) -> dict[str, Any]:
    """``attr.pkl`` of the extended model. Prototypes are arrays, None where there are none.

    No cell is marked as labelled: the cells that a model is loaded with are not those that it was trained on.
    """
    saved, new = reference.attributes["saved"], {} if graft is None else graft.levels
    found = {key: saved[key] for key in (*TRAINING, *KEPT, "inject_condition_", "unknown_ct_names_", "cell_types_")}
    found["condition_keys_"] = list(saved["conditions_"])
    found["conditions_"] = {
        key: _extended(values, new.get(BATCH if i == 0 else covariate_name(key), ()))
        for i, (key, values) in enumerate(saved["conditions_"].items())
    }
    combined = [covariate_name(c.key) for c in reference.schema.categorical if c.key == COMBINED and c.of]
    more = new.get(combined[0] if combined else BATCH, ())
    found["conditions_combined_"] = _extended(saved["conditions_combined_"], more)
    found |= {"input_dim_": len(reference.schema.genes), "labeled_indices_": []}
    labeled, unlabeled = (_points(saved, key) for key in PROTOTYPES)
    found[PROTOTYPES[0]] = {"mean": labeled.get("mean"), "cov": labeled.get("cov")}
    found[PROTOTYPES[1]] = {"mean": unlabeled.get("mean")}
    return found


def _points(saved: Mapping[str, Any], key: str) -> dict[str, np.ndarray]:
    points = saved[key] if isinstance(saved[key], dict) else {}
    return {name: value for name, value in points.items() if isinstance(value, np.ndarray) and value.dtype.kind == "f"}


def _extended(values: list[Any], new: tuple[str, ...]) -> list[Any]:
    """Levels and new ones after them: whole numbers while all are, else text."""
    whole = all(type(v) is int for v in values) and all(n.lstrip("-").isdigit() and str(int(n)) == n for n in new)
    return [*values, *map(int, new)] if whole else [*map(level_name, values), *new]
