"""What explain() says of a cell, worked out once more from the mapping: neighbours, votes, and genes by their part in the log-odds."""

import numpy as np
import pytest

import scgraft
from scgraft.errors import NoLabels, QueryError
from scgraft.testing import tiny_query
from scgraft.testing.tiny_model import TinyConfig
from tiny import reference_of

KEY = "cell_type"
CONFIG = TinyConfig(encode_covariates=True, minified="latent_posterior_parameters", n_cells=60)
FIT = scgraft.FitConfig(epochs=0, device="cpu")


@pytest.fixture(scope="module")
def mapping():
    reference, adata = reference_of(CONFIG), tiny_query(CONFIG, n_cells=30, batches=("new",))
    return reference, adata, scgraft.map_query(reference, adata, batch_key="batch", config=FIT)


@pytest.mark.parametrize("i", [0, 7, 29])
def test_genes_are_listed_by_their_part_in_the_log_odds(mapping, i):
    reference, adata, mapped = mapping
    labels, cell = mapped.labels[KEY], adata.obs_names[i]
    why = scgraft.explain(reference, mapped, cell, adata=adata)
    first, second = (labels.classes.index(name) for name in (why.label, why.runner_up))
    counts = adata[i, reference.schema.genes.astype(str).tolist()].X.toarray()[0]
    voted = labels.classifier
    x = np.log1p(counts * 1e4 / counts.sum())
    part = (voted.coefficient[first] - voted.coefficient[second]) * x
    total = part.sum() + voted.intercept[first] - voted.intercept[second]
    best = [g for g in np.argsort(-part)[:8] if part[g] > 0]
    assert [name for name, _ in why.genes] == reference.schema.genes[best].tolist()
    assert [value for _, value in why.genes] == pytest.approx(part[best], abs=1e-3)
    assert why.log_odds == pytest.approx(total, rel=1e-4)
    assert why.remainder == pytest.approx(total - sum(value for _, value in why.genes), abs=1e-4)


def test_the_nearest_cells_and_the_votes_are_those_of_the_mapping(mapping):
    reference, adata, mapped = mapping
    labels = mapped.labels[KEY]
    why = scgraft.explain(reference, mapped, adata.obs_names[4], k=3)
    distance = np.linalg.norm(reference.latent.mean - mapped.latent.mean[4], axis=1)
    near = np.argsort(distance, kind="stable")[:3]
    assert [line[0] for line in why.neighbours] == reference.latent.cells[near].tolist()
    assert [line[1] for line in why.neighbours] == reference.obs[KEY].astype(str).iloc[near].tolist()
    assert [line[2] for line in why.neighbours] == reference.obs["batch"].astype(str).iloc[near].tolist()
    assert [line[3] for line in why.neighbours] == pytest.approx(distance[near], abs=1e-3)
    order = np.argsort(-labels.matrix[4], kind="stable")
    shown = [c for c in order if max(labels.votes["latent"][4, c], labels.matrix[4, c]) >= 0.01]
    assert list(why.votes) == [labels.classes[c] for c in shown]
    for c in shown:
        expected = (labels.votes["latent"][4, c], labels.votes["genes"][4, c], labels.matrix[4, c])
        assert why.votes[labels.classes[c]] == pytest.approx(expected, abs=1e-4)
    assert why.novelty == pytest.approx(mapped.novelty.strength[4]) and why.threshold == 1.0
    assert why.prediction_set == labels.sets(0.1)[4]


def test_what_cannot_be_explained_is_named(mapping):
    reference, adata, mapped = mapping
    with pytest.raises(QueryError, match="has no cell 'nobody'"):
        scgraft.explain(reference, mapped, "nobody")
    with pytest.raises(NoLabels, match="has no labels 'other'; it has cell_type"):
        scgraft.explain(reference, mapped, adata.obs_names[0], labels="other")
    with pytest.raises(QueryError, match="This AnnData has no cell"):
        scgraft.explain(reference, mapped, adata.obs_names[0], adata=adata[5:].copy())
