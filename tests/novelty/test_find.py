"""Which groups of novel cells get a dossier: none of false alarms, the one that is there, and no cluster that chance explains."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.stats import binom

from scgraft.expression.generate import generate
from scgraft.graft.embed import embed
from scgraft.novelty.find import find_novelty
from scgraft.novelty.place import HeldOut
from scgraft.testing.tiny_model import TinyConfig
from tiny import reference_of

CONFIG = TinyConfig(
    encode_covariates=True, minified="latent_posterior_parameters", n_cells=120, n_genes=40, gene_likelihood="nb"
)


@pytest.fixture(scope="module")
def mapping():
    reference = reference_of(CONFIG)
    return reference, generate(reference, np.random.default_rng(0).integers(120, size=200), nominal=2000.0), None


def found_in(mapping, query, null):
    reference, _, graft = mapping
    held = HeldOut(null, np.ones(0), np.full(len(null), -1), np.zeros(len(null), int), null)
    return find_novelty(reference, query, graft, embed(reference, query, graft, device="cpu"), held)


def evidence_of(mapping):
    """That cells like the reference's own are novel: their strength where the limit is 1."""
    return found_in(mapping, mapping[1], np.ones(400, np.float32)).strength


def test_where_no_cell_is_novel_there_is_no_dossier(mapping):
    found = found_in(mapping, mapping[1], np.full(400, 1e6, np.float32))
    assert not found.novel.any() and found.dossiers == ()


@pytest.mark.parametrize("declared", [0.5, 1.0, 2.0])
def test_false_alarms_at_the_declared_rate_are_no_group(mapping, declared):
    """About as many cells are novel as declared, wherever they lie: every dossier is one that chance does not explain."""
    found = found_in(mapping, mapping[1], (np.tile(evidence_of(mapping), 20) / declared).astype(np.float32))
    described = {dossier.cluster for dossier in found.dossiers}
    for cluster in np.unique(found.cluster):
        own = found.cluster == cluster
        n = int(found.novel[own].sum())
        explained = n < 5 or binom.sf(n - 1, own.sum(), 0.05) >= 1e-3
        assert not explained or cluster not in described


def test_a_group_that_is_there_is_described_with_its_cells(mapping):
    """Forty cells that share a programme which the model does not expect."""
    reference, query, graft = mapping
    counts = query.counts.toarray()
    group = np.arange(40)
    silent = np.argsort(counts.sum(axis=0), kind="stable")[:6]
    counts[np.ix_(group, silent)] += 400
    changed = replace(query, counts=csr_matrix(counts.astype(np.float32)))
    found = found_in(mapping, changed, np.tile(evidence_of(mapping), 20).astype(np.float32))
    assert found.novel[group].all() and found.dossiers
    largest = max(found.dossiers, key=lambda dossier: dossier.n_cells)
    assert largest.n_cells <= largest.n_cluster == int((found.cluster == largest.cluster).sum())
    assert {gene for gene, _ in largest.genes} & set(reference.schema.genes[silent].astype(str))
    assert set(largest.cells) <= set(query.cells[group])
