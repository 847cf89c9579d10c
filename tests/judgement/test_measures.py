"""The numbers of the verdict against slow versions, one cell at a time."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scgraft.judgement import measures
from scgraft.judgement.measures import cluster_distance, cluster_preservation, mixing, numbers_of, vote_numbers
from scgraft.values.reference import Latent

seeds = st.integers(0, 10_000)


def latent_of(points):
    points = np.asarray(points, np.float32)
    return Latent(points, np.ones_like(points), np.arange(len(points)).astype(str))


def cloud(seed, n, d=3):
    return np.random.default_rng(seed).standard_normal((n, d))


def order_by_distance(points, at):
    """Positions of all points by their distance to one of them; itself, where it is among them, comes first."""
    return np.argsort(((points - at) ** 2).sum(axis=1), kind="stable")


@given(seeds, st.integers(1, 12), st.integers(1, 5))
def test_the_distance_is_that_to_the_nearest_cluster_in_its_own_standard_deviations(seed, n, k):
    rng = np.random.default_rng(seed)
    mean, variance, points = rng.standard_normal((k, 4)), rng.gamma(2.0, size=(k, 4)) + 0.1, rng.standard_normal((n, 4))
    reference = SimpleNamespace(atlas=SimpleNamespace(mixture=SimpleNamespace(mean=mean, variance=variance)))
    expected = [min(np.sqrt((((x - m) ** 2) / v).mean()) for m, v in zip(mean, variance, strict=True)) for x in points]
    assert np.allclose(cluster_distance(reference, latent_of(points)), expected, atol=1e-4)


@given(seeds, st.integers(3, 40), st.integers(2, 4))
def test_preservation_is_the_share_of_own_neighbours_beyond_chance(seed, n, n_clusters):
    """1 where all of the 15 nearest are of the cell's cluster, 0 where as many as chance gives, nothing for a single cell."""
    points, cluster = cloud(seed, n), np.random.default_rng(seed).integers(n_clusters, size=n)
    cluster[0] = n_clusters - 1
    found = cluster_preservation(latent_of(points), SimpleNamespace(cluster=cluster))
    points = points.astype(np.float32).astype(float)
    assert len(found) == n_clusters
    for c in range(n_clusters):
        own = np.flatnonzero(cluster == c)
        if len(own) < 2 or len(own) == n:
            assert np.isnan(found[c])
            continue
        share = []
        for i in own:
            near = [j for j in order_by_distance(points, points[i]) if j != i][:15]
            share.append(np.mean([cluster[j] == c for j in near]))
        chance = (len(own) - 1) / (n - 1)
        assert found[c] == pytest.approx((np.mean(share) - chance) / (1 - chance), abs=1e-5)


@given(seeds, st.integers(2, 40), st.integers(1, 30), st.booleans())
def test_mixing_is_the_share_of_reference_neighbours_over_that_of_the_label(seed, n, m, some_unlabeled):
    rng = np.random.default_rng(seed)
    theirs, own = cloud(seed, n), cloud(seed + 1, m) + 0.5
    codes, labels = rng.integers(-1 if some_unlabeled else 0, 3, size=n), rng.integers(3, size=m)
    codes[0] = 0
    labels[0] = 0
    found = mixing(latent_of(theirs), latent_of(own), codes, labels)
    points = np.concatenate([theirs, own]).astype(np.float32).astype(float)
    share, expected = [], []
    for i in range(m):
        # Itself is the nearest of the 31 that are looked at, and no neighbour.
        near = [j for j in order_by_distance(points, points[n + i])[:31] if j != n + i]
        share.append(np.mean([j < n for j in near]))
        there, here = (codes == labels[i]).sum(), (labels == labels[i]).sum()
        expected.append(there / (there + here))
    assert found == pytest.approx(np.mean(share) / np.mean(expected), rel=1e-4)


def test_perfect_mixing_is_one_and_a_query_apart_is_zero():
    """Whatever the composition: reference and query of a type are drawn from the same place, or from far apart."""
    rng = np.random.default_rng(0)
    codes, labels = np.repeat([0, 1], [900, 300]), np.repeat([0, 1], [50, 350])
    place = np.array([[0.0, 0.0], [30.0, 0.0]])
    theirs, own = (place[c] + rng.standard_normal((len(c), 2)) for c in (codes, labels))
    assert mixing(latent_of(theirs), latent_of(own), codes, labels) == pytest.approx(1, abs=0.05)
    assert mixing(latent_of(theirs), latent_of(own + [0, 1000]), codes, labels) == 0


def test_a_large_query_is_measured_by_a_sample(monkeypatch):
    """The sample stands for all cells: the same numbers, about; and it is the same sample every time."""
    rng = np.random.default_rng(0)
    cluster = rng.integers(3, size=600)
    points = rng.standard_normal((600, 3)) + 3 * cluster[:, None]
    whole = cluster_preservation(latent_of(points), SimpleNamespace(cluster=cluster))
    mixed = mixing(latent_of(points[:300]), latent_of(points[300:]), cluster[:300], cluster[300:])
    monkeypatch.setattr(measures, "CELLS", 200)
    monkeypatch.setattr(measures, "REFERENCE_CELLS", 200)
    some = cluster_preservation(latent_of(points), SimpleNamespace(cluster=cluster))
    assert np.allclose(some, whole, atol=0.1) and not np.array_equal(some, whole)
    assert np.array_equal(some, cluster_preservation(latent_of(points), SimpleNamespace(cluster=cluster)))
    less = mixing(latent_of(points[:300]), latent_of(points[300:]), cluster[:300], cluster[300:])
    assert less == pytest.approx(mixed, abs=0.15) and less != mixed


def test_numbers_of_a_mapping_are_a_median_and_a_mean_of_what_is_known():
    made = numbers_of(np.array([1.0, 2.0, 9.0]), np.array([0.5, np.nan, 0.9]), 1.5)
    assert made == {"distance": 2.0, "preservation": pytest.approx(0.7), "misfit": 1.5}
    assert np.isnan(numbers_of(np.array([1.0]), np.array([np.nan]), 1.0)["preservation"])


def test_agreement_is_the_share_of_cells_that_both_votes_call_the_same():
    points, codes = cloud(0, 20), np.arange(20) % 2
    latent_vote, gene_vote = np.eye(2)[[0, 1, 1, 0]], np.eye(2)[[0, 1, 0, 0]]
    made = vote_numbers(latent_of(points), latent_of(points[:4] + 0.1), codes, latent_vote, gene_vote)
    assert made["agreement"] == 0.75
    labels = latent_vote.argmax(axis=1)
    assert made["mixing"] == mixing(latent_of(points), latent_of(points[:4] + 0.1), codes, labels)
