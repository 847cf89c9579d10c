"""The rule as a formula, cell by cell: the evidence against its limit, the errors against those of another type."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scgraft.novelty.limits import foreign_limit
from scgraft.novelty.rule import NoveltyRule

positive = st.floats(0.05, 20)


def rule(limit=2.0, held_out=1.0, power=2.0, **more):
    between = more.pop("between", np.array([1.0, 3.0, np.inf], np.float32))
    return NoveltyRule(
        np.zeros((len(between), 4), np.float32), {}, between, np.array([True, False]), 1.0, limit,
        held_out_limit=held_out, power=power, **more,
    )  # fmt: skip


@given(positive, positive, positive, positive, positive, st.sampled_from([0.0, 1.0, 2.0, 3.0]))
def test_a_cell_is_novel_where_its_score_is_above_its_threshold(score, apart, distance, scale, limit, power):
    """Whichever is reached first: evidence = score * distance^power over limit * scale, or the score over the foreign limit."""
    made = rule(limit=limit, power=power)
    cell = [np.array([v]) for v in (score, apart, distance, scale)]
    threshold, strength = (found[0] for found in made.judge(*cell))
    foreign = foreign_limit(made.held_out_limit, cell[1])[0]
    expected = max(score * distance**power / (limit * scale), score / foreign)
    assert strength == pytest.approx(expected, rel=1e-4)
    assert threshold == pytest.approx(min(limit * scale / distance**power, foreign), rel=1e-4)
    assert strength == pytest.approx(score / threshold, rel=1e-3)


def test_a_cell_in_a_small_batch_is_not_compared_with_other_types():
    neighbours = np.array([[0, 1], [0, 1], [1, 2]])
    assert rule().apart(neighbours, np.array([0, 1, 0])).tolist() == [4.0, np.inf, np.inf]


def test_a_type_that_shares_errors_widens_its_own_limit_alone():
    made = rule(scales=np.array([1.0, 3.0, 1.0], np.float32))
    assert made.scale(np.array([[0, 1], [0, 2]])).tolist() == [2.0, 1.0]
    assert rule().scale(np.array([[0, 1]])).tolist() == [1.0]
