"""Held-out cells are measured like the query's: as deeply, and in the same genes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from scgraft.calibration.calibrate import calibrate
from scgraft.calibration.condition import Condition, condition_of, measured_as, own_condition
from scgraft.calibration.store import cache_folder
from scgraft.expression.generate import generate
from scgraft.testing.tiny_model import TinyConfig
from tiny import reference_of

CONFIG = TinyConfig(
    encode_covariates=True, minified="latent_posterior_parameters", n_cells=120, n_genes=40, gene_likelihood="nb"
)
NEVER = 1e-9  # of a test that is right


@pytest.fixture(scope="module")
def reference():
    return reference_of(CONFIG)


@pytest.mark.parametrize("halvings", [0, 1, 2, 3])
def test_a_shallow_query_is_known_by_its_depth(reference, halvings):
    deep = generate(reference, np.arange(120), nominal=3000.0)
    like = replace(reference, library=np.full(120, 3000.0, np.float32))
    query, _ = measured_as(
        deep, Condition(0.5**halvings, own_condition(reference).genes), reference.schema.genes, seed=1
    )
    found = condition_of(like, query)
    assert found.share == 0.5**halvings and found.as_reference == (halvings == 0)


def test_a_deeper_query_is_as_the_reference(reference):
    deep = generate(reference, np.arange(120), nominal=30_000.0)
    assert condition_of(replace(reference, library=np.full(120, 3000.0, np.float32)), deep).share == 1


@settings(max_examples=20)
@given(st.sampled_from([1.0, 0.5, 0.25]), st.integers(0, 39), st.integers(0, 1000))
def test_thinned_counts_are_binomial_and_genes_are_gone(share, n_gone, seed):
    reference = reference_of(CONFIG)
    query = generate(reference, np.arange(60), seed=seed, nominal=2000.0)
    genes = np.random.default_rng(seed).permutation(40) >= n_gone
    made, left = measured_as(query, Condition(share, genes), reference.schema.genes, seed=seed)
    before, after = query.counts.toarray()[left][:, genes], made.counts.toarray()
    assert not after[:, ~genes].any() and (after[:, genes] <= before).all() and (after.sum(axis=1) > 0).all()
    low, high = binom.interval(1 - NEVER, int(before.sum()), share)
    assert low <= after.sum() <= high
    assert set(made.alignment.missing) == set(reference.schema.genes[~genes]) and len(made.cells) == len(left)
    whole = query.counts.toarray()
    if share < 1 or n_gone:  # else the cells are as they were
        assert made.alignment.n_found == genes.sum()
        assert np.isclose(made.alignment.found_weight, whole[:, genes].sum() / whole.sum())


@pytest.mark.parametrize(("found", "all_genes"), [(0.985, True), (0.975, False)])
def test_genes_of_less_than_a_fiftieth_of_the_counts_make_no_condition_of_their_own(reference, found, all_genes):
    query = generate(reference, np.arange(120), nominal=3000.0)
    gone = (str(reference.schema.genes[3]), str(reference.schema.genes[8]))
    lacking = replace(query, alignment=replace(query.alignment, found_weight=found, missing=gone))
    genes = condition_of(replace(reference, library=np.full(120, 3000.0, np.float32)), lacking).genes
    assert genes.all() == all_genes and (all_genes or np.flatnonzero(~genes).tolist() == [3, 8])


def test_every_condition_has_a_calibration_of_its_own(reference, monkeypatch, tmp_path):
    monkeypatch.setenv("SCGRAFT_CACHE", str(tmp_path))
    every = own_condition(reference)
    some = replace(every, genes=np.arange(40) < 30)
    folders = {cache_folder(reference, ["a"], c) for c in (None, every, some, replace(every, share=0.5))}
    assert len(folders) == 3  # as the reference's own is the one without


def test_a_calibration_uses_the_genes_and_the_depth_of_its_condition(reference):
    (whole,), (poor,) = (
        calibrate(reference, genes=genes, share=share).values()
        for genes, share in ((None, 1.0), (np.arange(40) < 6, 0.05))
    )
    assert whole.classifier.genes.all() and not poor.classifier.genes[6:].any()
    # Cells that come out without a count are left out.
    assert len(poor.novelty) == len(poor.distance) <= len(whole.novelty) == len(whole.distance) == 120
    assert not np.array_equal(poor.scores[:5], whole.scores[:5])
