"""Votes for a cell's class: by neighbours in the latent, by genes, both together, and by a model's own classifier."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from scgraft.labels.adaptation import adapted, best_explained
from scgraft.labels.classifier import predict
from scgraft.model.build import build, pick_device
from scgraft.model.families import family_of
from scgraft.numerics.order import order_by_content
from scgraft.numerics.tensors import as_tensor
from scgraft.values.calibration import GeneClassifier
from scgraft.values.query import Query
from scgraft.values.reference import Latent, Reference

if TYPE_CHECKING:
    from scgraft.model.protocol import Classifier

FLOOR = 0.1  # added to every share of the latent's vote: neighbours alone exclude no class; .02 was the same
JUDGED = 2000  # cells that tell whether learning helped: the share that agrees is known to a percent


@dataclass(frozen=True)
class Votes:
    """Shares of the vote of every class, (n, C) float32: of the neighbours in the latent, and of the genes; and who cast these."""

    latent: np.ndarray
    genes: np.ndarray
    classifier: GeneClassifier

    @cached_property
    def both(self) -> np.ndarray:
        """The product of both votes, normalised, (n, C)."""
        return blend(self.latent, self.genes)


def cast_votes(
    classifier: GeneClassifier,
    query: Query,
    latent_vote: np.ndarray,
    novelty: np.ndarray,
    novel: np.ndarray | None = None,
) -> Votes:
    """Votes on the cells of a query, or of a held-out batch as one: the classifier learns from the sure ones, and votes.

    What it learnt is dropped where it then agrees less with the neighbours than before, on the cells that it could learn from.

    Parameters
    ----------
    classifier
        Trained on the cells of the reference.
    query
        With raw counts (n, G).
    latent_vote
        Of the neighbours in the latent, (n, C).
    novelty
        Scores, (n,): what the reference explains badly teaches nothing.
    novel
        Cells that are no cells of the reference, (n,) bool: they teach nothing either, however many they are.
    """
    return votes_of(learnt(classifier, query, latent_vote, novelty, novel), query, latent_vote)


def votes_of(classifier: GeneClassifier, query: Query, latent_vote: np.ndarray) -> Votes:
    """Votes on the cells of a query by a classifier as it is: the one that :func:`learnt` returns."""
    return Votes(latent_vote, predict(classifier, query.counts), classifier)


def learnt(
    classifier: GeneClassifier,
    query: Query,
    latent_vote: np.ndarray,
    novelty: np.ndarray,
    novel: np.ndarray | None = None,
) -> GeneClassifier:
    """The classifier as it votes on a query, after it has learnt from the sure ones of these cells of it.

    It is as it was where it would then agree less with the neighbours, on the cells that it could learn from.
    """
    explained = best_explained(novelty, query.codes[:, 0])
    if novel is not None:
        explained &= ~novel
    after = adapted(classifier, query.counts, latent_vote, explained)
    some = np.flatnonzero(explained)
    some = some[order_by_content(query.counts[some], 0)[:JUDGED]]
    if after is classifier or not len(some):
        return after
    label, counts = latent_vote[some].argmax(axis=1), query.counts[some]
    agreed, agrees = ((predict(made, counts).argmax(axis=1) == label).sum() for made in (classifier, after))
    return classifier if agrees < agreed else after


def blend(latent_vote: np.ndarray, gene_vote: np.ndarray) -> np.ndarray:
    """The product of both votes, normalised, (n, C): the vote that is surer decides (docs/trust-evidence.md)."""
    product = (latent_vote + FLOOR) * gene_vote
    return (product / product.sum(axis=1, keepdims=True)).astype(np.float32)


def classify(reference: Reference, latent: Latent, *, device: str = "auto") -> np.ndarray | None:
    """Class probabilities (n, C) of the reference model's own classifier on the latent mean; None where it has none.

    Where the model has a class for the unlabeled category, it is left out: the probabilities are those of the labels.
    """
    if not family_of(reference.base.family).has_classifier:
        return None
    where = pick_device(device)
    model = cast("Classifier", build(reference, where))
    with torch.inference_mode():
        logits = model.classify(as_tensor(latent.mean).to(where))
        labels = logits[:, : len(reference.schema.labels)]
        return torch.softmax(labels, dim=-1).cpu().numpy()
