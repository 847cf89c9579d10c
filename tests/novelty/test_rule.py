"""What a query's sample says of novelty judges any other cell of it, alone and in any company."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scgraft.graft.embed import embed
from scgraft.graft.fit import fit
from scgraft.novelty.find import judge_sample
from scgraft.novelty.place import HeldOut
from scgraft.novelty.query_graph import query_graph
from scgraft.novelty.rule import NoveltyRule, none_known
from scgraft.novelty.score import shared_moments
from scgraft.query.align import align
from scgraft.testing import tiny_query
from scgraft.testing.tiny_model import TinyConfig
from scgraft.values.graft import FitConfig
from tiny import reference_of

CONFIG = TinyConfig(encode_covariates=True, minified="latent_posterior_parameters", n_cells=120, n_genes=40)


@pytest.fixture(scope="module")
def judged():
    reference = reference_of(CONFIG)
    adata = tiny_query(CONFIG, n_cells=150, batches=("new 1", "new 2"))
    query = align(reference, adata, batch_key="batch")
    graft = fit(reference, query, FitConfig(max_steps=5, device="cpu"))
    latent, graph = embed(reference, query, graft, device="cpu"), query_graph(query.counts)
    near = reference.latent.index.near(latent.mean)
    null = np.sort(np.random.default_rng(0).gamma(3, size=200)).astype(np.float32)
    codes = np.arange(200) % 3
    novelty, rule = judge_sample(
        reference,
        query,
        graft,
        latent,
        HeldOut(null, null / null.mean(), codes, np.arange(200) % 4, null / 100),
        key=reference.schema.labels_key,
        graph=graph,
        near=near,
    )
    return query, graph, near, novelty, rule


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.integers(1, 150))
def test_cells_are_judged_alone_as_in_company(judged, seed, n):
    query, graph, near, novelty, rule = judged
    part = np.random.default_rng(seed).choice(150, n, replace=False)
    neighbours, cluster = graph.space.place(query.counts[part])
    assert np.array_equal(neighbours, graph.neighbours[part]) and np.array_equal(cluster, graph.cluster[part])
    batch = query.codes[part, 0]
    score, markers = shared_moments(rule.residual, neighbours, batch, rule.centres)
    assert np.array_equal(score, novelty.score[part]) and np.array_equal(score, rule.score(neighbours, batch))
    assert np.array_equal(rule.strength(score, neighbours), novelty.strength[part])
    assert np.array_equal(markers, novelty.markers[part]) and (novelty.novel == (novelty.strength > 1)).all()


def test_where_hardly_a_cell_is_explained_none_is():
    n = 200
    none, score, alone = np.zeros(n, bool), np.ones(n), np.arange(n)[:, None]
    for share, whole in ((0.85, False), (0.95, True)):
        markers = np.where(np.arange(n) < share * n, 3.0, 1.0) + np.linspace(0, 0.1, n)
        rule = NoveltyRule(np.zeros((1, 1)), {}, markers, np.ones(n), 1.0, 1.0, limit=2.0)
        found = none_known(rule, none, score, alone, 0.05)
        strength = found.strength(score, alone)
        assert (strength > 1).all() == whole and (found is rule) == (not whole)
        order = np.argsort(rule.strength(score, alone), kind="stable")
        assert (np.diff(strength[order]) >= 0).all()


@pytest.mark.parametrize(
    ("misfit", "mixed", "novel", "whole"),
    [(6.0, 0.4, 0.0, True), (2.0, 0.9, 0.0, False), (6.0, 0.2, 0.0, False), (6.0, 0.9, 0.3, False)],
)
def test_a_query_of_mixed_cells_in_which_nothing_stands_out_is_novel_where_the_model_misfits_it(
    misfit, mixed, novel, whole
):
    """Ambient RNA makes cells look mixed, and so do types that the reference lacks, but these are explained far worse."""
    n = 200
    markers = np.where(np.arange(n) < novel * n, 5.0, 0.5)
    rule = NoveltyRule(np.zeros((1, 1)), {}, markers, np.ones(n), 1.0, misfit, limit=2.0)
    found = none_known(rule, np.arange(n) >= (1 - mixed) * n, np.ones(n), np.arange(n)[:, None], 0.05)
    assert (found is rule) != whole and (found.limit < 0.5) == whole
