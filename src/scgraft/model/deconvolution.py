"""What CondSCVI and RNAStereoscope share: references for the deconvolution of spots, onto which no cell can be mapped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scgraft.values.reference import Schema
from scgraft.values.slot import Slot

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Deconvolution:
    """What is known of such a model: latent dimensions (0 for RNAStereoscope), number of labels, and CondSCVI's layers.

    `by_label` is the layout since scvi-tools 1.4.1: a bias of the genes for each label, and batches as an embedding.
    `n_mixed` are the components of a mixture prior and `n_fine` the fine labels, 0 where there are none.
    """

    n_latent: int
    n_labels: int
    gene_likelihood: str = "nb"
    n_hidden: int = 0
    n_layers: int = 0
    encode_covariates: bool = False
    by_label: bool = False
    n_mixed: int = 0
    n_fine: int = 0


def no_slots(hyper: Deconvolution, schema: Schema, weights: Mapping[str, np.ndarray]) -> tuple[Slot, ...]:
    """No place that a new batch could be given."""
    return ()
