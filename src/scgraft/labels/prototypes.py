"""The votes of a model's own prototypes: one point in the latent for each cell type, as scPoli trains them.

A cell's vote is the softmax of its negative distances to the prototypes of a label column, as scPoli's ``classify`` has it, but at
the posterior mean: scPoli draws from the posterior, so that up to a tenth of its calls change with the seed. Source: De Donno et
al., Nature Methods 2023 (doi:10.1038/s41592-023-02035-2).
"""

from __future__ import annotations

import numpy as np

from scgraft.values.reference import Latent, Reference


def prototype_votes(reference: Reference, latent: Latent) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """Cell types and shares of the vote (n, C), float32, by label column; none where the model has no prototypes."""
    found = {}
    for key, (classes, points) in reference.attributes.get("prototypes", {}).items():
        squared = ((latent.mean[:, None, :].astype(np.float64) - points[None].astype(np.float64)) ** 2).sum(axis=2)
        distance = np.sqrt(squared)
        share = np.exp(distance.min(axis=1, keepdims=True) - distance)
        found[key] = classes, (share / share.sum(axis=1, keepdims=True)).astype(np.float32)
    return found
