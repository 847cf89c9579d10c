"""Label methods: the built-in ones give the votes of a mapping, and another package can bring one."""

from dataclasses import replace

import numpy as np
import pytest

import scgraft
from scgraft.errors import BadOption, NoLabels
from scgraft.labels import methods
from scgraft.labels.classifier import predict, train_classifier
from scgraft.labels.methods.method import Ballot, LabelMethod, Vote
from scgraft.labels.votes import classify
from scgraft.testing import tiny_query
from scgraft.testing.tiny_model import TinyConfig
from tiny import reference_of

KEY = "cell_type"
CONFIG = TinyConfig(model="SCANVI", encode_covariates=True, minified="latent_posterior_parameters", n_cells=60)


@pytest.fixture(scope="module")
def mapping():
    reference, adata = reference_of(CONFIG), tiny_query(CONFIG, n_cells=30, batches=("new",))
    mapped = scgraft.map_query(reference, adata, batch_key="batch")
    return reference, scgraft.align(reference, adata, batch_key="batch"), mapped


def test_the_methods_are_the_votes_of_a_mapping(mapping):
    reference, query, mapped = mapping

    def by(method, **more):
        return scgraft.transfer_labels(reference, mapped.latent, method=method, device="cpu", **more)[KEY]

    votes = mapped.labels[KEY].votes
    assert np.array_equal(by("neighbours").matrix, votes["latent"])
    assert np.allclose(by("classifier").matrix, classify(reference, mapped.latent, device="cpu"), atol=1e-6)
    ballot = Ballot(reference, KEY, mapped.latent, mapped.near, query)
    trained = train_classifier(reference, ballot.codes, ballot.classes)
    assert np.array_equal(by("genes", query=query).matrix, predict(trained, query.counts))


def test_a_method_that_cannot_vote_says_so(mapping):
    reference, _, mapped = mapping
    for method in ("genes", "prototypes"):  # without counts; of another family
        with pytest.raises(NoLabels, match=f"{method!r} cannot vote on 'cell_type'"):
            scgraft.transfer_labels(reference, mapped.latent, method=method)
    with pytest.raises(BadOption, match="no label method 'votes'; there are classifier, genes, neighbours, prototypes"):
        scgraft.transfer_labels(reference, mapped.latent, method="votes")


@pytest.mark.parametrize(
    "share",
    [np.ones(3), np.ones((4, 3)), np.full((4, 2), 0.6), np.array([[1.5, -0.5]]), np.array([[np.nan, 1.0]])],
    ids=["one axis", "another number of classes", "more than one", "negative", "NaN"],
)
def test_what_is_no_vote_is_refused(share):
    with pytest.raises(BadOption, match="vote"):
        Vote(("a", "b"), share)
    assert Vote(("a", "b"), np.array([[0.0, 0.0], [0.5, 0.5]])).share.shape == (2, 2)


def test_a_vote_on_other_cells_is_refused(mapping, monkeypatch):
    monkeypatch.setattr(methods, "METHODS", replace(methods.METHODS, registered={}))
    reference, _, mapped = mapping
    scgraft.register_label_method(LabelMethod("one", "a test", lambda ballot: Vote(("a",), np.ones((1, 1)))))
    with pytest.raises(BadOption, match="voted on 1 cells; there are 30"):
        scgraft.transfer_labels(reference, mapped.latent, method="one")


def test_names_are_taken_once(monkeypatch):
    monkeypatch.setattr(methods, "METHODS", replace(methods.METHODS, registered={}))
    mine = LabelMethod("mine", "a test", lambda ballot: None)
    scgraft.register_label_method(mine)
    scgraft.register_label_method(mine)
    assert methods.label_method_of("mine") is mine
    with pytest.raises(BadOption, match="already"):
        scgraft.register_label_method(LabelMethod("neighbours", "a test", lambda ballot: None))
    with pytest.raises(BadOption, match="a LabelMethod, not a str"):
        scgraft.register_label_method("neighbours")
