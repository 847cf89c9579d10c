"""Which parts of a stored calibration contradict the others, one at a time; and what is unusual but right."""

from types import SimpleNamespace

import numpy as np
import pytest

from scgraft.calibration.store import _codes_within, _misfits


def calibration(**changed):
    """Two classes, three votes on held-out cells, four cells of a null from two folds; five genes."""
    value = {
        "classes": ("a", "b"),
        "class_weights": np.array([0.5, 2.0]),
        "scores": np.zeros(3),
        "score_class": np.array([0, 1, 1]),
        "novelty": np.zeros(4),
        "distance": np.zeros(4),
        "novelty_class": np.array([-1, 0, 1, 1]),
        "evidence": np.zeros(4),
        "mixture": np.zeros(4),
        "novelty_fold": np.array([0, 0, 1, 1]),
        "folds": (("x",), ("y",)),
        "reliability": np.zeros((2, 3)),
        "temperature": 1.0,
    }
    made = {"classes": ("a", "b"), "coefficient": np.zeros((2, 5)), "intercept": np.zeros(2), "genes": np.ones(5, bool),
            "anchor_codes": np.array([0, 1])}  # fmt: skip
    for name, part in changed.items():
        (made if name in made and name != "classes" else value)[name] = part
    return SimpleNamespace(classifier=SimpleNamespace(**made), **value)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"class_weights": np.zeros(2)},  # a class of which no vote counts
        {"temperature": 1e-3},
        {"temperature": 50.0},
        {"anchor_codes": np.zeros(0, int)},
        {"novelty_class": np.full(4, -1)},
    ],
)
def test_what_fits_together(changed):
    assert _misfits(calibration(**changed)) == []


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"coefficient": np.zeros((2, 4))}, "coefficient"),
        ({"coefficient": np.zeros((3, 5))}, "coefficient"),
        ({"intercept": np.zeros(3)}, "intercept"),
        ({"anchor_codes": np.array([0, 2])}, "anchor codes"),
        ({"anchor_codes": np.array([-1, 1])}, "anchor codes"),
        ({"class_weights": np.ones(3)}, "class weights"),
        ({"class_weights": np.array([1.0, -1e-9])}, "class weights"),
        ({"class_weights": np.array([1.0, np.nan])}, "class weights"),
        ({"scores": np.zeros(2)}, "scores"),
        ({"score_class": np.array([0, 1, 2])}, "score classes"),
        ({"score_class": np.array([-1, 1, 1])}, "score classes"),
        ({"distance": np.zeros(3)}, "distance"),
        ({"novelty_class": np.array([0, 0, 0, 2])}, "novelty classes"),
        ({"novelty_class": np.array([0, 0, 0, -2])}, "novelty classes"),
        ({"novelty_class": np.zeros(3, int)}, "novelty classes"),
        ({"evidence": np.zeros(5)}, "evidence"),
        ({"mixture": np.zeros(5)}, "mixture"),
        ({"novelty_fold": np.array([0, 0, 1, 2])}, "novelty folds"),
        ({"novelty_fold": np.zeros(3, int)}, "novelty folds"),
        ({"reliability": np.zeros((2, 4))}, "reliability"),
        ({"temperature": 0.0}, "temperature"),
    ],
)
def test_what_contradicts_the_rest_is_named(changed, name):
    assert _misfits(calibration(**changed)) == [name]


@pytest.mark.parametrize(("codes", "right"), [([], True), ([0, 2], True), ([0, 3], False), ([-1, 2], False)])
def test_codes_are_those_of_what_is_there(codes, right):
    assert _codes_within(np.array(codes, int), 3) == right
