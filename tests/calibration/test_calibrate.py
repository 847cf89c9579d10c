"""Generated cells, the gene classifier, calibration, novelty and explanations, on tiny and on the embedded references."""

import json
from contextlib import nullcontext
from dataclasses import replace
from importlib.resources import as_file, files

import anndata
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

import scgraft
from chance import fewest, most, sigmas
from scgraft.calibration.hold_out import choose_folds, hold_out, subset
from scgraft.calibration.store import cache_folder
from scgraft.errors import BaseMismatch, CorruptFile, FormatTooNew, GraftError, NoLabels, QueryError
from scgraft.expression.generate import counted_cells, generate
from scgraft.expression.residuals import decoder, residuals
from scgraft.labels import classifier
from scgraft.labels.classifier import (
    GENERATED,
    STORED,
    draw_cells,
    expression,
    logistic_regression,
    predict,
    train_classifier,
    training_cells,
    without,
)
from scgraft.labels.votes import blend
from scgraft.novelty.find import find_novelty
from scgraft.novelty.place import HeldOut
from scgraft.novelty.query_graph import QueryGraph, query_graph
from scgraft.novelty.score import distance_to, novelty_score
from scgraft.testing import configs, tiny_query
from scgraft.testing.tiny_model import TinyConfig
from scgraft.values.graft import FitConfig
from scgraft.values.reference import Latent
from tiny import pair, reference_of

CONFIG = TinyConfig(encode_covariates=True, minified="latent_posterior_parameters", n_cells=120, n_genes=40)
FAST = FitConfig(max_steps=20)


@pytest.fixture(scope="module")
def demo():
    with as_file(files("scgraft") / "_demo") as folder:
        reference = scgraft.load_reference(folder / "reference")
        query = anndata.read_h5ad(folder / "query.h5ad")
    return reference, query, scgraft.map_query(reference, query, batch_key="well")


@settings(max_examples=25)
@given(configs())
def test_any_reference_generates_counts(config):
    reference = reference_of(config)
    if reference.latent is None:
        return
    index = np.array([0, 0, 1])
    query = generate(reference, index, seed=3)
    again = generate(reference, index, seed=3)
    assert query.counts.shape == (3, config.n_genes) and (query.counts != again.counts).nnz == 0
    data = query.counts.data
    assert (data >= 0).all() and np.array_equal(data, np.rint(data)) and (query.counts.sum(axis=1) > 0).all()


def test_stored_counts_are_used_where_they_are(tmp_path):
    from scgraft.testing import write_hub_folder

    reference = scgraft.load_reference(write_hub_folder(tmp_path / "r", replace(CONFIG, minified=None)))
    index = np.array([5, 2, 5])
    cells = counted_cells(reference, index)
    stored = anndata.read_h5ad(tmp_path / "r/adata.h5ad").X.toarray()
    assert cells.alignment.counts_from == "stored counts"
    assert np.array_equal(cells.counts.toarray(), stored[index])
    assert counted_cells(reference_of(CONFIG), index).alignment.counts_from == "generated from the stored posterior"


def test_generated_cells_have_the_nominal_library():
    """Expected counts add up to the library size, so the mean over cells does, within what the draws leave."""
    reference = reference_of(replace(CONFIG, gene_likelihood="nb"))
    total = np.asarray(generate(reference, np.arange(100), nominal=5000.0).counts.sum(axis=1)).ravel()
    assert abs(total.mean() - 5000) < sigmas() * total.std(ddof=1) / 10 < 1500


def test_logistic_regression_equals_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 6)).astype(np.float32)
    true = (x @ rng.standard_normal((6, 3)) + rng.standard_normal((200, 3))).argmax(axis=1)
    own = logistic_regression(x, true, np.zeros((3, 7), np.float32), penalty=0.003, iterations=500)
    theirs = LogisticRegression(C=0.003, max_iter=5000, tol=1e-8).fit(x, true)
    assert np.allclose(own[:, :-1], theirs.coef_, atol=2e-4)


