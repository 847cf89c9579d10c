"""Where each line of the verdict turns amber and red: the limits as numbers, written down once more."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scgraft.judgement import lines
from scgraft.judgement import verdict as module
from scgraft.judgement.lines import reconstruction
from scgraft.judgement.measures import mixing
from scgraft.judgement.verdict import AGREEMENT, DISTANCE, MIXING, PRESERVATION, _large, _small
from scgraft.judgement.verdict import verdict as judged
from scgraft.numerics.neighbors import Neighbours
from scgraft.values.quality import Measure
from scgraft.values.reference import BaseId, Latent, Reference, Schema

EQUAL = (0.5, 0.5, 0.5)  # held-out batches that do not differ widen no limit


@pytest.mark.parametrize(
    ("value", "light"), [(0.5, "green"), (0.62, "green"), (0.63, "amber"), (0.99, "amber"), (1.01, "red")]
)
def test_the_distance_may_be_a_quarter_above_the_worst_held_out_batch_and_twice_it_is_red(value, light):
    made = _small(value, EQUAL, "distance", *DISTANCE)
    assert made.light == light and bool(made.action) == (light != "green")


@pytest.mark.parametrize(
    ("limits", "amber", "red"), [(PRESERVATION, 0.15, 0.35), (MIXING, 0.35, 0.7), (AGREEMENT, 0.1, 0.3)]
)
def test_shares_may_be_below_the_worst_held_out_batch_by_so_much(limits, amber, red):
    null = (0.9, 0.9)
    for value, light in ((0.9, "green"), (0.9 - amber + 0.01, "green"), (0.9 - amber - 0.01, "amber")):
        assert _large(value, null, "name", *limits).light == light
    for value, light in ((0.9 - red + 0.01, "amber"), (0.9 - red - 0.01, "red")):
        made = _large(value, null, "name", *limits)
        assert made.light == light and made.action == limits[3]


@given(st.lists(st.floats(0.2, 1), min_size=2, max_size=6), st.integers(0, 1000))
def test_the_worst_held_out_batch_or_what_a_further_one_may_have(null, seed):
    """Whichever is farther: the worst of those seen, or the 39th of 40 further ones by Student's t."""
    from scipy.stats import t

    n, mean, spread = len(null), np.mean(null), np.std(null, ddof=1)
    reach = t.ppf(0.975, n - 1) * spread * np.sqrt(1 + 1 / n)
    high, low = max(max(null), mean + reach), min(min(null), mean - reach)
    for inside, outside in ((high * 1.2499, high * 1.2501), (high * 1.9999, high * 2.0001)):
        lights = [_small(v, tuple(null), "distance", *DISTANCE).light for v in (inside, outside)]
        assert lights in (["green", "amber"], ["amber", "red"])
    for margin in (0.35, 0.7):
        lights = [_large(low - margin + s, tuple(null), "mixing", *MIXING).light for s in (1e-4, -1e-4)]
        assert lights in (["green", "amber"], ["amber", "red"])


@pytest.mark.parametrize(
    ("value", "null", "light"),
    [
        (1.99, (1.0,), "green"), (1.99, (), "grey"), (2.01, (), "amber"), (4.99, (), "amber"), (5.01, (), "red"),
        (1.99, (float("nan"),), "grey"), (2.01, (1.0,), "amber"),
        # Real held-out cells that the model misfits allow half as much again, and twice as much.
        (4.4, (3.0, 1.0), "green"), (4.6, (3.0, 1.0), "amber"), (5.9, (3.0, 1.0), "amber"), (6.1, (3.0, 1.0), "red"),
    ],
)  # fmt: skip
def test_the_misfit_has_limits_of_its_own(value, null, light):
    made = reconstruction(value, null)
    assert made.light == light and bool(made.action) == (light in ("amber", "red")) and f"{value:.2f}" in made.sentence


def query_with(share, n_found=90, n_genes=100):
    return SimpleNamespace(alignment=SimpleNamespace(found_weight=share, n_found=n_found, n_genes=n_genes))


def calibration_with(right, genes=(True, False)):
    table = np.zeros((0, 3)) if right is None else np.array([[0.9, right, 30.0], [0.5, right, 10.0]])
    return SimpleNamespace(reliability=table, classifier=SimpleNamespace(genes=np.array(genes)))


@pytest.mark.parametrize(("share", "light"), [(0.96, "green"), (0.94, "amber"), (0.76, "amber"), (0.74, "red")])
@pytest.mark.parametrize("calibration", [calibration_with(None), calibration_with(0.99, (True, True))])
def test_missing_genes_are_guessed_from_their_weight_where_their_cost_is_not_measured(share, light, calibration):
    made = module._genes(query_with(share), calibration)
    assert made.light == light and "90 of 100 genes" in made.sentence and made.value == share


