"""A label method that the user chooses: it votes on held-out batches, too, so that its probabilities do not pretend."""

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

import scgraft
from scgraft import LabelMethod, Vote
from scgraft.calibration.calibrate import calibration_of
from scgraft.calibration.condition import own_condition
from scgraft.calibration.store import cache_folder
from scgraft.cli.main import main
from scgraft.errors import BadOption, GraftError
from scgraft.labels import methods
from scgraft.mapping.freeze import map_cells
from scgraft.mapping.frozen_store import load_frozen, save_frozen
from scgraft.mapping.map import learn
from scgraft.numerics.conformal import sharpen
from scgraft.testing import tiny_query, write_hub_folder
from scgraft.testing.tiny_model import TinyConfig

KEY = "cell_type"
CONFIG = TinyConfig(model="SCANVI", encode_covariates=True, minified="latent_posterior_parameters", n_cells=120)
FIT = scgraft.FitConfig(max_steps=2, device="cpu")
BALLOTS = []


def first_class(ballot):
    """Names the first class, and is nearly certain each time."""
    BALLOTS.append(ballot)
    share = np.full((len(ballot.latent.mean), len(ballot.classes)), 0.01 / max(len(ballot.classes) - 1, 1))
    share[:, 0] = 0.99
    return Vote(ballot.classes, share)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    home = tmp_path_factory.mktemp("method")
    folder, adata = write_hub_folder(home / "reference", CONFIG), tiny_query(CONFIG, n_cells=60, batches=("new",))
    adata.write_h5ad(home / "query.h5ad")
    return folder, home / "query.h5ad", adata


@pytest.fixture(scope="module")
def mappings(files, tmp_path_factory):
    """The same query by scgraft's own votes, by the neighbours alone, and by a method that is always sure of one class."""
    folder, _, adata = files
    reference = scgraft.load_reference(folder)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("SCGRAFT_CACHE", str(tmp_path_factory.mktemp("cache")))
        monkeypatch.setattr(methods, "METHODS", replace(methods.METHODS, registered={}))
        scgraft.register_label_method(LabelMethod("first", "the first class; a test", first_class))
        graft = scgraft.fit(reference, scgraft.align(reference, adata, batch_key="batch"), FIT)
        BALLOTS.clear()
        made = {
            name: scgraft.map_query(reference, adata, batch_key="batch", graft=graft, config=FIT, method=name)
            for name in (None, "neighbours", "first")
        }
        yield reference, adata, made


def test_the_method_votes_on_held_out_batches_and_on_the_query(mappings):
    reference, _, made = mappings
    *held_out, asked = BALLOTS
    assert len(held_out) == len(made["first"].calibration[KEY].folds) > 1
    column = reference.schema.batch_key
    for ballot, batches in zip(held_out, made["first"].calibration[KEY].folds, strict=True):
        assert not set(batches) & set(ballot.reference.obs[column].astype(str))  # what is held out, it does not see
        assert ballot.query is not None and ballot.near is not None and ballot.device == "cpu"
    assert asked.reference is reference and len(asked.latent.mean) == 60


def test_its_votes_alone_make_the_labels(mappings):
    _, _, made = mappings
    own, chosen = made[None], made["neighbours"]
    labels, trusted = chosen.labels[KEY], chosen.calibration[KEY]
    assert trusted.method == "neighbours" and own.calibration[KEY].method is None
    assert np.array_equal(labels.votes["method"], labels.votes["latent"])
    expected = sharpen(labels.votes["latent"] * trusted.class_weights, trusted.temperature)
    assert np.allclose(labels.matrix, expected) and labels.pvalues is not None
    assert labels.method.startswith("weighted nearest neighbours") and "calibrated" in labels.method
    assert np.array_equal(labels.votes["genes"], own.labels[KEY].votes["genes"])
    # Whether the mapping is good, and which cells are novel, is another question.
    assert chosen.verdict.light == own.verdict.light
    assert [m.value for m in chosen.verdict.measures] == [m.value for m in own.verdict.measures]
    assert np.array_equal(chosen.novelty.novel, own.novelty.novel)
    assert chosen.summary["label_method"]["name"] == "neighbours" and chosen.summary["label_method"]["calibrated"]
    assert "label_method" not in own.summary


def test_a_method_that_is_sure_and_wrong_is_not_believed(mappings):
    """It says .99 of one class of several; the calibration knows how often that was right."""
    _, adata, made = mappings
    labels, accuracy = made["first"].labels[KEY], made["first"].calibration[KEY].accuracy
    assert labels.votes["method"].max() > 0.98
    right = labels.label == adata.obs[KEY].to_numpy().astype(str)
    assert labels.probability.mean() < right.mean() + 0.25 < 0.9
    assert np.mean([truth in names for truth, names in zip(adata.obs[KEY], labels.sets(0.1), strict=True)]) > 0.8
    assert min(accuracy.values()) < 0.5


