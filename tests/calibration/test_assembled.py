"""What a calibration is put together from, one number at a time, on a reference of a hundred cells that is held out without a fit."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from scgraft.calibration import calibrate as module
from scgraft.calibration import hold_out as holding
from scgraft.calibration.calibrate import calibrate, calibration_of
from scgraft.calibration.condition import Condition, blanked, own_condition
from scgraft.calibration.hold_out import choose_folds, hold_out
from scgraft.calibration.store import cache_folder, load_calibration
from scgraft.errors import NoLabels
from scgraft.expression.residuals import decoder, residuals
from scgraft.graft.embed import embed
from scgraft.judgement.measures import mapping_numbers
from scgraft.labels.classifier import train_classifier
from scgraft.novelty.mixtures import type_profiles
from scgraft.novelty.score import at_common_depth, novelty_score, present_genes
from scgraft.numerics.conformal import expected_error, fit_temperature, reliability, sharpen
from scgraft.reference.cells import reference_classes
from scgraft.testing.tiny_model import TinyConfig
from scgraft.values.blocks import BlockCounts
from scgraft.values.graft import FitConfig
from tiny import reference_of

KEY = "cell_type"
CONFIG = TinyConfig(
    encode_covariates=True, minified="latent_posterior_parameters", n_cells=96, n_genes=40, batches=("a", "b", "c")
)
NO_FIT = FitConfig(epochs=0, seed=3, device="cpu")


@pytest.fixture(scope="module")
def reference():
    """Three batches; the cells of one type, 'alone', are all of batch a."""
    made = reference_of(CONFIG)
    batch = made.obs[made.schema.batch_key].astype(str).to_numpy()
    labels = made.obs[KEY].astype(str).to_numpy()
    labels[np.flatnonzero(batch == "a")[:6]] = "alone"
    return replace(made, obs=made.obs.assign(**{KEY: labels}))


@pytest.fixture(scope="module")
def assembled(reference):
    """A calibration, its folds, and what the votes of each fold were."""
    folds, votes = [], []
    with pytest.MonkeyPatch.context() as patch:

        def without_fit(*args, config, **more):
            folds.append(hold_out(*args, config=replace(config, epochs=0), **more))
            return folds[-1]

        cast = module._held_out_votes

        def noted(*args):
            votes.append(cast(*args))
            return votes[-1]

        patch.setattr(module, "hold_out", without_fit)
        patch.setattr(module, "_held_out_votes", noted)
        made = calibrate(reference, seed=3, device="cpu", progress=False)
    return made[KEY], folds, votes


def test_probabilities_are_those_that_the_weights_and_the_temperature_give(assembled):
    made, _, votes = assembled
    blended, true = (np.concatenate([part[i] for part in votes]) for i in (0, 1))
    weighted = sharpen(blended * made.class_weights, 1.0)
    assert made.temperature == pytest.approx(fit_temperature(weighted, true))
    matrix = sharpen(weighted, made.temperature)
    own = matrix[np.arange(len(true)), true]
    assert np.allclose(made.scores, 1 - own, atol=1e-6) and np.array_equal(made.score_class, true)
    right = own >= matrix.max(axis=1)
    assert np.allclose(made.reliability, reliability(matrix.max(axis=1), right))
    assert made.expected_error == pytest.approx(expected_error(made.reliability))
    assert made.accuracy == {
        name: pytest.approx(right[true == c].mean()) for c, name in enumerate(made.classes) if (true == c).any()
    }


def test_each_fold_votes_without_the_cells_that_it_holds_out(assembled, reference):
    """And a class that the rest of the reference lacks has no right vote: its cells are not counted."""
    made, folds, votes = assembled
    names, codes = reference_classes(reference, KEY)
    alone = names.tolist().index("alone")
    assert [fold.batches for fold in folds] == list(made.folds) and sorted(sum(made.folds, ())) == ["a", "b", "c"]
    for fold, (matrix, true, numbers) in zip(folds, votes, strict=True):
        known = np.isin(codes[fold.index], codes[fold.kept])
        assert np.array_equal(true, codes[fold.index][known]) and matrix.shape == (known.sum(), len(names))
        assert set(numbers) == {"mixing", "agreement"} and known.all() == ("a" not in fold.batches)
    assert alone not in made.score_class and "alone" not in made.accuracy and "alone" in made.classes


def test_the_null_of_novelty_is_of_cells_whose_class_the_rest_has(assembled, reference):
    made, folds, _ = assembled
    _, codes = reference_classes(reference, KEY)
    seen = [np.isin(codes[fold.index], codes[fold.kept]) for fold in folds]
    for name, of in (("novelty", lambda fold: fold.novelty), ("distance", lambda fold: fold.distance)):
        expected = np.concatenate([of(fold)[own] for fold, own in zip(folds, seen, strict=True)])
        assert np.allclose(getattr(made, name), expected)
    assert (
        made.novelty_class.tolist()
        == np.concatenate([codes[f.index][s] for f, s in zip(folds, seen, strict=True)]).tolist()
    )
    assert made.novelty_fold.tolist() == np.repeat(np.arange(len(folds)), [s.sum() for s in seen]).tolist()
    first = folds[0]
    profiles = type_profiles(first.rest, codes[first.kept], present_genes(first.rest, first.query), device="cpu")
    assert np.allclose(
        made.mixture[: seen[0].sum()], profiles.gain(first.query.counts, first.query.codes[:, 0])[seen[0]]
    )


def test_the_numbers_of_the_verdict_are_there_for_each_fold(assembled):
    made, folds, votes = assembled
    assert set(made.quality) == {"distance", "preservation", "misfit", "mixing", "agreement", "covered", "ambient"}
    for i, (fold, part) in enumerate(zip(folds, votes, strict=True)):
        numbers = mapping_numbers(fold.rest.latent, fold.latent, fold.graph, fold.misfit) | part[2]
        assert {name: made.quality[name][i] for name in numbers} == pytest.approx(numbers, nan_ok=True)
    assert all(0 <= share <= 1 for share in made.quality["covered"])
    assert f"{sum(len(fold.index) for fold in folds)} cells of the reference" in made.guarantee


def test_the_classifier_of_the_calibration_is_trained_on_the_whole_reference(assembled, reference):
    names, codes = reference_classes(reference, KEY)
    expected = train_classifier(reference, codes, tuple(names.tolist()), genes=np.ones(40, bool), seed=3)
    assert np.allclose(assembled[0].classifier.coefficient, expected.coefficient)
    assert assembled[0].classes == assembled[0].classifier.classes == tuple(names.tolist())
    assert assembled[0].base_sha256 == reference.base.sha256 and assembled[0].method is None


def test_a_fold_is_the_held_out_cells_mapped_onto_the_others(reference, monkeypatch):
    batches, members = choose_folds(reference, 0)[0]
    fold = hold_out(reference, batches, members, seed=1, config=NO_FIT)
    assert np.array_equal(fold.index, np.flatnonzero(members)) and np.array_equal(fold.kept, np.flatnonzero(~members))
    assert fold.rest.latent.cells.tolist() == reference.latent.cells[fold.kept].tolist()
    assert np.array_equal(fold.latent.mean, embed(fold.rest, fold.query, fold.graft, device="cpu").mean)
    near = fold.rest.latent.index.near(fold.latent.mean)  # nothing was fitted: before and after are the same
    assert np.allclose(fold.distance, near.distance, rtol=1e-5)
    assert fold.novelty.shape == fold.index.shape and (fold.novelty >= 0).all() and fold.misfit > 0
    monkeypatch.setattr(holding, "CELLS", 7)
    few, other = (hold_out(reference, batches, members, seed=seed, config=NO_FIT).index for seed in (1, 2))
    assert len(few) == 7 and set(few) <= set(fold.index) and np.array_equal(few, np.sort(few))
    assert not np.array_equal(few, other)


def test_held_out_cells_have_the_novelty_that_a_query_s_would_have(reference):
    """Score, markers and misfit of their residuals; distance and score count by how many times the first quartile they are."""
    batches, members = choose_folds(reference, 0)[0]
    fold = hold_out(reference, batches, members, seed=1, config=NO_FIT)
    decode = decoder(fold.rest, fold.query, fold.graft, device="cpu")
    residual = at_common_depth(residuals(decode, fold.query.counts, fold.latent.mean), fold.query.counts)
    anchors, neighbours = fold.graph.anchors, fold.graph.neighbours
    score, markers, misfit = novelty_score(
        residual[anchors], fold.graph, fold.query.codes[:, 0], present_genes(fold.rest, fold.query)
    )
    assert np.allclose(fold.novelty, score) and fold.misfit == pytest.approx(misfit)
    farther = fold.distance / np.quantile(fold.distance, 0.25)
    expected = [
        max(np.mean(markers[anchors[near]]), 1e-6)
        * np.mean(farther[anchors[near]])
        * (s / np.quantile(score, 0.25)) ** 0.25
        for s, near in zip(score, neighbours, strict=True)
    ]
    assert np.allclose(fold.evidence, expected, rtol=1e-4)


def test_held_out_cells_are_measured_as_the_query_was(reference):
    """A fifth of the genes and half of the counts: no count elsewhere, and about half of what there was."""
    genes = np.arange(40) % 5 == 0
    batches, members = choose_folds(reference, 0)[0]
    whole = hold_out(reference, batches, members, seed=1, config=NO_FIT)
    fold = hold_out(reference, batches, members, seed=1, config=NO_FIT, condition=Condition(0.5, genes))
    assert fold.query.counts[:, ~genes].nnz == 0 and fold.query.alignment.n_found == genes.sum()
    kept = np.isin(whole.index, fold.index)
    before, after = whole.query.counts[kept][:, genes].sum(), fold.query.counts.sum()
    assert abs(after - before / 2) < 5 * np.sqrt(before / 4)
    assert len(fold.index) == len(fold.query.cells) == len(fold.latent.mean) == len(fold.novelty)


@pytest.mark.parametrize(("rest", "each"), [(20, 3), (30, 1), (10_000, 1)])
def test_of_many_other_cells_each_class_has_its_share_and_a_few_at_least(reference, monkeypatch, rest, each):
    monkeypatch.setattr(holding, "REST", rest)
    monkeypatch.setattr(holding, "REST_OF_EACH", each)
    members = np.zeros(96, bool)
    members[:10] = True
    kept = holding._other_cells(reference, members, KEY, seed=0)
    others, labels = np.flatnonzero(~members), reference.obs[KEY].to_numpy()
    assert np.array_equal(kept, np.unique(kept)) and not members[kept].any()
    for name in np.unique(labels[others]):
        n = int((labels[others] == name).sum())
        wanted = n if rest >= len(others) else min(n, max(round(rest * n / len(others)), each))
        assert (labels[kept] == name).sum() == wanted
    assert np.array_equal(kept, holding._other_cells(reference, members, KEY, seed=0))


def test_without_labels_novelty_alone_is_calibrated_on_every_held_out_cell(reference, monkeypatch):
    schema = replace(reference.schema, labels_key=None, labels=(), label_levels=())
    folds = []

    def without_fit(*args, config, **more):
        folds.append(hold_out(*args, config=replace(config, epochs=0), **more))
        return folds[-1]

    monkeypatch.setattr(module, "hold_out", without_fit)
    (made,) = calibrate(replace(reference, schema=schema), seed=3, device="cpu").values()
    assert made.key == "" and made.classes == () and not len(made.scores) and made.accuracy == {}
    assert np.allclose(made.novelty, np.concatenate([fold.novelty for fold in folds])) and len(made.novelty) == 96
    assert (made.novelty_class == -1).all() and not made.mixture.any() and len(made.mixture) == 96
    assert set(made.quality) == {"distance", "preservation", "misfit"}


def test_what_was_made_is_kept_for_the_same_cells_alone(reference, assembled, monkeypatch, tmp_path):
    """In the cache by condition, labels and method; damaged, it is made anew."""
    monkeypatch.setenv("SCGRAFT_CACHE", str(tmp_path))
    calls = []

    def counted(reference, keys, **more):
        calls.append(more)
        return {KEY: replace(assembled[0], method=more["method"])}

    monkeypatch.setattr(module, "calibrate", counted)
    condition = own_condition(reference)
    first = calibration_of(reference, [KEY], condition, device="cpu")
    again = calibration_of(reference, [KEY], condition, device="cpu")
    assert len(calls) == 1 and calls[0]["device"] == "cpu" and calls[0]["share"] == 1.0
    assert np.array_equal(first[KEY].scores, again[KEY].scores)
    half = Condition(0.5, condition.genes)
    calibration_of(reference, [KEY], half, device="cpu")
    calibration_of(reference, [KEY], condition, method="neighbours", device="cpu")
    assert len(calls) == 3 and calls[1]["share"] == 0.5 and calls[2]["method"] == "neighbours"
    folders = {
        cache_folder(reference, [KEY], c, m) for c, m in ((condition, None), (half, None), (condition, "neighbours"))
    }
    assert len(folders) == 3 and all(len(list(folder.glob("*.npz"))) == 1 for folder in folders)
    kept = cache_folder(reference, [KEY], condition)
    next(kept.glob("*.npz")).write_bytes(b"cut")
    calibration_of(reference, [KEY], condition, device="cpu")
    assert len(calls) == 4 and set(load_calibration(kept, reference=reference)) == {KEY}


def test_what_cannot_be_calibrated_is_named(reference):
    with pytest.raises(NoLabels, match="no label column 'nothing'"):
        calibrate(reference, ["nothing"])
    with pytest.raises(NoLabels, match="holds no cells"):
        calibrate(replace(reference, latent=None))


def test_a_block_loses_the_features_that_a_query_lacks():
    """Proteins that are not measured have no counts and are marked so, in cells that had them; all or None changes nothing."""
    counts = csr_matrix(np.arange(1.0, 7.0, dtype=np.float32).reshape(2, 3))
    block = BlockCounts(counts, np.array([[True, True, False], [True, True, True]]))
    assert blanked(block, None) is block and blanked(block, np.ones(3, bool)) is block
    made = blanked(block, np.array([True, False, True]))
    assert made.counts.toarray().tolist() == [[1, 0, 3], [4, 0, 6]] and made.counts.nnz == 4
    assert made.measured.tolist() == [[True, False, False], [True, False, True]]
