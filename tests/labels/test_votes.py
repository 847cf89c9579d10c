"""What a classifier learnt is kept or dropped by what it then says of the best explained cells; votes that are none."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from scgraft.labels import votes as module
from scgraft.labels.classifier import training_cells
from scgraft.labels.methods.method import LabelMethod, Vote
from scgraft.labels.methods.own_classifier import vote_of
from scgraft.labels.transfer import shares_by
from scgraft.labels.votes import cast_votes, learnt, votes_of
from scgraft.testing.tiny_model import TinyConfig
from scgraft.values.calibration import GeneClassifier
from tiny import reference_of

N = 40
COUNTS = csr_matrix(np.eye(N, 2 * N, dtype=np.float32) + np.eye(N, 2 * N, k=N, dtype=np.float32))
LABEL = np.arange(N) % 2
LATENT = np.where(LABEL[:, None] == np.arange(2), 0.9, 0.1).astype(np.float32)
QUERY = SimpleNamespace(counts=COUNTS, codes=np.zeros((N, 1), np.int64))
NOVELTY = np.arange(N, dtype=np.float32)  # the first half is explained best


def says(label):
    """A classifier that gives each of the cells (each has a gene of its own) a label."""
    weight = np.zeros((2, 2 * N), np.float32)
    weight[label, np.arange(N)] = 1.0
    none = csr_matrix((0, 2 * N), dtype=np.float32)
    return GeneClassifier(("a", "b"), weight, np.zeros(2, np.float32), np.ones(2 * N, bool), "a test", none, LABEL[:0])


def wrong_on(*cells):
    label = LABEL.copy()
    label[list(cells)] = 1 - label[list(cells)]
    return says(label)


@pytest.mark.parametrize(
    ("before", "after", "kept"),
    [
        (wrong_on(1, 2), wrong_on(1), True),
        (wrong_on(1), wrong_on(1, 2), False),
        (wrong_on(1), wrong_on(2), True),  # as good as before
        # What it says of cells that are explained badly is not asked.
        (wrong_on(1), wrong_on(*range(20, 40)), True),
        (wrong_on(*range(20, 40)), wrong_on(1), False),
    ],
)
def test_what_it_learnt_is_dropped_where_it_then_agrees_less(monkeypatch, before, after, kept):
    monkeypatch.setattr(module, "adapted", lambda classifier, counts, vote, explained: after)
    assert learnt(before, QUERY, LATENT, NOVELTY) is (after if kept else before)
    votes = cast_votes(before, QUERY, LATENT, NOVELTY)
    assert votes.classifier is (after if kept else before)
    assert np.array_equal(votes.genes, votes_of(votes.classifier, QUERY, LATENT).genes) and votes.latent is LATENT


def test_novel_cells_neither_teach_nor_judge(monkeypatch):
    asked = []
    worse = wrong_on(1, 3)

    def noted(classifier, counts, vote, explained):
        asked.append(explained)
        return worse

    monkeypatch.setattr(module, "adapted", noted)
    novel = np.isin(np.arange(N), [1, 3])
    assert learnt(says(LABEL), QUERY, LATENT, NOVELTY, novel) is worse  # it is wrong on novel cells alone
    assert np.array_equal(asked[0], (np.arange(N) < 20) & ~novel)
    everything = learnt(says(LABEL), QUERY, LATENT, NOVELTY, np.ones(N, bool))
    assert everything is worse and not asked[1].any()  # nobody is left to ask


def test_a_part_of_very_many_cells_judges(monkeypatch):
    """Of twenty explained cells five: the same five whatever the order."""
    monkeypatch.setattr(module, "JUDGED", 5)
    seen = []
    predict = module.predict
    monkeypatch.setattr(module, "predict", lambda made, counts: seen.append(counts.shape[0]) or predict(made, counts))
    monkeypatch.setattr(module, "adapted", lambda classifier, counts, vote, explained: wrong_on(1))
    learnt(says(LABEL), QUERY, LATENT, NOVELTY)
    assert seen == [5, 5]


def test_a_class_of_one_cell_is_drawn_as_often_as_any_other():
    drawn = training_cells(np.array([0] * 400 + [1]), 0)
    assert (drawn == 400).sum() == 300 and len(drawn) == 300 + 1200


def test_a_model_that_is_sure_of_classes_without_cells_has_no_vote():
    """Shares of the classes that cells have, once more adding up to one; nothing, and no NaN, where all went to the others."""
    reference = reference_of(TinyConfig(model="SCANVI", minified="latent_posterior_parameters", n_cells=40))
    names = reference.schema.labels
    gone = reference.obs["cell_type"].astype(str) == names[0]
    other = np.where(gone, names[1], reference.obs["cell_type"].astype(str))
    reference = replace(reference, obs=reference.obs.assign(cell_type=other))
    share = np.zeros((3, len(names)), np.float64)
    share[0, 0], share[1, :2], share[2, 1:] = 1.0, (0.75, 0.25), 1 / (len(names) - 1)
    found = vote_of(reference, share)
    assert found.classes == names and not found.share[0].any()
    assert found.share[1].tolist() == [0, 1] + [0] * (len(names) - 2) and np.allclose(found.share[2], share[2])
    assert np.array_equal(vote_of(replace(reference, obs=None), share).share, share.astype(np.float32))


def test_shares_of_classes_that_a_calibration_knows(monkeypatch):
    """What a method gives to others is left out and the rest adds up to one; nothing where all went to others."""
    vote = Vote(("x", "b", "a"), np.array([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
    method = LabelMethod("mine", "a test", lambda ballot: vote)
    monkeypatch.setattr("scgraft.labels.transfer.label_method_of", lambda name: method)
    ballot = SimpleNamespace(latent=SimpleNamespace(mean=np.zeros((3, 2))))
    assert shares_by("mine", ballot, ("a", "b", "c")).tolist() == [[0.5, 0.5, 0], [0, 0, 0], [0, 1, 0]]