@given(st.lists(st.integers(1, 400), min_size=1, max_size=6), st.integers(0, 100))
def test_every_class_is_drawn(sizes, seed):
    codes = np.repeat(np.arange(len(sizes)), sizes)
    drawn = np.bincount(codes[training_cells(codes, seed)], minlength=len(sizes))
    assert (drawn >= 300).all() and drawn.sum() <= 5000 + 300 * len(sizes)


def test_stored_cells_are_taken_once_but_a_hundred_of_every_class():
    codes = np.repeat([0, 1], [7, 450])
    drawn = codes[training_cells(codes, 0, STORED)]
    assert np.bincount(drawn).tolist() == [100, 450]


def test_what_one_draw_teaches_is_averaged():
    reference, query = pair(CONFIG)
    codes, genes = np.arange(120) % 3, np.ones(len(reference.schema.genes), bool)
    made, classifiers = train_classifier(reference, codes, ("a", "b", "c"), seed=5), []
    for seed in range(5, 5 + GENERATED.trainings):
        index = training_cells(codes, seed)
        x = expression(counted_cells(reference, index, seed=seed).counts, genes)
        classifiers.append(logistic_regression(x, codes[index], np.zeros((3, x.shape[1] + 1), np.float32)))
    assert np.allclose(made.coefficient, np.mean(classifiers, axis=0)[:, :-1], atol=1e-6)


def test_what_is_drawn_once_trains_as_what_is_drawn_each_time(monkeypatch):
    reference, _ = pair(CONFIG)
    codes = np.arange(120) % 3
    drawn = draw_cells(reference, codes, seed=5)
    shared = train_classifier(reference, codes, ("a", "b", "c"), seed=5, drawn=drawn)
    alone = train_classifier(reference, codes, ("a", "b", "c"), seed=5)
    assert np.array_equal(shared.coefficient, alone.coefficient) and shared.source == alone.source
    assert np.array_equal(shared.anchors.toarray(), alone.anchors.toarray())
    monkeypatch.setattr(classifier, "stored_counts", lambda reference, index: drawn.counts[index])
    assert draw_cells(reference, codes, seed=5) is None  # nothing is drawn where counts are stored


@given(st.integers(0, 100), st.lists(st.floats(0, 1), min_size=3, max_size=3))
@settings(max_examples=15)
def test_what_is_left_of_the_draws_has_no_held_out_cell_and_what_is_missing_is_drawn_anew(seed, shares):
    reference, _ = pair(CONFIG)
    codes = np.arange(120) % 3
    held = np.random.default_rng(seed).random(120) < np.array(shares)[codes]
    held[:3] = False  # of each class a cell is left
    kept = np.flatnonzero(~held)
    rest = subset(reference, kept)
    drawn = draw_cells(reference, codes, seed=seed)
    left = without(drawn, held, rest, codes[kept], seed=seed)
    old = left.index >= 0
    assert not held[left.index[old]].any() and np.array_equal(left.codes[old], codes[left.index[old]])
    wanted = np.bincount(codes[kept][training_cells(codes[kept], seed)], minlength=3)
    assert np.bincount(left.codes, minlength=3).tolist() == wanted.tolist()
    there = np.bincount(drawn.codes[~held[drawn.index]], minlength=3)
    assert np.bincount(left.codes[old], minlength=3).tolist() == np.minimum(there, wanted).tolist()
    assert left.counts.shape == (len(left.codes), 40) and (left.counts.sum(axis=1) > 0).all()
    rows = {row.tobytes() for row in drawn.counts.toarray()}
    assert all(row.tobytes() in rows for row in left.counts[np.flatnonzero(old)].toarray())


@given(st.integers(0, 1000), st.integers(2, 6))
def test_the_surer_vote_decides(seed, n_classes):
    """Neighbours alone exclude no class; genes do; a vote without an opinion leaves the other's order."""
    genes = np.random.default_rng(seed).dirichlet(np.ones(n_classes), 8).astype(np.float32)
    flat, one = np.full_like(genes, 1 / n_classes), np.eye(n_classes, dtype=np.float32)[[0] * 8]
    assert np.allclose(blend(flat, genes), genes, atol=1e-6)
    assert (blend(genes, flat).argmax(axis=1) == genes.argmax(axis=1)).all()
    assert (blend(one, genes) > 0).all() and np.array_equal(blend(genes, one), one)
    assert np.allclose(blend(one, genes).sum(axis=1), 1, atol=1e-6)


