"""What CondSCVI and RNAStereoscope share: references for the deconvolution of spots, onto which no cell can be mapped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scgraft.errors import CorruptFile
from scgraft.values.reference import Schema
from scgraft.values.slot import Slot

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Deconvolution:
    """What is known of such a model: latent dimensions (0 for RNAStereoscope) and number of labels."""

    n_latent: int
    n_labels: int
    gene_likelihood: str = "nb"


def sizes(weights: Mapping[str, np.ndarray], schema: Schema, n_latent: int) -> Deconvolution:
    """Sizes of a model, from its weights.

    Raises
    ------
    CorruptFile
        The registry lists another number of labels.
    """
    n_labels = len(weights["ct_weight"])
    if n_labels != len(schema.labels):
        raise CorruptFile(
            f"The model has {n_labels} labels, but the registry lists {len(schema.labels)}: "
            f"{', '.join(schema.labels[:8])}. The files of this model contradict one another."
        )
    return Deconvolution(n_latent, n_labels)


def no_slots(hyper: Deconvolution, schema: Schema, weights: Mapping[str, np.ndarray]) -> tuple[Slot, ...]:
    """No place that a new batch could be given."""
    return ()
