"""The gene classifier learns from the query itself: from its sure cells, whose label hardly anything speaks against.

Real cells of a new laboratory are unlike those that taught the classifier, and cells generated from a minified reference
are cleaner than any. A query's own cells say what is different, where their label is known without them: where the vote of
the neighbours in the latent and that of the genes agree, and the reference explains the cell. That is self-training
(Scudder 1965, doi:10.1109/TIT.1965.1053799) with guards: cells of the reference are learnt along with them, so that types
the query lacks are not unlearnt, and a ridge holds the weights where they were.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from scgraft.labels.classifier import expression, few_of_each, logistic_regression, logits, predict
from scgraft.numerics.order import order_by_content
from scgraft.values.calibration import GeneClassifier

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

# Chosen by benchmarks/quality.py (docs/trust-evidence.md).
PENALTY = 0.001
ITERATIONS = 25  # with 15, the order of the classes changed probabilities by .003
# Cells of the query that teach: 20 in all at least, 250 of a label at most; chosen by eye, not measured.
LEAST_SURE, MOST_EACH = 20, 250


def best_explained(novelty: np.ndarray, batch: np.ndarray) -> np.ndarray:
    """The half of every batch that the reference explains best, (n,) bool, from novelty scores (n,) and batch codes (n,).

    Cells of a type that the reference lacks have no right label to learn; unless they are most of a batch, they are not in it.
    """
    kept = np.zeros(len(novelty), bool)
    for code in np.unique(batch):
        own = batch == code
        kept[own] = novelty[own] <= np.median(novelty[own])
    return kept


def adapted(
    classifier: GeneClassifier, counts: csr_matrix, latent_vote: np.ndarray, explained: np.ndarray, *, seed: int = 0
) -> GeneClassifier:
    """The classifier after it has learnt from a query's sure cells.

    Parameters
    ----------
    classifier
        Of the reference, with its anchors: cells of every class that are learnt along.
    counts
        Raw counts of the query over the reference's genes, (n, G).
    latent_vote
        Share of the vote of every class, (n, C).
    explained
        Cells that may be sure, (n,) bool.
    seed
        Random is which of many sure cells are used: at most 250 of a label, and about 2,000 in all.

    Returns
    -------
    GeneClassifier
        As it was, where fewer than 20 cells are sure.
    """
    label, asked = latent_vote.argmax(axis=1), np.flatnonzero(explained)
    asked = asked[order_by_content(counts[asked], seed)]  # whatever order the cells come in, the same ones are used
    sure = asked[label[asked] == predict(classifier, counts[asked]).argmax(axis=1)]
    chosen = sure[few_of_each(label[sure], seed, most=MOST_EACH)]
    if len(chosen) < LEAST_SURE:
        return classifier
    used = np.flatnonzero(np.isfinite(classifier.intercept))
    x = expression(counts[chosen], classifier.genes)
    x = np.concatenate([x, expression(classifier.anchors, classifier.genes)])
    true = np.searchsorted(used, np.concatenate([label[chosen], classifier.anchor_codes]))
    change = logistic_regression(
        x,
        true,
        np.zeros((len(used), x.shape[1] + 1), np.float32),
        penalty=PENALTY,
        iterations=ITERATIONS,
        offset=logits(classifier, x)[:, used],
    )
    coefficient, intercept = classifier.coefficient.copy(), classifier.intercept.copy()
    coefficient[np.ix_(used, np.flatnonzero(classifier.genes))] += change[:, :-1]
    intercept[used] += change[:, -1]
    return replace(classifier, coefficient=coefficient, intercept=intercept)