def test_counts_have_a_calibration_of_their_own(monkeypatch, tmp_path):
    monkeypatch.setenv("SCGRAFT_CACHE", str(tmp_path))
    reference = reference_of(CONFIG)
    assert cache_folder(reference, ["a"]) != cache_folder(replace(reference, minified=None), ["a"])


def test_a_class_without_cells_is_never_predicted():
    reference, query = pair(CONFIG)
    codes = np.where(np.arange(120) % 3 == 0, 0, 2)
    made = train_classifier(reference, codes, ("a", "removed", "c"))
    share = predict(made, query.counts)
    assert (share[:, 1] == 0).all() and np.allclose(share.sum(axis=1), 1, atol=1e-5)


@settings(max_examples=8)
@given(st.integers(0, 1000))
def test_a_type_removed_from_the_reference_is_never_predicted(seed):
    reference = reference_of(CONFIG)
    key = reference.schema.labels_key
    removed = reference.obs[key].astype(str).to_numpy()[0]
    rest = subset(reference, reference.obs[key].astype(str).to_numpy() != removed)
    mapped = scgraft.map_query(rest, tiny_query(CONFIG, seed=seed), batch_key="batch", config=FAST)
    result = mapped.labels[key]
    assert removed not in result.classes and removed not in result.label and removed not in result.resolve(0.01)


@settings(max_examples=5)
@given(st.permutations(range(3)), st.integers(0, 1000))
def test_names_and_order_of_classes_change_nothing(order, seed):
    reference = reference_of(CONFIG)
    key = reference.schema.labels_key
    old = np.unique(reference.obs[key].astype(str))[:3]
    name = dict(zip(old, [f"class {i}" for i in order], strict=True))
    renamed = [name.get(label, "other") for label in reference.obs[key].astype(str)]
    schema = replace(reference.schema, labels=())
    other = replace(reference, obs=reference.obs.assign(**{key: renamed}), schema=schema)
    query = tiny_query(CONFIG, n_cells=30, seed=seed)
    given = {"batch_key": "batch", "config": FAST, "labels": [key]}
    first, second = (
        scgraft.map_query(r, query, calibration=scgraft.calibrate(r, [key]), **given).labels[key]
        for r in (replace(reference, schema=schema), other)
    )
    columns = [second.classes.index(name.get(c, "other")) for c in first.classes]
    assert np.allclose(second.matrix[:, columns], first.matrix, atol=2e-3)
    assert np.allclose(second.pvalues[:, columns], first.pvalues, atol=0.06)  # of 41 ranks, two may tie


@pytest.mark.parametrize("n", [1, 2, 129])
def test_any_number_of_cells(n):
    reference = reference_of(CONFIG)
    mapped = scgraft.map_query(reference, tiny_query(CONFIG, n_cells=n), batch_key="batch", config=FAST)
    result = mapped.labels[reference.schema.labels_key]
    assert result.included(0.1).shape == (n, len(result.classes)) and len(mapped.novelty.score) == n
    assert np.isfinite(mapped.novelty.score).all()


@pytest.mark.parametrize("change", [{"n_cells": 4}, {"batches": None}, {"batches": ("b0",)}, {"labels": ("one",)}])
def test_odd_references_calibrate(change):
    reference = reference_of(replace(CONFIG, **change))
    made = scgraft.calibrate(reference)
    assert all(0 <= value.expected_error <= 1 for value in made.values())
    one_batch = change.get("batches", 1) is None or change.get("batches") == ("b0",)
    assert ("single batch" in next(iter(made.values())).guarantee) == one_batch


