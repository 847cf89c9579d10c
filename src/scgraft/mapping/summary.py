"""Numbers on a mapping."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from scgraft.values.graft import Graft
from scgraft.values.labels import Labels
from scgraft.values.query import Alignment


def summary(
    alignment: Alignment, graft: Graft, labels: Mapping[str, Labels], method: str | None = None
) -> dict[str, Any]:
    """Numbers on a mapping, ready for JSON; with the label method that was chosen, if any, and whether it was calibrated."""
    record = graft.record
    chosen: dict[str, Any] = {}
    if method is not None:
        own = [result for key, result in labels.items() if key == result.key]
        calibrated = bool(own) and all(result.pvalues is not None for result in own)
        chosen = {"label_method": {"name": method, "calibrated": calibrated, "sentence": own[0].method if own else ""}}
    return chosen | {
        "cells": alignment.n_cells,
        "genes_found": alignment.n_found,
        "genes_of_reference": alignment.n_genes,
        "found_weight": round(alignment.found_weight, 4),
        "counts_from": alignment.counts_from,
        "trained": record.trained,
        "reason": record.reason,
        "moved": dict(record.moved),
        "labels": {
            key: {
                "unknown_share": round(float(result.unknown.mean()), 4),
                "median_probability": round(float(np.median(result.probability)), 4),
                "median_relative_distance": None
                if np.isnan(result.distance).all()
                else round(float(np.nanmedian(result.distance)), 4),
            }
            for key, result in labels.items()
        },
    }
