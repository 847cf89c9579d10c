"""The kinds of features of a MULTIVI model, and how much each weighs in the latent of a cell."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from scgraft.errors import CorruptFile
from scgraft.model.options import Hyper
from scgraft.values.blocks import PROTEINS
from scgraft.values.reference import Reference, Schema

KINDS = ("expression", "accessibility", "protein")
WEIGHTS = "mod_weights"


def n_proteins(schema: Schema) -> int:
    """Proteins of a model, none where it was set up without."""
    return sum(len(block.features) for block in schema.blocks if block.name == PROTEINS)


def mean_weights(weights: Mapping[str, np.ndarray]) -> np.ndarray:
    """Log-weights (3,) of the kinds for a cell that has none of its own: as the model has them, or the mean of its cells' weights."""
    own = weights[WEIGHTS].astype(np.float64)
    if own.ndim == 1:
        return own
    share = np.exp(own - own.max(axis=1, keepdims=True))
    mean: np.ndarray = np.log((share / share.sum(axis=1, keepdims=True)).mean(axis=0))
    return mean


def cell_weights_message(reference: Reference) -> str:
    """What is used for cells of a query where the model has weights of its own cells, in a sentence; "" where it has none."""
    if getattr(reference.hyper, "weighted_cells", 0) == 0:
        return ""
    has = np.array(
        [
            len(reference.schema.genes) > reference.schema.n_regions,
            reference.schema.n_regions > 0,
            n_proteins(reference.schema) > 0,
        ]
    )
    share = np.exp(mean_weights(reference.weights)) * has
    said = ", ".join(
        f"{name} {w:.2f}"
        for name, w, there in zip(("genes", "regions", "proteins"), share / share.sum(), has, strict=True)
        if there
    )
    return (
        "The model has weights of genes, regions and proteins for each cell that it was trained on. A query's cells have none: they "
        f"get the mean weights ({said}) of the kinds that they have."
    )


def check_cells(hyper: Hyper, n_cells: int) -> None:
    """Refuse cells that cannot be those that the weights belong to.

    Raises
    ------
    CorruptFile
        There are more or fewer of them.
    """
    if hyper.weighted_cells not in (0, n_cells):
        raise CorruptFile(
            f"The model has weights for {hyper.weighted_cells} cells, and its repository holds {n_cells}: they do not belong together."
        )
