"""Two-dimensional maps of the reference's cells, as its repository publishes them: read where they can be drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from scgraft.errors import CorruptFile
from scgraft.files.budget import Budget
from scgraft.files.structure import check_element
from scgraft.files.text import visible

POSTERIOR = ("latent_qzm", "latent_qzv")
# Positions of force-directed layouts and of images reach 1e5; squares of more than 1e19 overflow float32.
MAX_COORDINATE = 1e9


def read_maps(
    obsm: Mapping[str, Any], n_cells: int, budget: Budget | None = None
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Maps (n, 2) float32 by name, and a sentence for each that was left out because it cannot be drawn."""
    maps: dict[str, np.ndarray] = {}
    remarks: list[str] = []
    for key in obsm:
        if key.endswith(POSTERIOR) or getattr(obsm[key], "shape", (0, 0))[1:] != (2,):
            continue
        place = f"obsm[{visible(repr(key))}]"
        try:
            check_element(obsm[key], place)
            if obsm[key].shape[0] != n_cells:
                raise CorruptFile(f"{place} has {obsm[key].shape[0]} positions for {n_cells} cells")
        except CorruptFile as error:
            remarks.append(f"The map {place} was left out: {error}")
            continue
        if budget is not None:  # what is not there for a map is not there for the reference
            budget.spend(2 * n_cells * max(8, obsm[key].dtype.itemsize), place)
        try:
            points = np.asarray(obsm[key], dtype=np.float64)
        except (OSError, TypeError, ValueError) as error:
            remarks.append(f"The map {place} was left out: {error}")
            continue
        wrong = ~(np.abs(points) <= MAX_COORDINATE).all(axis=1)
        if wrong.any():
            remarks.append(
                f"The map {place} was left out: {int(wrong.sum())} of {n_cells} cells have no finite position."
            )
            continue
        maps[key] = points.astype(np.float32)
    return maps, tuple(remarks)
