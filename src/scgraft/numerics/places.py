"""Places on a two-dimensional map: among neighbours that have theirs, and beside it in a tray."""

from __future__ import annotations

import numpy as np

COMPUTED = 10_000  # cells of a map that has to be computed: a UMAP takes minutes where there are more
MAP = "umap.npy"  # the file that it is kept in
K = 15  # neighbours, as UMAP and scanpy look up
TRAY_WIDTH = 0.18  # of the map's width; chosen by eye
TRAY_GAP = 0.06  # of the map's width; chosen by eye


def among(near: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """Positions (m, 2) among the map points (m, k, 2) of neighbours at some distances (m, k).

    The weighted mean of the third of them that lie closest together on the map: between two islands nothing is placed.
    """
    between = np.linalg.norm(near[:, :, None] - near[:, None], axis=3)
    weight = 1 / (distances + np.median(distances, axis=1, keepdims=True) + 1e-9)
    centre = (between * weight[:, None]).sum(axis=2).argmin(axis=1)
    apart = between[np.arange(len(near)), centre]
    third = np.partition(apart, max(near.shape[1] // 3 - 1, 0), axis=1)[:, [max(near.shape[1] // 3 - 1, 0)]]
    kept = apart <= third
    weight = np.where(kept, weight, 0.0)
    return (near * weight[:, :, None]).sum(axis=1) / weight.sum(axis=1, keepdims=True)


def in_tray(points: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Positions in the tray: a strip right of the map, one row for each group, cells in reading order."""
    low, high = points.min(axis=0), points.max(axis=0)
    width, height = np.maximum(high - low, 1e-6)
    left = high[0] + TRAY_GAP * width
    out = np.empty((len(group), 2), np.float32)
    names = np.unique(group)
    for row, name in enumerate(names):
        own = np.flatnonzero(group == name)
        step = height / len(names)
        columns = max(int(np.ceil(np.sqrt(len(own) * TRAY_WIDTH * width / (0.7 * step + 1e-9)))), 1)
        lines = -(-len(own) // columns)
        x, y = np.arange(len(own)) % columns, np.arange(len(own)) // columns
        out[own, 0] = left + TRAY_WIDTH * width * (x + 0.5) / columns
        out[own, 1] = high[1] - step * (row + 0.15 + 0.7 * (y + 0.5) / lines)
    return out
