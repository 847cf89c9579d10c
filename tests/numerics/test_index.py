"""Neighbours by an index: against all distances, written out; what one lookup carries for all who use it."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scgraft.files.cache import kept
from scgraft.numerics import index as module
from scgraft.numerics import index_store
from scgraft.numerics.index import Index, make_lists

seeds = st.integers(0, 10_000)


def cloud(seed: int, n: int, d: int = 6) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 3, (8, d))
    return (centres[rng.integers(8, size=n)] + rng.normal(size=(n, d))).astype(np.float32)


def all_distances(points: np.ndarray, queries: np.ndarray) -> np.ndarray:
    return np.linalg.norm(queries[:, None].astype(np.float64) - points[None], axis=2)


@given(seeds, st.integers(1, 60), st.integers(1, 20))
def test_the_relative_distance_is_that_to_the_neighbours_over_their_own_spacing(seed, n, m):
    points, queries = cloud(seed, n), cloud(seed + 1, m)
    near = Index(points).near(queries, k=30)
    k = min(15, n)
    own = np.sort(all_distances(points, points), axis=1)[:, 1 : min(16, n)]
    spacing = own.mean(axis=1) if n > 1 else np.ones(1)
    expected = np.sort(all_distances(points, queries), axis=1)[:, :k].mean(axis=1)
    expected = expected / np.maximum(spacing[near.found.indices[:, :k]].mean(axis=1), 1e-12)
    assert np.allclose(near.distance, expected, rtol=1e-4)
    part = np.random.default_rng(seed).permutation(m)[: max(m // 2, 1)]
    alone = Index(points).near(queries[part], k=30)
    assert np.array_equal(alone.distance, near[part].distance)
    assert np.array_equal(alone.found.indices, near[part].found.indices)


def test_the_spacing_of_many_points_is_measured_for_some(monkeypatch):
    """The measured ones are exact, and the others about right and not biased."""
    points = cloud(0, 4000)
    own = Index(points).spacing
    monkeypatch.setattr(module, "SPACING_CELLS", 1000)
    sampled = Index(points).spacing
    assert (sampled == own).sum() >= 1000
    assert np.corrcoef(np.log(sampled), np.log(own))[0, 1] > 0.8
    assert abs(np.log(sampled / own).mean()) < 0.02


def test_an_inverted_file_finds_nearly_all_and_its_distances_are_exact(monkeypatch):
    pytest.importorskip("faiss")
    monkeypatch.setattr(module, "EXACT", 5000)
    points, queries = cloud(0, 8000), cloud(1, 100)
    index = Index(points)
    found, true = index.nearest(queries, k=30), Index(points[:1]).nearest(queries, k=30)
    assert index.lists is not None and index.lists.recall >= module.LEAST_RECALL and "inverted file" in index.method
    assert true.indices.shape == (100, 1)
    distance = all_distances(points, queries)
    assert np.allclose(found.distances, np.take_along_axis(distance, found.indices, axis=1), rtol=1e-6)
    assert (np.diff(found.distances, axis=1) >= 0).all()
    exact = np.argsort(distance, axis=1)[:, :30]
    recall = np.mean([np.isin(a, b).mean() for a, b in zip(exact, found.indices, strict=True)])
    assert recall > module.LEAST_RECALL - 0.01
    again = Index(points).nearest(queries[50:], k=30)
    assert np.array_equal(again.indices, found.indices[50:])


def test_neighbours_are_exact_without_faiss_and_where_points_are_few(monkeypatch):
    import builtins

    real = builtins.__import__

    def without_faiss(name, *args, **kwargs):
        if name == "faiss":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    assert Index(cloud(0, 500)).method == "exact"
    monkeypatch.setattr(builtins, "__import__", without_faiss)
    assert make_lists(cloud(0, 500)) is None
    monkeypatch.setattr(module, "EXACT", 100)
    assert Index(cloud(0, 500)).method == "exact"


def test_lists_that_hold_too_few_points_are_made_up_for(monkeypatch):
    """Points on one spot fill one list; a query beside an emptier one still gets all its neighbours."""
    pytest.importorskip("faiss")
    monkeypatch.setattr(module, "EXACT", 100)
    points = np.concatenate([np.zeros((3000, 3)), np.random.default_rng(0).normal(50, 1, (40, 3))]).astype(np.float32)
    found = Index(points).nearest(points[-5:], k=60)
    expected = np.sort(all_distances(points, points[-5:]), axis=1)[:, :60]
    assert (found.indices >= 0).all() and np.allclose(found.distances, expected, atol=1e-4)


def kept_index(monkeypatch):
    """An index of enough points to be kept, as a run of its own would make it."""
    monkeypatch.setattr(module, "EXACT", 3000)
    monkeypatch.setattr(module, "SPACING_CELLS", 1000)
    return Index(cloud(0, 4000))


@pytest.fixture
def made(monkeypatch, tmp_path):
    pytest.importorskip("faiss")
    monkeypatch.setenv("SCGRAFT_CACHE", str(tmp_path / "cache"))
    index = kept_index(monkeypatch)
    return index, index.near(cloud(1, 200)), tmp_path


def test_what_was_made_for_many_points_is_kept_for_the_next_run(made, monkeypatch):
    index, near, _ = made
    monkeypatch.setattr(module, "make_lists", None)
    monkeypatch.setattr(module, "estimated_spacing", None)
    again = kept_index(monkeypatch)
    found = again.near(cloud(1, 200))
    assert np.array_equal(found.found.indices, near.found.indices) and np.array_equal(found.distance, near.distance)
    assert again.lists.recall == index.lists.recall and again.lists.index.nprobe == index.lists.index.nprobe
    assert kept()[0].path == index_store.folder_of(index.points)


def test_other_points_have_a_place_of_their_own(made):
    index, _, _ = made
    moved = index.points.copy()
    moved[-1, -1] = np.nextafter(moved[-1, -1], np.float32(np.inf))
    assert index_store.folder_of(moved) != index_store.folder_of(index.points)


@pytest.mark.parametrize("name", ["lists.faiss", "lists.json", "spacing.npz"])
@pytest.mark.parametrize("harm", ["cut", "changed", "gone"])
def test_what_is_cut_or_changed_is_made_anew(made, monkeypatch, name, harm):
    index, near, _ = made
    path = index_store.folder_of(index.points) / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content[: len(content) // 2] if harm == "cut" else content)
    if harm == "gone":
        path.unlink()
    found = kept_index(monkeypatch).near(cloud(1, 200))
    assert np.array_equal(found.found.indices, near.found.indices)
    assert np.array_equal(found.distance, near.distance)


def test_a_cache_that_others_write_to_is_not_used(made, monkeypatch):
    index, _, folder = made
    (folder / "cache").chmod(0o777)
    kept_folder = index_store.folder_of(index.points)
    kept_folder.chmod(0o777)
    assert index_store.kept_lists(kept_folder) is None and index_store.kept_spacing(kept_folder, 4000) is None


def test_it_can_be_sent_to_another_process(made):
    index, near, _ = made
    again = pickle.loads(pickle.dumps(index))
    assert "lists" in vars(again) and again.lists.index.nprobe == index.lists.index.nprobe
    assert np.array_equal(again.near(cloud(1, 200)).found.indices, near.found.indices)
