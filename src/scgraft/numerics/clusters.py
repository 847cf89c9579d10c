"""k-means: scipy's, with what it warns of made a rule."""

from __future__ import annotations

import numpy as np


def k_means(points: np.ndarray, centres: np.ndarray, rounds: int) -> tuple[np.ndarray, np.ndarray]:
    """Lloyd's algorithm from given centres.

    Parameters
    ----------
    points, centres
        (n, d) and (k, d); computed in double precision.
    rounds
        How often points are assigned and centres moved.

    Returns
    -------
    centres, cluster
        (k, d) float64, and the nearest centre of each point (n,) before the last move. A centre that loses all its points
        stays where it is.
    """
    import warnings

    from scipy.cluster.vq import kmeans2

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        moved, cluster = kmeans2(points.astype(np.float64), centres.astype(np.float64), iter=rounds, minit="matrix")
    return np.asarray(moved), np.asarray(cluster)
