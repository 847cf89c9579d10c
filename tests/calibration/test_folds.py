"""Which batches are held out together, and what they become: laws, and the words of the guarantee."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scgraft.calibration.calibrate import guarantee_of
from scgraft.calibration.hold_out import as_new_batches, choose_folds, subset
from scgraft.expression.generate import counted_cells
from scgraft.testing.tiny_model import TinyConfig
from tiny import reference_of

CONFIG = TinyConfig(encode_covariates=True, minified="latent_posterior_parameters", n_cells=120, n_genes=40)


@pytest.fixture(scope="module")
def eight():
    return reference_of(replace(CONFIG, batches=tuple("abcdefgh")))


@settings(max_examples=15)
@given(st.lists(st.integers(1, 15), min_size=8, max_size=8))
def test_batches_are_shared_out_by_size_into_five_folds(eight, sizes):
    """The largest first, each to the fold that is smallest so far; every cell in one fold, every batch whole."""
    names = np.repeat(list("abcdefgh"), sizes)
    kept = subset(eight, np.arange(len(names)) % 120)
    key = eight.schema.batch_key
    reference = replace(kept, obs=kept.obs.assign(**{key: pd.Categorical(names, categories=list("abcdefgh"))}))
    plan = choose_folds(reference, 0)
    fold = [0] * 5
    for size in sorted(sizes, reverse=True):
        fold[fold.index(min(fold))] += size
    assert sorted(int(members.sum()) for _, members in plan) == sorted(f for f in fold if f)
    assert (np.sum([members for _, members in plan], axis=0) == 1).all()
    for batches, members in plan:
        assert set(names[members]) == set(batches) and not set(names[~members]) & set(batches)


@pytest.mark.parametrize(("n", "n_folds"), [(7, 0), (8, 4), (9, 4), (10, 5), (120, 5)])
def test_one_batch_is_held_out_in_random_parts(n, n_folds):
    whole = reference_of(replace(CONFIG, batches=("only",)))
    plan = choose_folds(subset(whole, np.arange(n)), 3)
    sizes = [int(members.sum()) for _, members in plan]
    assert len(plan) == n_folds and all(batches == () for batches, _ in plan)
    assert sum(sizes) == (n if n_folds else 0) and (not sizes or max(sizes) - min(sizes) <= 1)
    again = choose_folds(subset(whole, np.arange(n)), 4)
    if n == 120:
        assert not all(np.array_equal(a[1], b[1]) for a, b in zip(plan, again, strict=True))


@given(st.integers(0, 1000), st.integers(1, 40))
def test_a_part_of_a_reference_holds_the_same_cells(eight, seed, n):
    """By positions or by a mask: latent, obs, library size and map of the same cells in the same order."""
    kept = np.sort(np.random.default_rng(seed).choice(120, n, replace=False))
    mask = np.isin(np.arange(120), kept)
    reference = replace(eight, maps={"X_umap": np.arange(240.0).reshape(120, 2)})
    for part in (subset(reference, kept), subset(reference, mask)):
        assert np.array_equal(part.latent.mean, eight.latent.mean[kept])
        assert np.array_equal(part.latent.variance, eight.latent.variance[kept])
        assert part.latent.cells.tolist() == eight.latent.cells[kept].tolist()
        assert part.obs.index.tolist() == eight.obs.index[kept].tolist()
        assert np.array_equal(part.library, np.asarray(eight.library).ravel()[kept])
        assert part.maps["X_umap"][:, 0].tolist() == (2.0 * kept).tolist()


def test_held_out_cells_are_of_new_batches_as_a_querys_are(eight):
    index = np.array([0, 40, 3, 80])
    cells = counted_cells(eight, index)
    made = as_new_batches(cells, eight)
    names = [made.levels["batch"][c] for c in made.codes[:, 0]]
    assert names == [f"held out: {eight.schema.batches[c]}" for c in cells.codes[:, 0]]
    assert (made.codes[:, 0] >= 8).all() and made.levels["batch"][:8] == tuple("abcdefgh")
    assert made.alignment.cells_per_batch == {name: names.count(name) for name in sorted(set(names))}
    assert set(made.alignment.new_levels["batch"]) == set(names) and made.alignment.known_batches == ()
    assert np.array_equal(made.codes[:, 1:], cells.codes[:, 1:])
    assert (made.counts != cells.counts).nnz == 0


def test_the_guarantee_says_at_which_rate_sets_are_made():
    """B batches count as B of B + 1; one batch as half; no cells as nothing."""
    folds = (("a",), ("b",), ("c", "d"))
    said = guarantee_of(folds, 700, "stored counts", (0.93, float("nan"), 0.88))
    assert "700 cells of the reference (stored counts) from 4 batches, held out in 3 folds" in said
    assert "80% of the requested error rate (8.0% for a requested 10%)" in said and "88% to 93%" in said
    assert "covered" not in guarantee_of(folds, 700, "stored counts", (float("nan"),))
    assert "67%" in guarantee_of((("a",), ("b",)), 10, "x") and "(6.7% for" in guarantee_of((("a",), ("b",)), 10, "x")
    one = guarantee_of(((),) * 5, 9, "generated")
    assert "9 cells" in one and "half of the requested error rate (5% for a requested 10%)" in one
    assert guarantee_of((), 0, "x").startswith("None:")
