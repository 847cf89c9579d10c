"""Which lines a verdict has, and what of them depends on labels, on a fit, and on how many types the query has."""

from types import SimpleNamespace

import numpy as np
import pytest

from scgraft.judgement import verdict as module
from scgraft.judgement.measures import cluster_preservation
from scgraft.judgement.verdict import DISTANCE, MIXING, _large, _small, measure_quality
from scgraft.values.quality import Measure
from scgraft.values.reference import Latent

# Held-out batches that do not differ widen no limit.
NULL = {
    "distance": (0.5, 0.5),
    "preservation": (0.9, 0.9),
    "misfit": (1.0, 1.0),
    "mixing": (0.9, 0.9),
    "agreement": (0.9, 0.9),
}
VALUE = {"distance": 0.5, "preservation": 0.2, "misfit": 1.2}


@pytest.fixture
def judged(monkeypatch):
    """A verdict on 100 cells whose numbers are given, of which so many have the first of two labels."""
    monkeypatch.setattr(module, "cluster_distance", lambda *a: np.full(100, 0.5))
    monkeypatch.setattr(module, "cluster_preservation", lambda *a: np.array([0.2]))
    monkeypatch.setattr(module, "_vote_numbers", lambda *a: {"mixing": 0.85, "agreement": 0.3})
    monkeypatch.setattr(module, "_did_fitting_help", lambda *a: Measure("fit", "green", 0.0, (), "It helped."))

    def made(first=50, *, key="type", trained=True, value=None):
        monkeypatch.setattr(module, "numbers_of", lambda *a: {**VALUE, **(value or {})})
        novelty = SimpleNamespace(
            novel=np.zeros(100, bool), ambient={}, false_alarms=0.05, dossiers=(), states=(), misfit=1.2,
            mixture=np.ones(100), mixed=np.zeros(100, bool),
        )  # fmt: skip
        labels = {
            "type": SimpleNamespace(label=np.where(np.arange(100) < first, "a", "b"), votes={"latent": 0, "genes": 0})
        }
        query = SimpleNamespace(alignment=SimpleNamespace(found_weight=1.0, n_found=9, n_genes=9))
        classifier = SimpleNamespace(genes=np.ones(9, bool))
        calibration = SimpleNamespace(
            key=key, quality=NULL, classifier=classifier, reliability=np.zeros((0, 3)), evidence=np.ones(9)
        )
        graft = SimpleNamespace(record=SimpleNamespace(trained=trained))
        return measure_quality(
            SimpleNamespace(latent=1), query, graft, None, labels, novelty, None, calibration, None
        )  # fmt: skip

    return made


def test_labels_and_a_fit_bring_lines_of_their_own(judged):
    names = [m.name for m in judged().measures]
    assert names[:4] == ["genes", "distance", "preservation", "reconstruction"] and names[4:6] == [
        "mixing",
        "agreement",
    ]
    assert names[-1] == "fit" and len(set(names)) == len(names) == 11
    without = [m.name for m in judged(trained=False).measures]
    assert without == names[:-1]
    alone = [m.name for m in judged(key="").measures]
    assert alone == [name for name in names if name not in ("mixing", "agreement", "fit")]
    assert judged().distance.shape == (100,) and judged().preservation.tolist() == [0.2]


@pytest.mark.parametrize(("first", "light"), [(50, "red"), (95, "red"), (5, "red"), (96, "grey"), (100, "grey")])
def test_clusters_within_one_type_are_not_judged(judged, first, light):
    lights = {m.name: m.light for m in judged(first).measures}
    assert lights["preservation"] == light and lights["agreement"] == "red" and lights["reconstruction"] == "green"


def test_a_number_that_is_not_known_has_no_line(judged):
    names = [m.name for m in judged(value={"preservation": float("nan")}).measures]
    assert "preservation" not in names and "distance" in names


def test_one_held_out_batch_is_itself_the_limit():
    """How much further ones differ is not known from one: it is taken as nothing, not as NaN."""
    for value, light in ((0.62, "green"), (0.63, "amber"), (1.01, "red")):
        assert _small(value, (0.5,), "distance", *DISTANCE).light == light
    for value, light in ((0.56, "green"), (0.54, "amber")):
        assert _large(value, (0.9,), "mixing", *MIXING).light == light


def test_a_single_cell_has_no_cluster_to_keep():
    cell = Latent(np.zeros((1, 2), np.float32), np.ones((1, 2), np.float32), np.array(["a"]))
    assert np.isnan(cluster_preservation(cell, SimpleNamespace(cluster=np.zeros(1, int)))).all()
