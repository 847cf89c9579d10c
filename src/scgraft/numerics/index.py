"""Points that nearest neighbours are looked up among, with how far apart they lie themselves.

Neighbours are exact up to 150,000 points. Above that an inverted file (faiss' IVF, from the extra ``scgraft[faiss]``) looks only
at the points near a query, and exact answers for some of the points say how much it misses; without faiss they stay exact, at
a cost that grows with the points.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from scgraft.numerics.index_store import folder_of, keep_lists, keep_spacing, kept_lists, kept_spacing
from scgraft.numerics.neighbors import Neighbours, exact_distances, nearest
from scgraft.numerics.sealed import seal_fields
from scgraft.numerics.votes import SPACING_CELLS, SPACING_K, estimated_spacing
from scgraft.progress import step

K = 30  # neighbours that vote (labels/transfer.py says why)
# Measured on one core, 10 dimensions, CPU seconds for 20,000 queries: exact 6 and IVF 2 with its building at 100,000 points,
# 36 and 10 at 600,000. Below 150,000 the difference is not worth an answer that is not exact.
EXACT = 150_000
LISTS = 4  # times the square root of the number of points: faiss' own rule of thumb
LEAST_RECALL = 0.995  # one neighbour of the 30 that vote is missed in every seventh cell
PROVED = 500  # points whose exact neighbours are compared
TRAINED = 64  # points for each list that its centre is learnt from: faiss warns below 39
SPARE = 8  # candidates beyond k: faiss rounds its distances, the exact ones decide


@dataclass(frozen=True)
class Near:
    """Nearest points of each query, and how far that is.

    Parameters
    ----------
    found
        Indices and distances, (m, k).
    distance
        Distance to the points relative to their own spacing there, (m,) float32: about 1 among them.
    """

    found: Neighbours
    distance: np.ndarray

    def __post_init__(self) -> None:
        seal_fields(self)

    def __getitem__(self, rows: np.ndarray | slice) -> Near:
        return Near(Neighbours(self.found.indices[rows], self.found.distances[rows]), self.distance[rows])


@dataclass(frozen=True)
class Lists:
    """An inverted file over points, and the share of exact neighbours that it found for some of them."""

    index: Any
    recall: float


@dataclass(frozen=True)
class Index:
    """Points (n, d) float32 to look neighbours up among; what is made for it is made once and kept with it."""

    points: np.ndarray

    def __post_init__(self) -> None:
        seal_fields(self)

    def near(self, queries: np.ndarray, *, k: int = K) -> Near:
        """The k nearest points of queries (m, d), and the relative distance to them."""
        found = self.nearest(queries, k=k)
        own = found.indices[:, :SPACING_K]
        local = self.spacing[own].mean(axis=1)
        distance = found.distances[:, :SPACING_K].mean(axis=1) / np.maximum(local, 1e-12)
        return Near(found, distance.astype(np.float32))

    def nearest(self, queries: np.ndarray, *, k: int) -> Neighbours:
        """The k nearest points of queries (m, d): exact, or from the inverted file with exact distances."""
        if self.lists is None:
            return nearest(self.points, queries, k=k)
        return _search(self.lists.index, self.points, queries, k)

    @property
    def method(self) -> str:
        """How neighbours are found, in words."""
        if self.lists is None:
            return "exact"
        return f"inverted file (faiss), {self.lists.recall:.2%} of the exact neighbours on {PROVED} of the points"

    @cached_property
    def lists(self) -> Lists | None:
        """The inverted file; None up to 150,000 points, and where faiss is not installed."""
        if len(self.points) <= EXACT:
            return None
        folder = folder_of(self.points)
        if (kept := kept_lists(folder)) is not None:
            return Lists(*kept)
        with step("indexing the reference's cells"):
            made = make_lists(self.points)
        if made is not None:
            keep_lists(folder, made.index, made.recall)
        return made

    @cached_property
    def spacing(self) -> np.ndarray:
        """Mean distance (n,) float32 of each point to its 15 nearest others.

        Above 20,000 points it is measured for as many of them (seeded). For any other it is its mean distance to the 15 nearest
        of these, which are farther apart, times what that overstates the spacing of the measured ones on average.
        """
        n = len(self.points)
        if n == 1:
            return np.ones(1, np.float32)
        if n <= SPACING_CELLS:
            return self._spacing_of(self.points)
        folder = folder_of(self.points)
        kept = kept_spacing(folder, n)
        if kept is None:
            kept = self._estimated_spacing()
            keep_spacing(folder, kept)
        return kept

    def _estimated_spacing(self) -> np.ndarray:
        n = len(self.points)
        chosen = np.sort(np.random.default_rng(0).choice(n, SPACING_CELLS, replace=False))
        measured = self._spacing_of(self.points[chosen])
        estimated: np.ndarray = estimated_spacing(self.points, chosen, measured).astype(np.float32)
        return estimated

    def _spacing_of(self, points: np.ndarray) -> np.ndarray:
        found = self.nearest(points, k=SPACING_K + 1)
        # The point itself is among them, at distance 0.
        spacing: np.ndarray = found.distances.sum(axis=1) / max(found.distances.shape[1] - 1, 1)
        return spacing


def make_lists(points: np.ndarray) -> Lists | None:
    """An inverted file over points (n, d) that finds 99.5 % of the exact neighbours of 500 of them; None without faiss.

    The number of lists that are looked through is doubled until it does. The k-means of faiss is seeded.
    """
    try:
        import faiss
    except ImportError:
        return None
    n, d = points.shape
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(d), d, int(LISTS * np.sqrt(n)))
    index.cp.max_points_per_centroid = TRAINED
    exact_type = np.ascontiguousarray(points, np.float32)
    index.train(exact_type)
    index.add(exact_type)
    sample = points[np.random.default_rng(0).choice(n, min(PROVED, n), replace=False)]
    true, recall = nearest(points, sample, k=K).indices, 0.0
    index.nprobe = 16
    while recall < LEAST_RECALL and index.nprobe < index.nlist:
        index.nprobe *= 2
        found = _search(index, points, sample, K).indices
        recall = float(np.mean([np.isin(a, b).mean() for a, b in zip(true, found, strict=True)]))
    return Lists(index, recall)


def _search(index: Any, points: np.ndarray, queries: np.ndarray, k: int) -> Neighbours:
    wanted = min(k + SPARE, len(points))
    _, candidates = index.search(np.ascontiguousarray(queries, np.float32), wanted)
    short = (candidates < 0).any(axis=1)  # the lists near these held fewer points
    if short.any():
        candidates[short] = nearest(points, queries[short], k=wanted).indices
    return exact_distances(points, queries, candidates, k)
