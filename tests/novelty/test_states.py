"""Which of a query's types are states, and which cells their genes are looked for in."""

from types import SimpleNamespace

import numpy as np
import pytest

from scgraft.novelty import states as module
from scgraft.novelty.place import Placed
from scgraft.novelty.states import states_of

ROWS, BEST = np.array([2, 3, 5, 7]), np.array([3, 7])


def kind(code=1, farther=1.0, reach=1.05, scale=2.0):
    return Placed(code, ROWS, BEST, farther, reach, scale)


@pytest.fixture
def found(monkeypatch):
    """Ten anchors, of which the first is novel; the masks whose genes are compared are kept."""
    asked = []
    monkeypatch.setattr(module, "shared_genes", lambda _, at, others: asked.append((at, others)) or ((("g", 1.0),), ()))
    return SimpleNamespace(graph=SimpleNamespace(anchors=np.arange(10)), novel=np.arange(10) < 1), asked


def test_the_better_explained_half_of_a_type_is_compared_with_the_other_types(found):
    groups, asked = found
    (made,) = states_of(groups, [kind()], ("a", "b"), 1.0, None)
    at, others = asked[0]
    assert np.flatnonzero(at).tolist() == [3, 7] and np.flatnonzero(others).tolist() == [0, 1, 4, 6, 8, 9]
    assert (made.label, made.n_cells, made.shift, made.genes) == ("b", 4, 2.0, (("g", 1.0),))


@pytest.mark.parametrize(
    ("changed", "whole", "novel", "there"),
    [
        ({}, 1.0, (), True),
        ({"farther": 1.06}, 1.0, (), False),  # not in its place
        ({"farther": 1.05}, 1.0, (), True),
        ({"scale": 1.25}, 1.0, (), True),
        ({"scale": 1.24}, 1.0, (), False),
        ({}, 1.61, (), False),  # the whole query is explained as badly
        ({}, 1.0, (2, 3), True),
        ({}, 1.0, (2, 3, 5), False),  # dossiers speak of novel cells
    ],
)
def test_a_state_is_in_its_place_stands_out_and_is_not_novel(found, changed, whole, novel, there):
    groups, _ = found
    groups.novel = np.isin(np.arange(10), novel)
    assert len(states_of(groups, [kind(**changed)], ("a", "b"), whole, None)) == there


def test_what_all_types_share_is_one_state_of_all(found):
    groups, asked = found
    everyone = Placed(-1, np.arange(10), np.arange(10), 1.0, 1.1, 1.5)
    first, second = states_of(groups, [kind(scale=1.3)], ("a", "b"), 1.0, everyone)
    assert (first.label, first.shift, second.label) == ("all types", 1.5, "b")  # the largest first
    assert asked[0][0].all() and not asked[0][1].any()
    assert states_of(groups, [], (), 1.0, Placed(-1, ROWS, BEST, 1.0, 1.1, 1.24)) == ()
