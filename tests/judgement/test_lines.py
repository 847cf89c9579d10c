"""The lines on states, mixtures and queries of one type: what they say, and from where on they warn."""

from types import SimpleNamespace

import numpy as np
import pytest

from scgraft.judgement import lines
from scgraft.judgement import verdict as module
from scgraft.values.quality import Measure


def state(label, shift, *genes):
    return SimpleNamespace(label=label, shift=shift, genes=tuple((gene, 1.0) for gene in genes))


def novelty_with(*states, mixed=0, n=100, looked=True):
    return SimpleNamespace(
        states=states, mixture=np.ones(n if looked else 0) * looked, mixed=np.arange(n if looked else 0) < mixed
    )


def test_a_state_names_its_type_its_shift_and_three_genes():
    made = lines.states(novelty_with(state("T", 2.04, "A", "B", "C", "D"), state("B", 1.5)), placed=True)
    assert "T (errors 2.0 times as large, most in A, B, C), B (errors 1.5 times as large)." in made.sentence
    assert "D" not in made.sentence.split("most in")[1] and "more" not in made.sentence
    assert made.light == "green" and made.value == 2.04 and "stand" in made.action  # a reason to look, not to distrust


@pytest.mark.parametrize(("n", "said"), [(3, "x2"), (4, ", and 1 more."), (6, ", and 3 more.")])
def test_three_states_are_named_and_the_others_are_counted(n, said):
    made = lines.states(novelty_with(*(state(f"x{i}", 5.0 - i / 10) for i in range(n))), placed=True)
    assert said in made.sentence and "x3" not in made.sentence


def test_without_states_or_without_types():
    none, unknown = (lines.states(novelty_with(), placed=placed) for placed in (True, False))
    assert (none.light, unknown.light) == ("green", "grey") and none.value == unknown.value == 1.0
    assert not none.action and not unknown.action


@pytest.mark.parametrize(("mixed", "light"), [(0, "green"), (10, "green"), (11, "amber"), (30, "amber"), (31, "red")])
def test_a_tenth_of_mixed_cells_is_what_droplets_have_and_a_third_is_spots(mixed, light):
    made = lines.mixtures(novelty_with(mixed=mixed))
    assert made.light == light and made.value == mixed / 100 and f"{mixed / 100:.1%}" in made.sentence
    assert bool(made.action) == (light != "green")
    assert lines.mixtures(novelty_with(looked=False)).light == "grey"


@pytest.mark.parametrize(("n", "one"), [(94, False), (95, False), (96, True), (100, True)])
def test_a_query_is_of_one_type_where_95_of_100_cells_have_its_label(n, one):
    assert module._has_one_type(np.where(np.arange(100) < n, "a", "b")) == one
    assert not module._has_one_type(np.zeros(0, str))


def test_a_query_of_one_type_is_not_judged_by_its_clusters():
    made = module._one_type(Measure("preservation", "red", 0.2, (0.9,), "It keeps little.", "Do something."))
    assert (made.light, made.action, made.value, made.null) == ("grey", "", 0.2, (0.9,))
    assert made.sentence.startswith("It keeps little. ") and "not judged" in made.sentence


@pytest.mark.parametrize(
    ("share", "null", "light"),
    [
        (0.0, (0.0, 0.0), "green"), (0.1, (0.0, 0.0), "green"), (0.15, (0.0, 0.0), "amber"), (0.5, (0.0, 0.0), "amber"),
        (0.15, (0.1, 0.0), "green"), (0.25, (0.1, 0.0), "amber"), (0.15, (float("nan"), 0.0), "amber"), (0.15, (), "grey"),
    ],
)  # fmt: skip
def test_ambient_rna_is_compared_with_what_held_out_batches_have(share, null, light):
    made = lines.ambient(SimpleNamespace(ambient={"a": 0.0, "b": share}), null)
    assert made.light == light and made.value == share and bool(made.action) == (light == "amber")
    assert light == "grey" or f"{share:.0%} of the counts" in made.sentence
    assert lines.ambient(SimpleNamespace(ambient={}), (0.0,)).light == "grey"