def test_pieces_are_judged_as_the_whole(mappings, tmp_path):
    """What a sample taught maps each cell by the same method, also from its folder."""
    reference, adata, made = mappings
    query = scgraft.align(reference, adata, batch_key="batch")
    whole, frozen = learn(
        reference, query, labels="auto", config=FIT, graft=made["neighbours"].graft, method="neighbours",
        calibration=made["neighbours"].calibration,
    )  # fmt: skip
    again = load_frozen(save_frozen(frozen, tmp_path / "frozen"), reference)
    assert again.method == "neighbours" and again.judgement.calibration[KEY].method == "neighbours"
    part = map_cells(reference, again, query, device="cpu")
    assert np.allclose(part.labels[KEY].matrix, whole.labels[KEY].matrix, atol=1e-6)
    assert part.labels[KEY].method == whole.labels[KEY].method
    bare = learn(reference, query, labels="auto", config=FIT, graft=frozen.graft, method="classifier", calibration=None)
    alone = map_cells(reference, bare[1], query, device="cpu")
    assert np.allclose(alone.labels[KEY].matrix, bare[0].labels[KEY].matrix, atol=1e-6) and alone.novelty is None


@pytest.mark.parametrize("method", ["classifier", "prototypes"])
def test_a_model_that_knows_the_answers_cannot_be_calibrated(mappings, method):
    reference, adata, _ = mappings
    for call in (
        lambda: scgraft.map_query(reference, adata, batch_key="batch", config=FIT, method=method),
        lambda: scgraft.calibrate(reference, method=method),
    ):
        with pytest.raises(BadOption, match="cannot be calibrated.*calibration=None"):
            call()
    with pytest.raises(BadOption, match="no label method 'votes'"):
        scgraft.map_query(reference, adata, batch_key="batch", method="votes")


def test_without_a_calibration_its_labels_are_bare_and_say_so(mappings):
    reference, adata, made = mappings
    graft = made[None].graft
    bare = scgraft.map_query(
        reference, adata, batch_key="batch", graft=graft, config=FIT, method="classifier", calibration=None
    )
    assert bare.summary["label_method"] == {
        "name": "classifier", "calibrated": False, "sentence": "the reference model's own classifier",
    }  # fmt: skip
    assert bare.labels[KEY].pvalues is None and bare.verdict is None
    assert scgraft.verdict(reference, adata, bare).light in (
        "green",
        "amber",
        "red",
    )  # of the mapping, by scgraft's votes


def test_a_calibration_is_of_one_method_and_keeps_it(mappings, tmp_path):
    reference, adata, made = mappings
    kept = scgraft.load_calibration(
        scgraft.save_calibration(made["neighbours"].calibration, tmp_path / "calibration"), reference=reference
    )
    assert kept[KEY].method == "neighbours"
    for method, calibration in ((None, kept), ("neighbours", made[None].calibration), ("genes", kept)):
        with pytest.raises(GraftError, match="of the label method"):
            scgraft.map_query(
                reference, adata, batch_key="batch", graft=made[None].graft, config=FIT, method=method,
                calibration=calibration,
            )  # fmt: skip


def test_a_method_of_a_notebook_is_calibrated_anew_each_time(mappings):
    """Tomorrow its name may stand for other code; a method of this package is kept."""
    reference, _, made = mappings
    condition, before = own_condition(reference), len(BALLOTS)
    calibration_of(reference, [KEY], condition, method="first", device="cpu")
    calibration_of(reference, [KEY], condition, method="first", device="cpu")
    assert len(BALLOTS) - before == 2 * len(made["first"].calibration[KEY].folds)
    assert not cache_folder(reference, [KEY], condition, "first").exists()
    assert cache_folder(reference, [KEY], condition, "first") != cache_folder(reference, [KEY], condition)


def test_the_command_line_and_explain(files, tmp_path, monkeypatch):
    monkeypatch.setenv("SCGRAFT_CACHE", str(tmp_path / "cache"))
    folder, query, _ = files

    def run(*arguments):
        done = CliRunner().invoke(main, [str(a) for a in arguments])
        return done

    given = ["map", query, "--reference", folder, "--batch-key", "batch", "--max-steps", 1, "--no-report"]
    assert run(*given, "--out", tmp_path / "out", "--label-method", "neighbours").exit_code == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["summary"]["label_method"]["name"] == "neighbours"
    why = run("explain", tmp_path / "out", "query0", "--reference", folder)
    assert why.exit_code == 0 and "comes from the method 'neighbours' alone" in why.output
    refused = run(*given, "--out", tmp_path / "other", "--label-method", "classifier")
    assert refused.exit_code == 2 and "cannot be calibrated" in refused.output
