"""Cells or spots that have a place in a tissue: how a file says so, and what that means for labels."""

from __future__ import annotations

from collections.abc import Iterable

from scgraft.values.query import SPATIAL

# Where squidpy, scanpy and SpatialData keep places and pictures: in obsm and in uns.
PLACES, ABOUT = ("spatial", "X_spatial"), ("spatial", "spatialdata_attrs")
# Columns of Space Ranger's tissue_positions.csv, which tell spots apart from cells.
SPOTS = ("in_tissue", "array_row", "array_col")


def spatial_messages(obsm: Iterable[str], uns: Iterable[str], obs: Iterable[str]) -> list[str]:
    """What to know of cells that have a place in a tissue, from the names in a file's obsm, uns and obs."""
    obsm, uns, obs = (set(map(str, names)) for names in (obsm, uns, obs))
    if not obsm.intersection(PLACES) and not uns.intersection(ABOUT) and not obs.intersection(SPOTS):
        return []
    return [
        f"{SPATIAL} If its spots hold several cells, one label says too little of a spot: spots that several types explain "
        "better than one are called mixed, and their label unknown."
    ]
