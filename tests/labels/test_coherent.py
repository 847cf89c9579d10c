"""Labels of two levels agree: the slow version cell by cell, and what is no hierarchy stays as it is."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scgraft.labels.coherent import coherent
from scgraft.values.labels import Labels

ABOVE = {"T4": "T", "T8": "T", "B": "B", "mono": "myeloid", "dc": "myeloid"}  # B is its own parent
COARSE, FINE = ("B", "T", "myeloid"), ("T8", "mono", "B", "T4", "dc")


def labels_of(key, matrix, classes, unknown=None):
    matrix = np.asarray(matrix, np.float32)
    order = np.argsort(-matrix, axis=1, kind="stable")
    names = np.array(classes)
    unknown = np.zeros(len(matrix), bool) if unknown is None else unknown
    best = matrix.max(axis=1)
    return Labels(key, "a test", names[order[:, 0]], best, names[order[:, 1]], best, unknown, tuple(classes), matrix)


def reference_of(pairs, levels=("coarse", "fine"), unlabeled="Unknown"):
    obs = pd.DataFrame(pairs, columns=["coarse", "fine"])
    return SimpleNamespace(obs=obs, schema=SimpleNamespace(label_levels=levels, unlabeled=unlabeled))


PAIRS = [(coarse, fine) for fine, coarse in ABOVE.items()] * 2
REFERENCE = reference_of(PAIRS)


@given(st.integers(0, 10_000), st.integers(1, 8), st.booleans())
def test_children_share_what_their_parent_has(seed, n, sure):
    """The coarse label stays, the finer one is its most probable child, and the probabilities of children add up to the parent's."""
    rng = np.random.default_rng(seed)
    coarse, fine = rng.dirichlet(np.ones(3), n), rng.dirichlet(np.ones(5), n)
    if sure:  # one class alone has the vote: the children of others have none, and some parents none either
        coarse = np.eye(3)[rng.integers(3, size=n)]
        fine = np.eye(5)[rng.integers(5, size=n)]
    above, below = (
        labels_of("coarse", coarse, COARSE, rng.random(n) < 0.3),
        labels_of("fine", fine, FINE, rng.random(n) < 0.3),
    )
    made = coherent(REFERENCE, {"fine": below, "coarse": above})
    assert list(made) == ["fine", "coarse"] and made["coarse"] is above
    found = made["fine"]
    for i in range(n):
        for c, parent in enumerate(COARSE):
            children = [k for k, name in enumerate(FINE) if ABOVE[name] == parent]
            share = fine[i, children] + 1e-9
            assert np.allclose(found.matrix[i, children], above.matrix[i, c] * share / share.sum(), atol=1e-5)
        inside = [k for k, name in enumerate(FINE) if ABOVE[name] == above.label[i]]
        best = inside[int(np.argmax(below.matrix[i, inside]))]
        assert found.label[i] == FINE[best] and found.probability[i] == pytest.approx(found.matrix[i, best])
        rest = [k for k in range(5) if k != best]
        runner_up = FINE.index(found.runner_up[i])
        assert runner_up != best and found.matrix[i, runner_up] == found.matrix[i, rest].max()
    assert np.array_equal(found.unknown, below.unknown | above.unknown)


def test_what_is_no_hierarchy_stays_as_it_is():
    rng = np.random.default_rng(0)
    above = labels_of("coarse", rng.dirichlet(np.ones(3), 4), COARSE)
    below = labels_of("fine", rng.dirichlet(np.ones(5), 4), FINE)
    both = {"coarse": above, "fine": below}
    for reference in (
        reference_of([*PAIRS, ("B", "T4")]),  # a class under two
        reference_of(PAIRS, levels=()),  # columns that the model does not know as levels
        reference_of(PAIRS, levels=("fine",)),
        reference_of([(c.replace("myeloid", "other"), f) for c, f in PAIRS]),  # a parent that is no class
    ):
        assert coherent(reference, both)["fine"] is below
    assert coherent(REFERENCE, {"fine": below}) == {"fine": below}


def test_cells_without_a_label_make_no_parent():
    """A cell with a finer label and no coarser one says nothing of what lies under what."""
    rng = np.random.default_rng(1)
    above = labels_of("coarse", rng.dirichlet(np.ones(3), 4), COARSE)
    below = labels_of("fine", rng.dirichlet(np.ones(5), 4), FINE)
    both = {"coarse": above, "fine": below}
    holes = reference_of([*PAIRS, ("Unknown", "T4"), ("B", "Unknown")])
    assert np.array_equal(coherent(holes, both)["fine"].matrix, coherent(REFERENCE, both)["fine"].matrix)


def test_all_classes_may_have_the_names_of_their_parents():
    matrix = np.random.default_rng(2).dirichlet(np.ones(3), 5)
    above, below = labels_of("coarse", matrix, COARSE), labels_of("fine", matrix[:, ::-1], COARSE)
    same = reference_of([(name, name) for name in COARSE])
    found = coherent(same, {"coarse": above, "fine": below})["fine"]
    assert found.label.tolist() == above.label.tolist() and np.allclose(found.matrix, above.matrix, atol=1e-6)


def test_one_finer_class_keeps_its_runner_up():
    above, one = (
        Labels(
            key,
            "a test",
            np.array(["B"]),
            np.ones(1),
            np.array([""]),
            np.ones(1),
            np.zeros(1, bool),
            ("B",),
            np.ones((1, 1)),
        )
        for key in ("coarse", "fine")
    )
    found = coherent(reference_of([("B", "B")]), {"coarse": above, "fine": one})["fine"]
    assert found.label.tolist() == ["B"] and found.runner_up.tolist() == [""] and found.probability.tolist() == [1.0]
