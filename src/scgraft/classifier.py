"""A second vote: multinomial logistic regression on genes, trained on cells of the reference, stored or generated.

It sees what the latent has lost (rare types, types unlike all others) and needs no counts of the reference: a minified
reference generates its own training cells (`generate`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scgraft.confidence import GeneClassifier
from scgraft.generate import reference_cells
from scgraft.values import Reference

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

# Chosen by benchmarks/trust.py (docs/trust.md): generated cells are cleaner than real ones, so the ridge is strong and the
# optimiser stops early.
DRAWS = 3
LEAST_DRAWS, FEWEST_DRAWS, MOST_LEAST = 300, 50, 10_000
MOST_DRAWS = 5000
PENALTY = 0.003  # scikit-learn's C
ITERATIONS = 25
SCALE = 1e4


def log_normalised(counts: csr_matrix, genes: np.ndarray) -> np.ndarray:
    """Dense log1p of counts per ten thousand over the genes used, (n, G'), float32."""
    kept = counts[:, np.flatnonzero(genes)].toarray()
    total = kept.sum(axis=1, keepdims=True)
    return np.log1p(kept * (SCALE / np.maximum(total, 1.0)), dtype=np.float32)


def training_cells(codes: np.ndarray, seed: int) -> np.ndarray:
    """Which reference cells to draw: three draws of each, 5000 in all at most, but 300 of every class (seeded).

    With more than 33 classes the 300 shrink, down to 50. In the order of the cells, so that what the classes are called
    and how they are ordered changes nothing.
    """
    classes, number = np.unique(codes[codes >= 0], return_counts=True)
    least = int(np.clip(MOST_LEAST // max(len(classes), 1), FEWEST_DRAWS, LEAST_DRAWS))
    share = min(DRAWS, MOST_DRAWS / max(number.sum(), 1))
    parts = []
    for code, n in zip(classes, number, strict=True):
        wanted = max(int(round(share * n)), least)
        own = np.flatnonzero(codes == code)
        rng = np.random.default_rng([seed, int(own[0])])
        whole, rest = divmod(wanted, n)
        parts.append(np.concatenate([np.tile(own, whole), rng.choice(own, rest, replace=False)]))
    return np.sort(np.concatenate(parts))


def train_classifier(
    reference: Reference,
    codes: np.ndarray,
    classes: tuple[str, ...],
    *,
    genes: np.ndarray | None = None,
    start: GeneClassifier | None = None,
    seed: int = 0,
) -> GeneClassifier:
    """Train the gene classifier of a reference.

    Parameters
    ----------
    reference
        With a latent.
    codes
        Class of each reference cell, (n,), -1 for cells without one.
    classes
        Names of the classes; those without cells are never predicted.
    genes
        Genes that the query has, (G,) bool; None takes all of them.
    start
        A classifier of the same classes to start from.
    seed
        Random are the cells that are drawn, and what is generated.
    """
    genes = np.ones(len(reference.schema.genes), bool) if genes is None else genes
    index = training_cells(codes, seed)
    cells = reference_cells(reference, index, seed=seed)
    x, true = log_normalised(cells.counts, genes), codes[index]
    used = np.unique(true)
    first = np.zeros((len(used), x.shape[1] + 1), np.float32)
    if start is not None:
        first = np.concatenate([start.coefficient[used][:, genes], start.intercept[used, None]], axis=1)
    fitted = logistic_regression(x, np.searchsorted(used, true), first)
    coefficient = np.zeros((len(classes), len(genes)), np.float32)
    coefficient[np.ix_(used, np.flatnonzero(genes))] = fitted[:, :-1]
    intercept = np.full(len(classes), -np.inf, np.float32)
    intercept[used] = fitted[:, -1]
    return GeneClassifier(classes, coefficient, intercept, genes, cells.alignment.counts_from)


def logistic_regression(
    x: np.ndarray, true: np.ndarray, start: np.ndarray, *, iterations: int = ITERATIONS
) -> np.ndarray:
    """Weights (C, G + 1) of a multinomial logistic regression with a ridge penalty, the intercepts last and free.

    Minimises the summed cross-entropy plus the squared weights over twice `PENALTY`, by L-BFGS.
    """
    from scipy.optimize import minimize

    n, (n_classes, width) = len(x), start.shape
    if n_classes == 1:
        return np.zeros_like(start)
    rows, x = np.arange(n), np.ascontiguousarray(x, np.float32)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w = flat.reshape(n_classes, width).astype(np.float32)
        logits = x @ w[:, :-1].T + w[:, -1]
        logits -= logits.max(axis=1, keepdims=True)
        share = np.exp(logits)
        total = share.sum(axis=1, keepdims=True)
        entropy = float((np.log(total[:, 0]) - logits[rows, true]).sum(dtype=np.float64))
        share /= total
        share[rows, true] -= 1
        gradient = np.concatenate([share.T @ x + w[:, :-1] / PENALTY, share.sum(axis=0)[:, None]], axis=1)
        value = entropy + float((w[:, :-1].astype(np.float64) ** 2).sum()) / (2 * PENALTY)
        return value / n, gradient.ravel().astype(np.float64) / n

    found = minimize(
        loss, start.ravel().astype(np.float64), jac=True, method="L-BFGS-B", options={"maxiter": iterations}
    )
    return found.x.reshape(n_classes, width).astype(np.float32)


def predict(classifier: GeneClassifier, counts: csr_matrix, *, block: int = 1024) -> np.ndarray:
    """Class probabilities (n, C), float32, from raw counts over the reference's genes."""
    weight = classifier.coefficient[:, classifier.genes].T
    parts = [np.zeros((0, len(classifier.classes)), np.float32)]
    for start in range(0, counts.shape[0], block):
        logits = log_normalised(counts[start : start + block], classifier.genes) @ weight + classifier.intercept
        share = np.exp(logits - logits.max(axis=1, keepdims=True))
        parts.append((share / share.sum(axis=1, keepdims=True)).astype(np.float32))
    return np.concatenate(parts)
