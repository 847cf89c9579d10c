"""The gene classifier of a reference is what its recipe says: which cells, how many trainings, which genes and classes."""

from dataclasses import replace

import numpy as np
import pytest

from scgraft.expression.generate import generate
from scgraft.labels.classifier import (
    GENERATED,
    STORED,
    expression,
    few_of_each,
    logistic_regression,
    train_classifier,
    training_cells,
)
from scgraft.labels.prototypes import prototype_votes
from scgraft.labels.transfer import transfer_labels
from scgraft.mapping.load import load_reference
from scgraft.reference.cells import reference_classes
from scgraft.reference.counts import stored_counts
from scgraft.testing import write_hub_folder
from scgraft.testing.tiny_model import TinyConfig
from scgraft.values.reference import Latent
from tiny import reference_of

CONFIG = TinyConfig(encode_covariates=True, n_cells=60, n_genes=24)
GENES = np.arange(24) % 3 != 1


@pytest.fixture(scope="module", params=["latent_posterior_parameters", None], ids=["generated", "stored"])
def reference(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "reference"
    return load_reference(write_hub_folder(folder, replace(CONFIG, minified=request.param)))


def test_it_is_the_mean_of_its_trainings_on_the_cells_of_the_recipe(reference):
    names, codes = reference_classes(reference, "cell_type")
    stored = stored_counts(reference, np.arange(60)) is not None
    made = train_classifier(reference, codes, tuple(names.tolist()), genes=GENES, seed=4)
    weights = []
    for turn in range(1 if stored else 3):
        index = training_cells(codes, 4 + turn, STORED if stored else GENERATED)
        counts = stored_counts(reference, index) if stored else generate(reference, index, seed=4 + turn).counts
        zeros = np.zeros((len(names), GENES.sum() + 1), np.float32)
        penalty = 0.03 if stored else 0.003
        weights.append(logistic_regression(expression(counts, GENES), codes[index], zeros, penalty=penalty))
    expected = np.mean(weights, axis=0)
    assert (
        np.allclose(made.coefficient[:, GENES], expected[:, :-1], atol=1e-5) and not made.coefficient[:, ~GENES].any()
    )
    assert np.allclose(made.intercept, expected[:, -1], atol=1e-5)
    assert ("stored counts" in made.source) == stored
    # Cells of the last training stand by, sixty of a class at most.
    own = few_of_each(codes[index], 4, most=60)
    assert np.array_equal(made.anchor_codes, codes[index][own]) and (made.anchors != counts[own]).nnz == 0


def test_one_training_where_one_is_asked_for(reference):
    names, codes = reference_classes(reference, "cell_type")
    one, three = (train_classifier(reference, codes, tuple(names), trainings=n, seed=2) for n in (1, 9))
    whole = train_classifier(reference, codes, tuple(names), seed=2)
    assert np.array_equal(three.coefficient, whole.coefficient)
    assert np.array_equal(one.coefficient, whole.coefficient) == ("stored counts" in whole.source)


def test_every_class_with_cells_is_predicted_and_no_other(reference):
    """The first class and the last; a class without cells has no intercept, and cells without a class teach nothing."""
    _, codes = reference_classes(reference, "cell_type")
    moved = np.where(codes == 1, -1, codes + (codes > 1))  # class 1 and class 2 (of four) have no cells
    made = train_classifier(reference, moved, ("a", "b", "c", "d"), trainings=1)
    assert np.isfinite(made.intercept).tolist() == [True, False, False, True]
    assert made.coefficient[[0, 3]].any(axis=1).all() and not made.coefficient[[1, 2]].any()
    assert set(made.anchor_codes.tolist()) == {0, 3}


def test_a_method_s_labels_say_how_far_the_cells_lie(reference):
    """As those of the neighbours do: a cell far from the reference is unknown, whoever votes."""
    if reference.latent is None:
        pytest.skip("needs stored posteriors")
    points = reference.latent.mean[:5].copy()
    points[4] += 1000
    latent = Latent(points, np.ones_like(points), np.arange(5).astype(str))
    found = transfer_labels(reference, latent, method="neighbours", device="cpu")["cell_type"]
    near = reference.latent.index.near(points).distance
    assert np.array_equal(found.distance, near) and found.unknown[4]
    given = transfer_labels(
        reference, latent, method="neighbours", near=reference.latent.index.near(points), device="cpu"
    )["cell_type"]
    assert np.array_equal(given.distance, near) and np.array_equal(given.matrix, found.matrix)


def test_votes_of_prototypes_are_the_softmax_of_the_distances():
    rng = np.random.default_rng(0)
    points, cells = rng.standard_normal((3, 4)), rng.standard_normal((6, 4)).astype(np.float32)
    reference = replace(
        reference_of(replace(CONFIG, minified="latent_posterior_parameters", n_cells=20)),
        attributes={"prototypes": {"type": (("x", "y", "z"), points)}},
    )
    ((classes, share),) = prototype_votes(
        reference, Latent(cells, np.ones_like(cells), np.arange(6).astype(str))
    ).values()
    assert classes == ("x", "y", "z") and share.dtype == np.float32
    for cell, row in zip(cells, share, strict=True):
        weight = np.exp([-np.sqrt(((cell - point) ** 2).sum()) for point in points])
        assert np.allclose(row, weight / weight.sum(), atol=1e-5)
    assert prototype_votes(replace(reference, attributes={}), Latent(cells, cells, np.arange(6).astype(str))) == {}
