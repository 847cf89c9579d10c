"""What cells of each type are made of: the mean over the reference's batches of what the model decodes at the type's centre."""

from dataclasses import replace

import numpy as np
import pytest

from scgraft.expression.generate import counted_cells
from scgraft.expression.residuals import decoder
from scgraft.novelty import mixtures
from scgraft.novelty.find import reference_types
from scgraft.novelty.limits import types_of
from scgraft.novelty.mixtures import type_profiles
from scgraft.numerics.neighbors import Neighbours
from scgraft.reference.cells import reference_classes, reference_codes
from scgraft.testing.tiny_model import TinyConfig
from tiny import reference_of

CONFIG = TinyConfig(
    encode_covariates=True, minified="latent_posterior_parameters", n_cells=90, n_genes=40, batches=("a", "b", "c")
)


@pytest.fixture(scope="module")
def reference():
    return reference_of(CONFIG)


def decoded(reference, codes, batches):
    """The share of each gene in what is decoded at the mean of each class, averaged over some batches, one at a time, (C, G)."""
    batch = reference_codes(reference)[:, 0]
    parts = []
    for b in batches:
        first = np.flatnonzero(batch == b)[:1]
        decode = decoder(reference, counted_cells(reference, first), None, device="cpu")
        centres = [reference.latent.mean[codes == c].mean(axis=0) for c in range(codes.max() + 1) if (codes == c).any()]
        parts.append(np.concatenate([decode(centre[None], np.zeros(1, int))[0] for centre in centres]))
    return parts


def shares_of(parts, present):
    return np.mean([part * present / (part * present).sum(axis=1, keepdims=True) for part in parts], axis=0)


def test_profiles_are_the_mean_of_the_batches_over_the_genes_that_the_query_has(reference):
    _, codes = reference_classes(reference, "cell_type")
    present = np.arange(40) % 4 != 1
    made = type_profiles(reference, codes, present, device="cpu")
    expected = shares_of(decoded(reference, codes, [0, 1, 2]), present)
    assert made.genes.tolist() == np.flatnonzero(present).tolist() and made.limit == float("inf")
    assert np.allclose(made.shares, expected[:, present], rtol=1e-4)
    assert np.allclose(made.shares.sum(axis=1), 1, atol=1e-5)


def test_the_genes_are_those_that_tell_the_types_apart(reference, monkeypatch):
    """The largest sums over types of the squared difference from the mean, over the mean; and no gene that the query lacks."""
    monkeypatch.setattr(mixtures, "GENES", 5)
    _, codes = reference_classes(reference, "cell_type")
    present = np.arange(40) >= 10
    made = type_profiles(reference, codes, present, device="cpu")
    whole = shares_of(decoded(reference, codes, [0, 1, 2]), present)
    centre = whole.mean(axis=0)
    apart = np.where(present, ((whole - centre) ** 2).sum(axis=0) / np.maximum(centre, 1e-12), -1)
    assert made.genes.tolist() == sorted(np.argsort(-apart)[:5].tolist())
    own = whole[:, made.genes]
    assert np.allclose(made.shares, own / own.sum(axis=1, keepdims=True), rtol=1e-4)


def test_of_many_batches_some_are_taken_from_the_first_to_the_last(reference, monkeypatch):
    monkeypatch.setattr(mixtures, "BATCHES", 2)
    _, codes = reference_classes(reference, "cell_type")
    made = type_profiles(reference, codes, np.ones(40, bool), device="cpu")
    expected = shares_of(decoded(reference, codes, [0, 2]), np.ones(40))
    assert np.allclose(made.shares, expected[:, made.genes], rtol=1e-4)


def test_cells_without_a_class_have_no_part_in_a_profile(reference):
    _, codes = reference_classes(reference, "cell_type")
    codes = np.where(np.arange(90) % 3 == 0, -1, codes)
    made = type_profiles(reference, codes, np.ones(40, bool), device="cpu")
    expected = shares_of(decoded(reference, codes, [0, 1, 2]), np.ones(40))
    assert np.allclose(made.shares, expected[:, made.genes], rtol=1e-4) and len(made.shares) == len(expected)


def test_there_are_none_with_one_type_without_genes_and_without_counts(reference):
    _, codes = reference_classes(reference, "cell_type")
    every = np.ones(40, bool)
    assert type_profiles(reference, np.minimum(codes, 0), every) is None
    assert type_profiles(reference, np.where(codes < 2, codes, -1), every) is not None
    assert type_profiles(reference, codes, ~every) is None
    for likelihood in ("normal", "bernoulli"):
        other = replace(reference, hyper=replace(reference.hyper, gene_likelihood=likelihood))
        assert type_profiles(other, codes, every) is None


def test_the_class_of_a_cell_is_that_of_most_of_its_neighbours_and_none_where_none_has_one():
    codes = np.array([0, 0, 2, 2, -1, -1])
    near = Neighbours(np.array([[0, 1, 2], [2, 3, 0], [4, 5, 2], [4, 5, 4]]), np.ones((4, 3), np.float32))
    assert types_of(codes, near).tolist() == [0, 2, 2, -1]
    assert types_of(np.full(6, -1), near).tolist() == [-1] * 4


def test_types_of_a_reference_are_known_where_it_has_such_a_column(reference):
    labels, names, codes = reference_types(reference, "cell_type")
    assert labels.tolist() == reference.obs["cell_type"].astype(str).tolist()
    assert [names[c] for c in codes] == labels.tolist()
    bare = replace(reference, obs=None)
    for made in (
        reference_types(reference, None),
        reference_types(reference, "none"),
        reference_types(bare, "cell_type"),
    ):
        assert made[0] is None and list(made[1]) == [] and made[2].tolist() == [-1] * 90
    empty = replace(reference, obs=reference.obs.assign(cell_type=None))
    _, names, codes = reference_types(empty, "cell_type")
    assert list(names) == [] and codes.tolist() == [-1] * 90
