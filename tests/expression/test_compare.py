"""Query against reference from latents: nothing where nothing differs, what was planted where it was, and doubts."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scgraft import errors
from scgraft.cards.card import reference_card
from scgraft.cards.metrics import Agreement, ClassMetrics, ModelMetrics
from scgraft.expression.cells import query_cells, reference_cells
from scgraft.expression.compare import calls_at, compare_expression
from scgraft.graft.fit import fit
from scgraft.testing.tiny_model import TinyConfig
from scgraft.values.graft import FitConfig
from tiny import pair, reference_of

CONFIG = TinyConfig(
    minified="latent_posterior_parameters", encode_covariates=True, n_cells=150, gene_likelihood="nb", labels=("A", "B")
)
GOOD = ModelMetrics(
    "corrected",
    {"training": Agreement(0.1, 0.9, 0.8, 0.7)},
    Agreement(0.1, 0.95, 0.9, 0.9),
    {name: ClassMetrics(0.8, 0.2, 0.9, 0.8, 0.9, 0.8, 75) for name in ("A", "B")},
)
QUIET = {"metrics": GOOD, "device": "cpu", "n_pairs": 2000}


def halves(reference, label):
    """The cells of a class in two parts: the second plays the query."""
    cells = reference_cells(reference)
    index = np.flatnonzero(reference.obs["cell_type"].astype(str) == label)
    part = cells.take(index[1::2])
    obs = reference.obs["cell_type"].astype(str).to_numpy(object)
    obs[index[1::2]] = "other half"
    return replace(reference, obs=reference.obs.assign(cell_type=obs)), part


def test_a_class_does_not_differ_from_itself():
    reference, part = halves(reference_of(CONFIG), "A")
    found = compare_expression(reference, part, None, ["A"] * len(part), "A", **QUIET)
    assert found.table["probability"].max() < 0.8 and not found.table["differs"].any()
    assert np.abs(found.table["log2_change"]).max() < 0.6
    assert found.batches == ("b0", "b1") and found.n_query + found.n_reference == 75


def test_two_classes_differ_in_the_genes_that_their_counts_say():
    reference = reference_of(CONFIG)
    b = reference_cells(reference).take(reference.obs["cell_type"].astype(str).to_numpy() == "B")
    found = compare_expression(reference, b, None, ["A"] * len(b), "A", **QUIET)
    back = compare_expression(
        reference,
        reference_cells(reference).take(reference.obs["cell_type"].astype(str).to_numpy() == "A"),
        None, ["B"] * 75, "B", **QUIET,
    )  # fmt: skip
    assert found.table["differs"].any()
    genes = found.table.index
    assert np.allclose(found.table["log2_change"], -back.table.loc[genes, "log2_change"], atol=0.15)
    assert found.table["probability"].is_monotonic_decreasing
    assert np.allclose(found.table["query_frequency"].sum(), 1, atol=1e-4)
    top = found.table.iloc[0]
    assert np.sign(top["log2_change"]) == np.sign(top["query_frequency"] - top["reference_frequency"])
    again = compare_expression(reference, b, None, ["A"] * len(b), "A", **QUIET)
    assert again.table.equals(found.table)


def test_a_query_through_its_graft_and_the_batch_that_it_is_decoded_under():
    reference, query = pair(CONFIG, n_cells=60)
    graft = fit(reference, query, FitConfig(epochs=0, start="random", device="cpu", force=True))
    cells = query_cells(reference, query, graft, device="cpu")
    labels, before = np.array(["A", "B"] * 30), cells.codes.copy()
    common = compare_expression(reference, cells, graft, labels, "A", **QUIET)
    own = compare_expression(reference, cells, graft, labels, "A", batch=None, **QUIET)
    named = compare_expression(reference, cells, graft, labels, "A", batch="new 1", **QUIET)
    assert own.batches == () and named.batches == ("new 1",)
    # Random new columns are a batch effect: it is there under own batches, and gone under common ones.
    assert own.table["log2_change"].abs().mean() > common.table["log2_change"].abs().mean()
    assert np.array_equal(cells.codes, before)


def test_the_cards_quality_is_next_to_the_result_and_a_bad_decoder_is_a_warning():
    reference = reference_of(CONFIG)
    card = str(reference_card(reference, metrics=GOOD))
    cells = reference_cells(reference)
    quiet = compare_expression(replace(reference, card=card), cells, None, ["A"] * 150, "A", device="cpu", n_pairs=50)
    assert quiet.quality.n_cells == 75 and quiet.doubts == ()
    assert "gene F1 0.80, correlation of fold changes 0.90" in str(quiet) and "150 query cells against 75" in str(quiet)
    poor = replace(GOOD, gene_wise=Agreement(0.4, 0.2, 0.2, -0.26))
    with pytest.warns(UserWarning, match="not to be trusted: Gene-wise coefficient of variation: R2 -0.26"):
        found = compare_expression(reference, cells, None, ["A"] * 150, "A", metrics=poor, device="cpu", n_pairs=50)
    assert "Doubt: Gene-wise" in str(found)
    with pytest.warns(UserWarning, match="card has no metrics"):
        bare = compare_expression(
            replace(reference, card=None), cells, None, ["A"] * 150, "A", device="cpu", n_pairs=50
        )
    assert bare.quality is None and "no metrics of this class" in str(bare)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.floats(0, 0.5))
def test_calls_keep_the_expected_error_rate_and_are_as_many_as_can_be(probability, rate):
    p = np.array(probability)
    called = calls_at(p, rate)
    if called.any():
        assert (1 - p[called]).mean() <= rate + 1e-12
        assert p[called].min() >= p[~called].max(initial=0)
    more = np.sort(p)[::-1][: called.sum() + 1]
    if len(more) > called.sum():
        assert (1 - more).mean() > rate - 1e-12


def test_named_errors():
    reference = reference_of(CONFIG)
    cells = reference_cells(reference)
    with pytest.raises(errors.NoLabels, match="No query cell is labelled 'A'; there are x"):
        compare_expression(reference, cells, None, ["x"] * 150, "A", **QUIET)
    with pytest.raises(errors.NoLabels, match="No reference cell is labelled 'C'"):
        compare_expression(reference, cells, None, ["C"] * 150, "C", **QUIET)
    with pytest.raises(errors.NoLabels, match="no label column 'absent'"):
        compare_expression(reference, cells, None, ["A"] * 150, "A", labels="absent", **QUIET)
    with pytest.raises(errors.UnknownBatch):
        compare_expression(reference, cells, None, ["A"] * 150, "A", batch="b9", **QUIET)
