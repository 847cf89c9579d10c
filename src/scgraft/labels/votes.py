"""Votes for a cell's class: by neighbours in the latent, by genes, and by a model's own classifier."""

from __future__ import annotations

import numpy as np
import torch

from scgraft.model.build import build, pick_device
from scgraft.values.reference import Latent, Reference


def classify(reference: Reference, latent: Latent, *, device: str = "auto") -> np.ndarray | None:
    """Class probabilities (n, C) of a SCANVI reference's own classifier on the latent mean; None for other classes."""
    if reference.base.family != "SCANVI":
        return None
    where = pick_device(device)
    model = build(reference, where)
    with torch.inference_mode():
        logits = model.classify(torch.as_tensor(latent.mean).to(where))  # type: ignore[union-attr]
        return torch.softmax(logits, dim=-1).cpu().numpy()