@pytest.mark.parametrize(("right", "light"), [(0.96, "green"), (0.94, "amber"), (0.81, "amber"), (0.79, "red")])
def test_missing_genes_are_judged_by_what_held_out_cells_lose(right, light):
    """Whatever their weight: half of the genes may cost nothing, and a twentieth much."""
    for share in (0.5, 0.99):
        made = module._genes(query_with(share), calibration_with(right))
        assert made.light == light and f"{right:.1%}" in made.sentence


def novelty_with(n_novel, dossiers=0, n=1000, false_alarms=0.05):
    return SimpleNamespace(novel=np.arange(n) < n_novel, false_alarms=false_alarms, dossiers=("group",) * dossiers)


@pytest.mark.parametrize(
    ("n_novel", "dossiers", "light"),
    [(0, 0, "green"), (100, 0, "green"), (101, 0, "amber"), (10, 1, "amber"), (500, 0, "amber"), (501, 2, "red")],
)
def test_twice_the_declared_false_alarms_are_allowed_and_half_of_the_query_is_red(n_novel, dossiers, light):
    made = lines.unexplained(novelty_with(n_novel, dossiers), judged=True)
    assert lines.unexplained(novelty_with(n_novel, dossiers), judged=False).light == "grey"
    assert made.light == light and made.value == n_novel / 1000 and f"{dossiers} unknown group" in made.sentence


def test_the_verdict_is_the_worst_light_and_names_its_lines():
    lines = tuple(
        Measure(name, light, 0.0, (), "") for name, light in zip("abc", ("green", "amber", "amber"), strict=True)
    )
    made = judged(lines)
    assert made.light == "amber" and made.sentence.endswith(": b, c.")
    red = judged((*lines, Measure("d", "red", 0.0, (), "")))
    assert red.light == "red" and red.sentence.endswith(": d.")


def fitting(agreed_before, agreed_after, mixing_gain, n=400):
    """The line of the verdict on the fit, for a query of which some cells agreed with the genes before, and some after."""
    rng = np.random.default_rng(0)
    points = rng.standard_normal((100, 2)).astype(np.float32)
    codes = np.arange(100) % 2
    latent = Latent(points, np.ones_like(points), codes.astype(str))
    schema = Schema(np.array(["g"]), "b", ("0",), "type", (), None)
    obs = pd.DataFrame({"type": np.array(["x", "y"])[codes]}, index=[f"r{i}" for i in range(100)])
    reference = Reference(BaseId("org/name", "local", "0" * 64, "SCVI"), schema, None, {}, latent, obs)
    genes = np.arange(n) % 2
    before, after = (
        np.where(np.arange(n) < round(share * n), genes, 1 - genes) for share in (agreed_before, agreed_after)
    )
    cells = rng.standard_normal((n, 2)).astype(np.float32)
    found = Neighbours(np.stack([before, before + 2], axis=1), np.ones((n, 2), np.float32))  # two cells of the class
    start = module.Start(
        Latent(cells, np.ones_like(cells), genes.astype(str)), SimpleNamespace(found=found), np.arange(n), genes
    )
    mixed = mixing(latent, start.latent, codes, before)
    made = module._did_fitting_help(reference, "type", np.eye(2)[after], start, {"mixing": mixed + mixing_gain})
    assert made.value == pytest.approx(agreed_after - agreed_before)
    return made


@pytest.mark.parametrize(
    ("before", "after", "mixing_gain", "light", "word"),
    [
        (0.8, 0.82, 0.0, "green", "helped"),
        (0.8, 0.805, 0.0, "green", "changed little"),
        (0.8, 0.805, 0.06, "green", "helped"),
        # Two standard errors of 400 cells, 0.04, may be lost by chance; at certainty one in a hundred.
        (0.8, 0.765, 0.0, "green", "changed little"),
        (0.8, 0.755, 0.0, "amber", "did not help"),
        (1.0, 0.9925, 0.0, "green", "changed little"),
        (1.0, 0.9875, 0.0, "amber", "did not help"),
        (0.8, 0.7, 0.11, "green", "helped"),
    ],
)
def test_a_fit_is_asked_whether_it_helped(before, after, mixing_gain, light, word):
    made = fitting(before, after, mixing_gain)
    assert made.light == light and f"Fitting {word}" in made.sentence and bool(made.action) == (light != "green")