def test_without_label_columns_only_novelty_is_calibrated():
    reference = reference_of(CONFIG)
    (value,) = scgraft.calibrate(reference, []).values()
    assert value.key == "" and value.classes == () and len(value.novelty) == 120
    with pytest.raises(NoLabels, match="no label column"):
        scgraft.calibrate(reference, ["absent"])
    with pytest.raises(NoLabels, match="nothing to calibrate on"):
        scgraft.calibrate(replace(reference, latent=None))


def test_folds_hold_out_whole_batches():
    reference = reference_of(replace(CONFIG, batches=tuple("abcdefgh")))
    plan = choose_folds(reference, 0)
    assert len(plan) == 5 and sorted(b for batches, _ in plan for b in batches) == list("abcdefgh")
    assert (np.sum([members for _, members in plan], axis=0) == 1).all()
    batches, members = plan[0]
    fold = hold_out(reference, batches, members, seed=0, config=FitConfig(max_steps=100, device="cpu"))
    left = set(fold.rest.obs[reference.schema.batch_key].astype(str))
    assert not left & set(batches) and all(name.startswith("held out: ") for name in fold.graft.batches)


def test_permuting_cells_permutes_labels_sets_and_novelty(demo):
    reference, query, mapped = demo
    order = np.random.default_rng(0).permutation(query.n_obs)
    given = {"graft": mapped.graft, "calibration": mapped.calibration, "batch_key": "well"}
    mixed = scgraft.map_query(reference, query[order].copy(), **given)
    key = "bulk_labels"
    assert np.allclose(mixed.labels[key].matrix, mapped.labels[key].matrix[order], atol=1e-5)
    assert np.array_equal(mixed.labels[key].label, mapped.labels[key].label[order])
    assert np.corrcoef(mixed.novelty.score, mapped.novelty.score[order])[0, 1] > 0.98


def test_calibrated_labels_on_real_cells(demo):
    _, query, mapped = demo
    result, truth = mapped.labels["bulk_labels"], query.obs["bulk_labels"].astype(str).to_numpy()
    code = [result.classes.index(t) for t in truth]
    right = result.label == truth
    # What is declared of these cells, all of types that the reference has: of 40 sets of independent cells one would fail.
    n, seldom = len(truth), 1 / 40
    assert result.included(0.1)[np.arange(n), code].sum() >= fewest(n, 0.9, seldom)
    assert mapped.novelty.novel.sum() <= most(n, 0.05, seldom)
    # As many labels are right as their probabilities promise.
    p = result.probability.astype(float)
    assert right.sum() > p.sum() - sigmas(2 * seldom) * np.sqrt((p * (1 - p)).sum()) and right.mean() > 0.75


def held_out_of(mapped):
    made = mapped.calibration["bulk_labels"]
    return HeldOut(made.novelty, made.distance, made.novelty_class, made.novelty_fold, made.evidence)


def test_cells_far_from_the_reference_raise_novelty_monotonically(demo):
    """A foreign programme mixed into B cells: the more of it, the higher their novelty."""
    reference, adata, mapped = demo
    query = scgraft.align(reference, adata, batch_key="well")
    chosen = np.flatnonzero(mapped.labels["bulk_labels"].label == "CD19+ B")
    rng = np.random.default_rng(0)
    foreign = rng.permutation(np.asarray(query.counts.sum(axis=0)).ravel())
    typical = []
    for share in (0.0, 0.3, 0.6, 0.9):
        counts = query.counts.toarray()
        total = counts[chosen].sum(axis=1, keepdims=True)
        mixed = (1 - share) * counts[chosen] + share * total * foreign / foreign.sum()
        counts[chosen] = rng.poisson(mixed) if share else counts[chosen]
        counts[counts.sum(axis=1) == 0, 0] = 1
        changed = replace(query, counts=csr_matrix(counts.astype(np.float32)))
        latent = scgraft.embed(reference, changed, mapped.graft)
        found = find_novelty(reference, changed, mapped.graft, latent, held_out_of(mapped))
        typical.append(float(np.median(found.score[chosen])))
    assert typical == sorted(typical) and typical[-1] > 2 * typical[0]
    assert found.novel[chosen].mean() > 0.9 and found.dossiers
    assert found.dossiers[0].genes and str(found.dossiers[0].n_cells) in found.dossiers[0].sentence


