"""The second vote for a label: multinomial logistic regression on genes, trained on cells of the reference.

It sees what the latent has lost, such as rare types. If the repository holds counts, it is trained on them; if not (a
minified reference), on counts that the model generates from the stored posterior of its cells
(:mod:`scgraft.expression.generate`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scgraft.expression.generate import GENERATED_COUNTS, generate
from scgraft.novelty.score import present_genes
from scgraft.numerics.conformal import cross_entropy
from scgraft.numerics.lognorm import log_normalised
from scgraft.reference.cells import reference_classes
from scgraft.reference.counts import STORED_COUNTS, stored_counts
from scgraft.values.calibration import Calibration, GeneClassifier
from scgraft.values.query import Query
from scgraft.values.reference import Reference

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

# With many classes a class is raised to 10,000 cells in all over the number of classes, but to 50 at least: 50 to 300 of
# each were tried (docs/trust-evidence.md, "Ridge, draws and steps"), and 10,000 bound the time of training.
FEWEST, MOST_LEAST = 50, 10_000
MOST = 5000  # training cells, before rare classes are raised; chosen for the time of training, not measured otherwise
# Cells of all classes, and of each at least, that take part where few of each are enough; chosen by eye. Sixty anchors of every class
# were chosen by benchmarks/quality.py: 200 were no better (docs/trust-evidence.md).
SPREAD, LEAST_EACH, ANCHORS_EACH = 2000, 20, 60
ITERATIONS = 25  # the optimiser stops early, a second ridge; 25 and 100 were tried (docs/trust-evidence.md)


@dataclass(frozen=True)
class Recipe:
    """How a gene classifier is trained.

    Parameters
    ----------
    draws
        How often each reference cell is used; generated cells are another draw each time.
    least
        Cells of each class at least; a rarer class is repeated up to this number.
    penalty
        Inverse strength of the ridge penalty: ``C`` of scikit-learn's logistic regression, smaller is stronger.
    trainings
        How many classifiers are trained on different draws; their weights are averaged.
    """

    draws: int
    least: int
    penalty: float
    trainings: int


# Chosen by benchmarks/quality.py (docs/trust-evidence.md). Generated cells have less noise than real ones, so their ridge is stronger.
# They are random draws, so three classifiers are averaged.
GENERATED = Recipe(draws=3, least=300, penalty=0.003, trainings=3)
# Chosen by the same benchmark on its three seeds (docs/trust-evidence.md, "Real counts, other recipes").
STORED = Recipe(draws=1, least=100, penalty=0.03, trainings=1)


@dataclass(frozen=True)
class Drawn:
    """Generated cells that several classifiers are trained on.

    Parameters
    ----------
    index
        Reference cell that each was generated from, (m,).
    codes
        Its class, (m,).
    counts
        Raw counts (m, G).
    """

    index: np.ndarray
    codes: np.ndarray
    counts: csr_matrix


def expression(counts: csr_matrix, genes: np.ndarray) -> np.ndarray:
    """What the classifier sees of cells: dense log1p of counts per ten thousand over the genes used, (n, G'), float32."""
    return log_normalised(counts[:, np.flatnonzero(genes)]).toarray()


def training_cells(codes: np.ndarray, seed: int, recipe: Recipe = GENERATED) -> np.ndarray:
    """Which reference cells to draw: the recipe's draws of each, 5000 in all at most, but its least of every class (seeded).

    With many classes the least shrinks, down to 50. In the order of the cells, so that what the classes are called
    and how they are ordered changes nothing.
    """
    classes, number = np.unique(codes[codes >= 0], return_counts=True)
    least = int(np.clip(MOST_LEAST // max(len(classes), 1), FEWEST, recipe.least))
    share = min(recipe.draws, MOST / max(number.sum(), 1))
    parts = []
    for code, n in zip(classes, number, strict=True):
        wanted = max(int(round(share * n)), least)
        own = np.flatnonzero(codes == code)
        rng = np.random.default_rng([seed, int(own[0])])
        whole, rest = divmod(wanted, n)
        parts.append(np.concatenate([np.tile(own, whole), rng.choice(own, rest, replace=False)]))
    return np.sort(np.concatenate(parts))


def draw_cells(reference: Reference, codes: np.ndarray, *, seed: int = 0) -> Drawn | None:
    """Cells to train on, generated once for several classifiers (seeded); None where the repository holds counts.

    `codes` are the classes of the reference's cells, (n,), -1 for none.
    """
    if stored_counts(reference, np.zeros(1, np.int64)) is not None:
        return None
    return _generated(reference, codes, seed)


def _generated(reference: Reference, codes: np.ndarray, seed: int) -> Drawn:
    index = training_cells(codes, seed)
    return Drawn(index, codes[index], generate(reference, index, seed=seed).counts)


def without(drawn: Drawn, left_out: np.ndarray, rest: Reference, codes: np.ndarray, *, seed: int = 0) -> Drawn:
    """As many cells of every class as would be drawn for the rest of a reference: what was drawn already, and new ones for what is missing.

    Were they not made up, a class that many of the cells that are left out have would be rarer in what is learnt from the others.

    Parameters
    ----------
    drawn
        For the whole reference.
    left_out
        Mask of the reference's cells whose draws are left out, (n,).
    rest, codes
        The reference without these, and the classes of its cells.
    seed
        Random is which draws are taken where there are too many, and what is drawn anew; `index` of the latter is -1.
    """
    from scipy import sparse

    wanted, there = training_cells(codes, seed), ~left_out[drawn.index]
    taken, anew = [], []
    for code in np.unique(codes[wanted]):
        old, new = np.flatnonzero(there & (drawn.codes == code)), wanted[codes[wanted] == code]
        rng = np.random.default_rng([seed, int(new[0])])
        taken.append(rng.choice(old, min(len(old), len(new)), replace=False))
        anew.append(rng.choice(new, len(new) - len(taken[-1]), replace=False))
    kept, fresh = np.sort(np.concatenate(taken)), np.sort(np.concatenate(anew))
    counts = sparse.vstack([drawn.counts[kept], generate(rest, fresh, seed=seed).counts], format="csr")
    index = np.concatenate([drawn.index[kept], np.full(len(fresh), -1)])
    return Drawn(index, np.concatenate([drawn.codes[kept], codes[fresh]]), counts)


def train_classifier(
    reference: Reference,
    codes: np.ndarray,
    classes: tuple[str, ...],
    *,
    genes: np.ndarray | None = None,
    trainings: int | None = None,
    seed: int = 0,
    drawn: Drawn | None = None,
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
    trainings
        How many trainings on other generated cells are averaged; None takes the recipe's.
    seed
        Random are the cells that are drawn, and what is generated.
    drawn
        Cells that were drawn with this seed already, for the first training.
    """
    genes = np.ones(len(reference.schema.genes), bool) if genes is None else genes
    used, index, source = np.unique(codes[codes >= 0]), training_cells(codes, seed, STORED), STORED_COUNTS
    counts, of_cells = None if drawn is not None else stored_counts(reference, index), codes[index]
    recipe = GENERATED if counts is None else STORED
    turns = recipe.trainings if trainings is None else min(trainings, recipe.trainings)
    fitted = np.zeros((len(used), int(genes.sum()) + 1), np.float32)
    for turn in range(turns):
        if recipe is GENERATED:
            made = drawn if drawn is not None and turn == 0 else _generated(reference, codes, seed + turn)
            of_cells, counts, source = made.codes, made.counts, GENERATED_COUNTS
        x = expression(counts, genes)
        true = np.searchsorted(used, of_cells)
        fitted += logistic_regression(x, true, np.zeros_like(fitted), penalty=recipe.penalty) / turns
    coefficient = np.zeros((len(classes), len(genes)), np.float32)
    coefficient[np.ix_(used, np.flatnonzero(genes))] = fitted[:, :-1]
    intercept = np.full(len(classes), -np.inf, np.float32)
    intercept[used] = fitted[:, -1]
    assert counts is not None
    anchors = few_of_each(of_cells, seed, most=ANCHORS_EACH)
    return GeneClassifier(classes, coefficient, intercept, genes, source, counts[anchors], of_cells[anchors])


def without_classes(genes: np.ndarray, source: str) -> GeneClassifier:
    """The classifier of a calibration without labels, over genes (G,) bool."""
    from scipy.sparse import csr_matrix

    n = len(genes)
    none, no_cells = np.zeros(0, np.float32), csr_matrix((0, n), dtype=np.float32)
    return GeneClassifier((), np.zeros((0, n), np.float32), none, genes, source, no_cells, np.zeros(0, np.int64))


def few_of_each(codes: np.ndarray, seed: int, *, most: int) -> np.ndarray:
    """Positions of some cells of every class, sorted: of each its share of 2,000, but 20 to `most` (seeded).

    In the order of the cells, as :func:`training_cells`.
    """
    classes = np.unique(codes)
    most = int(np.clip(SPREAD // max(len(classes), 1), LEAST_EACH, most))
    parts = [np.zeros(0, np.int64)]
    for code in classes:
        own = np.flatnonzero(codes == code)
        rng = np.random.default_rng([seed, int(own[0])])
        parts.append(own if len(own) <= most else rng.choice(own, most, replace=False))
    return np.sort(np.concatenate(parts))


def logistic_regression(
    x: np.ndarray,
    true: np.ndarray,
    start: np.ndarray,
    *,
    penalty: float = GENERATED.penalty,
    iterations: int = ITERATIONS,
    offset: np.ndarray | None = None,
) -> np.ndarray:
    """Weights (C, G + 1) of a multinomial logistic regression with a ridge penalty, the intercepts last and free.

    Minimises the summed cross-entropy plus the squared weights over twice `penalty` (scikit-learn's C), by L-BFGS. An `offset`
    (n, C) is added to the logits: weights are then what is to be added to those that it comes from.

    Products may be rounded as in a mini-batch of the fit (:func:`scgraft.numerics.products.fast_products`): the optimiser stops long
    before that matters, and with 60 classes they take half of the time.
    """
    from scipy.optimize import minimize

    from scgraft.numerics.products import fast_products, one_thread, product

    n, (n_classes, width) = len(x), start.shape
    if n_classes == 1:
        return np.zeros_like(start)
    x = np.require(x, np.float32, ["C", "W"])

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w = flat.reshape(n_classes, width).astype(np.float32)
        score = product(x, w[:, :-1].T) + w[:, -1]
        if offset is not None:
            score += offset
        entropy, share = cross_entropy(score, true)
        gradient = np.concatenate([product(share.T, x) + w[:, :-1] / penalty, share.sum(axis=0)[:, None]], axis=1)
        value = float(entropy.sum(dtype=np.float64)) + float((w[:, :-1].astype(np.float64) ** 2).sum()) / (2 * penalty)
        return value / n, gradient.ravel().astype(np.float64) / n

    begin, options = start.ravel().astype(np.float64), {"maxiter": iterations}
    with one_thread(), fast_products(exact=False):
        found = minimize(loss, begin, jac=True, method="L-BFGS-B", options=options)
    return found.x.reshape(n_classes, width).astype(np.float32)


def logits(classifier: GeneClassifier, x: np.ndarray) -> np.ndarray:
    """Logits (n, C) of log-normalised cells (n, G') over the genes used; minus infinity for a class without cells."""
    return x @ classifier.coefficient[:, classifier.genes].T + classifier.intercept


# block: cells whose dense genes are held at once; chosen for memory, the speed was not measured.
def predict(classifier: GeneClassifier, counts: csr_matrix, *, block: int = 1024) -> np.ndarray:
    """Class probabilities (n, C), float32, from raw counts over the reference's genes."""
    parts = [np.zeros((0, len(classifier.classes)), np.float32)]
    for start in range(0, counts.shape[0], block):
        score = logits(classifier, expression(counts[start : start + block], classifier.genes))
        share = np.exp(score - score.max(axis=1, keepdims=True))
        parts.append((share / share.sum(axis=1, keepdims=True)).astype(np.float32))
    return np.concatenate(parts)


def classifier_for(reference: Reference, calibration: Calibration, query: Query) -> GeneClassifier:
    """The calibration's gene classifier; trained anew on the genes that the query has, where it lacks some."""
    present = present_genes(reference, query)
    made = calibration.classifier
    if np.array_equal(present, made.genes):
        return made
    _, codes = reference_classes(reference, calibration.key)
    return train_classifier(reference, codes, calibration.classes, genes=present)
