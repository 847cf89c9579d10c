"""The verdict: what has nothing to compare with is grey, and limits are those of held-out batches."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scgraft.judgement.lines import beyond
from scgraft.judgement.verdict import AGREEMENT, DISTANCE, MIXING, PRESERVATION, _large, _small, verdict
from scgraft.values.quality import Measure

nulls = st.lists(st.floats(0.2, 1.0), min_size=2, max_size=8).map(tuple)


def small(value, null):
    return _small(value, null, "distance", 0.25, 1.0, "{value:.2f}", "act")


def large(value, null):
    return _large(value, null, "mixing", 0.35, 0.7, "{value:.2f}", "act")


@pytest.mark.parametrize("judge", [small, large])
@pytest.mark.parametrize("null", [(), (float("nan"),)])
def test_without_held_out_batches_a_measure_is_grey(judge, null):
    assert judge(3.0, null).light == "grey" and not judge(3.0, null).action


def test_grey_lines_decide_nothing_unless_they_are_all():
    grey, green, red = (Measure(light, light, 0.0, (), "") for light in ("grey", "green", "red"))
    assert verdict((grey, green)).light == "green" and verdict((grey, red, green)).light == "red"
    assert verdict((grey,)).light == "grey" and "compare" in verdict((grey,)).sentence


@pytest.mark.parametrize(("spec", "said"), [(".0%", "20% to 50%"), (".2f", "0.20 to 0.50")])
def test_the_range_of_held_out_batches_is_written_as_the_number_beside_it(spec, said):
    for judge in (_small, _large):
        line = judge(0.4, (0.5, float("nan"), 0.2), "name", 1.0, 2.0, f"It is {{value:{spec}}}", "act").sentence
        assert line == f"It is {0.4:{spec}} (held-out batches of the reference: {said})."
    assert _small(0.4, (), "name", 1.0, 2.0, f"It is {{value:{spec}}}", "act").sentence == f"It is {0.4:{spec}}."


@given(
    st.dictionaries(
        st.sampled_from(("distance", "preservation", "mixing", "agreement")), st.floats(0.3, 0.9), min_size=1
    )
)
def test_a_green_verdict_names_every_number_that_is_worse_than_all_held_out_batches(values):
    """A reader who compares the lines with their ranges finds in the sentence what he finds there: no more, no less."""
    null = (0.5, 0.7)
    # As they are shown: 49.9 % beside "50% to 70%" reads as 50 %.
    worse = [name for name, v in values.items() if (round(v, 2) > 0.7 if name == "distance" else round(v, 2) < 0.5)]
    lines = [
        (_small if name == "distance" else _large)(v, null, name, 10.0, 20.0, "It is {value:.2f}", "act")
        for name, v in values.items()
    ]
    made = verdict((*lines, Measure("genes", "green", 1.0, (), "")))
    assert made.light == "green" and made.sentence.startswith("You can use this mapping")
    assert [name for name in values if name in made.sentence.partition("within the limit: ")[2]] == worse
    for line in lines:
        word = "more" if line.name == "distance" else "less"
        assert (f"this is {word} than any of them has, but within the limit)." in line.sentence) == (line.name in worse)
    assert ("in the range" in made.sentence) == (not worse)


def test_only_a_green_line_says_that_it_is_within_the_limit():
    amber = _large(0.1, (0.6, 0.6), "mixing", 0.35, 0.7, "{value:.2f}", "act")
    assert amber.light == "amber" and amber.sentence == "0.10 (held-out batches of the reference: 0.60 to 0.60)."


def test_what_was_compared_with_nothing_is_not_said_to_be_in_a_range():
    green, grey = Measure("genes", "green", 1.0, (), ""), Measure("mixing", "grey", 0.1, (0.5,), "")
    for lines in ((green,), (green, grey)):
        said = verdict(lines).sentence
        assert "could be held out" in said and "range" not in said and "use" not in said


def test_lines_are_whole_sentences_that_say_what_was_seen_before_what_to_do():
    """No line begins with a number that has no noun, and each that can ask for care says what to do."""
    for *_, said, action in (DISTANCE, PRESERVATION, MIXING, AGREEMENT):
        assert said[0].isupper() and "{value" in said and not said.startswith("{")
        assert action[0].isupper() and action.endswith(".")


@given(nulls, st.floats(0, 5))
def test_what_held_out_batches_have_is_green(null, value):
    assert all(small(v, null).light == "green" and large(v, null).light == "green" for v in null)
    order = ("green", "amber", "red")
    assert order.index(small(value + 1, null).light) >= order.index(small(value, null).light)
    assert order.index(large(value - 1, null).light) >= order.index(large(value, null).light)


@given(st.integers(2, 8), st.floats(0.01, 2), st.integers(0, 1000))
def test_batches_that_differ_more_say_less_of_the_next(n, factor, seed):
    null = np.random.default_rng(seed).uniform(0.2, 1, n)
    assert beyond(null.mean() + factor * (null - null.mean())) == pytest.approx(factor * beyond(null), rel=1e-6)


def test_a_further_batch_is_within_reach_in_39_of_40_cases():
    rng, inside = np.random.default_rng(0), []
    for _ in range(4000):
        drawn = rng.standard_normal(5)
        inside.append(drawn[4] < drawn[:4].mean() + beyond(drawn[:4]))
    assert abs(np.mean(inside) - 0.975) < 5 * np.sqrt(0.975 * 0.025 / 4000)