def test_a_dossier_names_genes_that_its_cells_share(demo):
    """One count of a gene that the model does not expect at all is no marker of the group."""
    reference, adata, mapped = demo
    query = scgraft.align(reference, adata, batch_key="well")
    chosen = np.flatnonzero(mapped.labels["bulk_labels"].label == "CD19+ B")
    counts = query.counts.toarray()
    silent = np.argsort(counts.sum(axis=0), kind="stable")[:20]
    counts[np.ix_(chosen, silent[:8])] += 4  # what they share
    counts[chosen[: len(chosen) // 8], silent[19]] += 400  # what a few of them have, beyond measure
    changed = replace(query, counts=csr_matrix(counts.astype(np.float32)))
    latent = scgraft.embed(reference, changed, mapped.graft)
    found = find_novelty(reference, changed, mapped.graft, latent, held_out_of(mapped))
    genes = [gene for dossier in found.dossiers for gene, _ in dossier.genes]
    assert set(reference.schema.genes[silent[:8]]) & set(genes) and reference.schema.genes[silent[19]] not in genes


@settings(max_examples=30)
@given(st.integers(0, 10_000))
def test_the_farther_from_the_reference_the_more_novel(seed):
    reference, rng = reference_of(CONFIG), np.random.default_rng(seed)
    points = reference.latent.mean
    direction = rng.standard_normal(points.shape[1])
    steps = np.array([0, 4, 12, 36, 108])[:, None] * points.std() / np.linalg.norm(direction)
    away = (points[rng.integers(len(points))] + steps * direction).astype(np.float32)
    distance = distance_to(reference, Latent(away, np.ones_like(away), np.arange(5).astype(str)))
    assert (np.diff(distance) > 0).all()


@given(st.integers(0, 10_000), st.integers(5, 30))
def test_the_less_is_explained_the_more_novel(seed, size):
    """A group whose shared residuals grow: its novelty rises, and that of the others stays below it."""
    rng = np.random.default_rng(seed)
    residual = rng.standard_normal((80, 40)).astype(np.float32)
    shared = rng.standard_normal(40).astype(np.float32)
    group = np.arange(80) < size
    parts = [np.flatnonzero(group == own) for own in group]
    graph = QueryGraph(np.arange(80), np.stack([rng.choice(part, 15) for part in parts]), group.astype(int))
    typical = []
    for strength in (1.0, 2.0, 4.0, 8.0):
        score, _, _ = novelty_score(
            residual + strength * group[:, None] * shared, graph, np.zeros(80, int), np.ones(40, bool)
        )
        typical.append(score[group].mean())
    assert (np.diff(typical) > 0).all() and score[group].min() > score[~group].max()


def test_novelty_is_about_one_where_the_model_is_right():
    reference = reference_of(replace(CONFIG, n_cells=300, gene_likelihood="nb"))
    cells = generate(reference, np.arange(300))
    latent = scgraft.embed(reference, cells)
    graph = query_graph(cells.counts)
    residual = residuals(decoder(reference, cells, None), cells.counts, latent.mean)
    score, _, misfit = novelty_score(residual, graph, cells.codes[:, 0], np.ones(40, bool))
    assert (
        0.3 < np.median(score) < 3 and 0.3 < misfit < 3
    )  # an encoded latent is not the one that the cell was drawn from


def test_graph_of_duplicates_and_of_two_kinds():
    counts = csr_matrix(np.ones((30, 5), np.float32))
    assert query_graph(counts).cluster.shape == (30,)
    rng = np.random.default_rng(0)
    rate = rng.gamma(0.5, size=(2, 60)) * 5
    two = csr_matrix(rng.poisson(np.repeat(rate, 40, axis=0)).astype(np.float32))
    cluster = query_graph(two).cluster
    assert len(set(cluster[:40]) & set(cluster[40:])) == 0


def test_missing_genes_retrain_the_classifier(demo):
    reference, query, mapped = demo
    cut = query[:, : int(0.8 * query.n_vars)].copy()
    small = scgraft.map_query(reference, cut, batch_key="well", calibration=mapped.calibration, config=FAST)
    truth = query.obs["bulk_labels"].astype(str).to_numpy()
    assert small.alignment.missing and (small.labels["bulk_labels"].label == truth).mean() > 0.6


def test_calibrations_are_saved_and_checked(demo, tmp_path):
    reference, _, mapped = demo
    folder = scgraft.save_calibration(mapped.calibration, tmp_path / "c")
    loaded = scgraft.load_calibration(folder, reference=reference)["bulk_labels"]
    own = mapped.calibration["bulk_labels"]
    assert loaded.classes == own.classes and loaded.guarantee == own.guarantee and loaded.quality == own.quality
    assert np.array_equal(loaded.scores, own.scores)
    assert np.array_equal(loaded.classifier.coefficient, own.classifier.coefficient)
    with pytest.raises(BaseMismatch, match="was made for a model"):
        scgraft.load_calibration(folder, reference=replace(reference, base=replace(reference.base, sha256="f" * 64)))
    for cells, refused in (("", False), ("f" * 64, True)):
        other = replace(reference, base=replace(reference.base, cells=cells))
        with pytest.raises(BaseMismatch, match="the file was changed") if refused else nullcontext():
            scgraft.load_calibration(folder, reference=other)
    (path,) = folder.iterdir()
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    document = json.loads(str(arrays["document"]))
    for number, error in ((document["format"] + 1, FormatTooNew), (document["format"] - 1, CorruptFile)):
        np.savez(path, **arrays | {"document": np.array(json.dumps(document | {"format": number}))})
        with pytest.raises(error):
            scgraft.load_calibration(folder)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(CorruptFile, match="cut or damaged"):
        scgraft.load_calibration(folder)
    with pytest.raises(CorruptFile, match="holds no"):
        scgraft.load_calibration(tmp_path / "nowhere")


def test_the_calibration_is_made_once(demo, monkeypatch):
    reference, query, mapped = demo

    def refuse(*args):
        raise AssertionError("calibrated again")

    monkeypatch.setattr("scgraft.calibration.calibrate.calibrate", refuse)
    again = scgraft.map_query(reference, query, batch_key="well", graft=mapped.graft)
    assert np.array_equal(again.labels["bulk_labels"].pvalues, mapped.labels["bulk_labels"].pvalues)


def test_a_calibration_of_other_classes_is_refused(demo):
    reference, query, mapped = demo
    other = {"bulk_labels": replace(mapped.calibration["bulk_labels"], classes=("x",))}
    with pytest.raises(GraftError, match="Leave it out"):
        scgraft.map_query(reference, query, batch_key="well", graft=mapped.graft, calibration=other)


def test_bare_votes_have_no_sets(demo):
    reference, query, mapped = demo
    bare = scgraft.map_query(reference, query, batch_key="well", graft=mapped.graft, calibration=None)
    assert bare.novelty is None and not bare.calibration
    with pytest.raises(NoLabels, match="without a calibration"):
        bare.labels["bulk_labels"].included()
    with pytest.raises(ValueError, match="between 0 and 1"):
        mapped.labels["bulk_labels"].included(5)


def test_explain(demo):
    reference, query, mapped = demo
    name = query.obs_names[0]
    why = scgraft.explain(reference, mapped, name, adata=query)
    result = mapped.labels["bulk_labels"]
    assert (why.label, why.runner_up) == (result.label[0], result.runner_up[0]) and name in why.sentence
    distances = [line[3] for line in why.neighbours]
    assert len(distances) == 5 and distances == sorted(distances)
    assert why.genes and {g for g, _ in why.genes} <= set(reference.schema.genes)
    with pytest.raises(QueryError, match="no cell 'nobody'"):
        scgraft.explain(reference, mapped, "nobody")


def test_explain_says_when_held_out_batches_overrule_the_votes(demo):
    reference, query, mapped = demo
    key, made = next(iter(mapped.calibration.items()))
    label = mapped.labels[key]
    first = blend(label.votes["latent"], label.votes["genes"]).argmax(axis=1)
    sure = int(np.flatnonzero(first == label.matrix.argmax(axis=1))[0])
    assert "votes alone" not in scgraft.explain(reference, mapped, query.obs_names[sure]).sentence
    weights = np.where(np.arange(len(label.classes)) == first[sure], np.float32(1e-9), np.float32(1))
    less = scgraft.map_query(
        reference,
        query,
        batch_key="well",
        graft=mapped.graft,
        calibration={key: replace(made, class_weights=weights)},
    )
    why = scgraft.explain(reference, less, query.obs_names[sure])
    assert why.label != label.label[sure]
    assert f"The votes alone name {label.label[sure]}" in why.sentence and "counts 1e-09 times" in why.sentence


def test_explain_names_what_it_lacks(demo):
    reference, query, mapped = demo
    name = query.obs_names[0]
    with pytest.raises(NoLabels, match="has no labels 'x'"):
        scgraft.explain(reference, mapped, name, labels="x")


def test_annotations_and_table(demo):
    _, query, mapped = demo
    adata = scgraft.annotate(query.copy(), mapped)
    assert {"scgraft_bulk_labels_set", "scgraft_novelty", "scgraft_novel"} <= set(adata.obs)
    assert {"bulk_labels_set", "novelty", "novel", "cluster", "map_distance"} <= set(mapped.to_frame())


def test_every_cluster_is_judged(demo):
    from scgraft.results.summary import cluster_rows

    _, _, mapped = demo
    rows = cluster_rows(mapped)
    assert sum(row["cells"] for row in rows) == len(mapped.latent.cells)
    assert [row["cells"] for row in rows] == sorted((row["cells"] for row in rows), reverse=True)
    assert all(row["distance"] > 0 and row["preservation"] <= 1 and 0 < row["share"] <= 1 for row in rows)
    assert np.median(mapped.verdict.distance) == pytest.approx(mapped.verdict.measures[1].value, rel=1e-5)
    assert cluster_rows(replace(mapped, verdict=None)) == []


def test_log_normalisation_ignores_genes_that_are_left_out():
    counts = csr_matrix(np.array([[1, 3, 96.0]], np.float32))
    assert np.allclose(expression(counts, np.array([True, True, False])), np.log1p([[2500, 7500]]))


def test_held_out_cells_meet_a_sample_of_a_large_reference_with_every_class(monkeypatch):
    """Of each class its share, but so many at least; of a reference that is not larger, all cells."""
    config = replace(CONFIG, n_cells=600, labels=("common", "rare"))
    reference = reference_of(config)
    obs = reference.obs.assign(cell_type=["rare" if i % 50 == 7 else "common" for i in range(600)])
    reference = replace(reference, obs=obs)
    (batches, members), *_ = choose_folds(reference, 0)
    settings = FitConfig(max_steps=5, labels="cell_type", device="cpu")
    assert np.array_equal(hold_out(reference, batches, members, seed=0, config=settings).kept, np.flatnonzero(~members))
    monkeypatch.setattr("scgraft.calibration.hold_out.REST", 100)
    monkeypatch.setattr("scgraft.calibration.hold_out.REST_OF_EACH", 5)
    folds = [hold_out(reference, batches, members, seed=0, config=settings) for _ in range(2)]
    kept = folds[0].kept
    assert np.array_equal(kept, folds[1].kept) and not members[kept].any() and len(np.unique(kept)) == len(kept)
    assert len(folds[0].rest.latent.mean) == len(kept) and 98 <= len(kept) <= 105
    own = obs["cell_type"].iloc[kept]
    n_rare = int(obs["cell_type"].iloc[np.flatnonzero(~members)].eq("rare").sum())
    assert (own == "rare").sum() == min(n_rare, 5)
    assert folds[0].rest.obs["cell_type"].tolist() == own.tolist()
