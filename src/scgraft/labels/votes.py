"""Votes for a cell's class: by neighbours in the latent, by genes, and by a model's own classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from scgraft.model.build import build, pick_device
from scgraft.model.families import family_of
from scgraft.values.reference import Latent, Reference

if TYPE_CHECKING:
    from scgraft.model.protocol import Classifier


def classify(reference: Reference, latent: Latent, *, device: str = "auto") -> np.ndarray | None:
    """Class probabilities (n, C) of the reference model's own classifier on the latent mean; None where it has none.

    Where the model has a class for the unlabeled category, it is left out: the probabilities are those of the labels.
    """
    if not family_of(reference.base.family).has_classifier:
        return None
    where = pick_device(device)
    model = cast("Classifier", build(reference, where))
    with torch.inference_mode():
        logits = model.classify(torch.as_tensor(latent.mean).to(where))
        labels = logits[:, : len(reference.schema.labels)]
        return torch.softmax(labels, dim=-1).cpu().numpy()
