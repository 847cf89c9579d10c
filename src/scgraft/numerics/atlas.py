"""What the fit knows of a reference's cells: some of them, in clusters, and the mixture of normals that these are.

As many clusters for millions of cells as for thousands, so no step of a fit costs more for a large atlas.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scgraft.numerics.clusters import k_means
from scgraft.numerics.sealed import seal_fields

COMPONENTS = 100  # 30 to 100 were as good as all posteriors on two references of 750 PBMC; more were not measured
CELLS_PER_COMPONENT = 15  # on the mean, so that a variance can be told; chosen by eye, not measured
ROUNDS = 20  # of k-means at most; chosen by eye, not measured
CLUSTERED_CELLS = 5000  # 50 for each component; chosen for the time of loading, not measured otherwise


@dataclass(frozen=True)
class Mixture:
    """Mixture of diagonal normals: `weight` (k,), `mean` and `variance` (k, d), float32."""

    weight: np.ndarray
    mean: np.ndarray
    variance: np.ndarray

    def __post_init__(self) -> None:
        seal_fields(self)


@dataclass(frozen=True)
class Atlas:
    """What the fit knows of the reference's cells: some of them (m,) by index, their posterior means (m, d), and a mixture.

    `cluster` (m,) are the components of the mixture that the cells belong to.
    """

    index: np.ndarray
    points: np.ndarray
    cluster: np.ndarray
    mixture: Mixture

    def __post_init__(self) -> None:
        seal_fields(self)


def atlas_of(mean: np.ndarray, variance: np.ndarray, *, components: int = COMPONENTS, seed: int = 0) -> Atlas:
    """The aggregate posterior of cells with means and variances (n, d), clustered: at most 5,000 cells in at most 100 clusters.

    k-means (seeded), with 15 cells or more for each cluster on average. Each component's variance is the variance of its
    means plus the mean of their stored variances, so that the first two moments are those of the cells.
    """
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(mean))[:CLUSTERED_CELLS]
    points, spreads = mean[chosen].astype(np.float64), variance[chosen].astype(np.float64)
    k = min(components, max(1, len(chosen) // CELLS_PER_COMPONENT))
    _, label = k_means(points, points[rng.choice(len(points), k, replace=False)], ROUNDS)
    label = np.unique(label, return_inverse=True)[1]
    size = np.bincount(label).astype(np.float64)

    def average(values: np.ndarray) -> np.ndarray:
        total = np.zeros((len(size), values.shape[1]))
        np.add.at(total, label, values)
        return total / size[:, None]

    centre = average(points)
    spread = np.maximum(average(points**2) - centre**2, 0) + average(spreads)
    weight, centre, spread = (a.astype(np.float32) for a in (size / size.sum(), centre, spread))
    return Atlas(chosen, mean[chosen], label, Mixture(weight, centre, spread))
