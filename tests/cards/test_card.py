"""Cards: read in both forms, written so that they read back, linted against their repository."""

import math
import time
from dataclasses import replace

import anndata
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import scgraft
from scgraft import errors
from scgraft.cards.card import Card, graft_card, metric_tables, reference_card
from scgraft.cards.lint import decoder_doubts, lint_card
from scgraft.cards.metrics import Agreement, ClassMetrics, ModelMetrics
from scgraft.cards.reading import parse_card, read_card
from scgraft.cli.main import main
from scgraft.expression.evaluate import evaluate
from scgraft.graft.fit import fit
from scgraft.mapping.load import load_reference
from scgraft.query.align import align
from scgraft.testing import tiny_query, write_hub_folder
from scgraft.testing.tiny_model import TinyConfig
from scgraft.values.graft import FitConfig
from shared_files import shared
from tiny import reference_of

MINI = "latent_posterior_parameters"
CONFIG = TinyConfig(minified=MINI, encode_covariates=True, n_cells=200)
METRICS = ModelMetrics(
    "corrected",
    {"training": Agreement(0.1, 0.9, 0.8, 0.7), "validation": Agreement(0.2, 0.7, 0.6, 0.5)},
    Agreement(0.3, 0.95, 0.9, 0.8),
    {"T|cell": ClassMetrics(0.9, 0.1, 0.8, 0.7, 0.6, math.nan, 120), "B": ClassMetrics(0.1, 1, 0.2, 0.1, 0.5, 0.2, 9)},
    5,
)


def test_the_second_seeds_card_is_read_in_full():
    card = parse_card(shared("golden", "seed1__1.4.2", "README.md").read_text())
    assert card.minified is False and "latent_qzm" in card.registry
    assert card.header["license"] == "cc-by-4.0" and card.tags["model_cls_name"] == "SCVI"
    assert card.parameters["encode_covariates"] is True and card.setup["batch_key"] == "donor_assay"
    assert card.statistics["n_vars"] == 200 and card.training_data is None and card.references == ""
    assert card.metrics.gene_wise.r2 == -0.26 and card.metrics.cell_wise["validation"].r2 == -5.96
    assert card.metrics.diff_exp["B cell"].n_cells == 26 and len(card.metrics.diff_exp) == 12
    assert card.metrics.style == "published"


def test_the_old_form_is_read():
    card = parse_card(shared("golden", "seed0__1.2.1", "README_template_1.2.1.md").read_text())
    assert card.minified is True and card.parameters["n_latent"] == 10 and card.statistics["n_cells"] == 400
    assert card.registry["latent_qzm"] == "adata.obsm['scvi_latent_qzm']" and card.metrics is None
    assert card.training_data is None and card.description == "golden model seed0"


def test_lint_finds_what_is_wrong_with_the_second_seeds_card():
    found = lint_card(load_reference(shared("golden", "seed1__1.4.2")))
    texts = [str(finding) for finding in found]
    assert texts[0].startswith(
        "error: minified: The card says 'Data is Minified: False', but its own data registry has"
    )
    assert any("Gene-wise coefficient of variation: R2 -0.26, below the card's own line of 0.4" in t for t in texts)
    assert any("fewer than 30 cells" in t and "neutrophil (15)" in t for t in texts)
    assert any("annotated:False, but the model has the label column" in t for t in texts)
    assert [f.severity for f in found] == sorted((f.severity for f in found), key=["error", "warning", "note"].index)
    clean = lint_card(load_reference(shared("golden", "seed0__1.4.2")))
    assert not [finding for finding in clean if finding.severity == "error"]


@pytest.mark.parametrize("metrics", [METRICS, replace(METRICS, style="legacy"), None])
def test_what_is_written_reads_back(metrics):
    reference = reference_of(CONFIG)
    card = reference_card(
        reference, description="Cells of\n\na lung.", license="cc-by-4.0", tags=["tissue:lung"], metrics=metrics,
        training_code="https://example.org/code", references="Doe 2024.",
    )  # fmt: skip
    again = parse_card(str(card))
    if metrics is None:
        assert again == card
        return
    assert replace(again, metrics=None) == replace(card, metrics=None)
    assert again.metrics.style == metrics.style and metric_tables(again.metrics) == metric_tables(metrics)


def test_a_card_of_our_own_has_no_contradiction():
    reference = reference_of(CONFIG)
    card = reference_card(reference, description="x", license="mit", metrics=replace(METRICS, diff_exp={}))
    own = replace(reference, card=str(card))
    assert lint_card(own) == ()
    assert "labels" in card.registry and card.minified is True


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ({"minified": False}, "error: minified: The card says 'Data is Minified: False', but the data holds a stored"),
        (
            {"header": {"tags": ["model_cls_name:SCANVI"], "license": "mit"}},
            "error: tags: The tag says model_cls_name:SC",
        ),
        (
            {"header": {"tags": ["scvi_version:0.9"], "license": "mit"}},
            "error: tags: The tag says scvi_version:0.9, and the",
        ),
        ({"header": {"tags": []}}, "warning: licence: The card names no licence"),
        (
            {"parameters": {"n_latent": 99}},
            "error: model parameters: The card says n_latent = 99, and the model's file says 4",
        ),
        (
            {"setup": {"batch_key": "sample"}},
            "error: setup arguments: The card says batch_key = 'sample', and the model's",
        ),
        ({"statistics": {"n_vars": 7}}, "error: statistics: The card says n_vars = 7, and the files hold 30"),
        (
            {"statistics": {"n_cells": 10}},
            "error: metrics: The classes of the metrics have 129 cells together, and the statistics say",
        ),
        ({"description": ""}, "note: description"),
        ({"metrics": None}, "note: metrics: The card has no metrics"),
        ({"metrics": replace(METRICS, style="legacy")}, "note: metrics: The numbers are in the legacy style"),
    ],
)
def test_lint_finds_each_contradiction(change, finding):
    reference = reference_of(CONFIG)
    card = reference_card(reference, description="x", license="mit", metrics=METRICS)
    found = lint_card(replace(reference, card=str(replace(card, **change))))
    assert any(str(f).startswith(finding) for f in found), [str(f) for f in found]


def test_lint_of_files():
    reference = reference_of(CONFIG)
    assert "has no card" in str(lint_card(replace(reference, card=None))[0])
    zero = replace(reference, library=np.zeros_like(reference.library))
    assert any("library size of zero" in str(f) for f in lint_card(zero))
    assert any("no YAML header" in str(f) for f in lint_card(replace(reference, card="hello")))


CELLS = st.sampled_from(["inf", "-inf", "nan", "1e999", "", "|", "x", "-1", "0.5", "9" * 400, "1_0", "\\|"])


@given(st.lists(st.lists(CELLS, max_size=9), max_size=4))
def test_reading_tables_of_metrics_never_fails(rows):
    heading = "**Differential expression**:\n\n| class | gene_f1 | lfc_mae | n_cells |\n|---|---|---|---|\n"
    said = parse_card(heading + "\n".join("| " + " | ".join(row) + " |" for row in rows))
    assert said.metrics is None or all(isinstance(row.n_cells, int) for row in said.metrics.diff_exp.values())


@given(st.text(max_size=300))
def test_reading_never_fails(text):
    assert isinstance(parse_card(text), Card)
    parse_card(
        "---\n" + text + "\n---\n<strong>Model Parameters</strong>\n```json\n" + text + "```\n| a | b |\n" + text
    )


def test_a_hostile_header_runs_nothing(tmp_path):
    evil = f"---\n!!python/object/apply:os.system ['touch {tmp_path}/evil']\n---\n"
    assert parse_card(evil).header == {} and not (tmp_path / "evil").exists()


def test_doubts_about_a_decoder():
    assert decoder_doubts(METRICS, "T|cell") == ()
    assert "no metrics" in decoder_doubts(None)[0]
    doubts = decoder_doubts(METRICS, "B")
    assert "9 cells" in doubts[0] and "correlation 0.20" in doubts[1]
    assert "no differential expression metric for 'NK'" in decoder_doubts(METRICS, "NK")[0]
    low = replace(METRICS, gene_wise=Agreement(0.3, 0.5, 0.9, math.nan))
    assert "squared correlation 0.25, below" in decoder_doubts(low)[0]


def test_evaluate_on_own_counts_and_on_given_ones(tmp_path):
    config = replace(CONFIG, minified=None, gene_likelihood="nb")
    reference = load_reference(write_hub_folder(tmp_path / "counts", config))
    own = evaluate(reference, n_samples=2, device="cpu")
    assert set(own.cell_wise) == {"training", "validation"} and own.style == "corrected"
    assert sum(row.n_cells for row in own.diff_exp.values()) == 200 and own.n_samples == 2
    legacy = evaluate(reference, n_samples=2, device="cpu", style="legacy")
    assert legacy.cell_wise["training"].pearson == pytest.approx(own.cell_wise["training"].pearson)
    stored = load_reference(write_hub_folder(tmp_path / "minified", replace(config, minified=MINI)))
    with pytest.raises(errors.NotCounts, match="holds no counts"):
        evaluate(stored)
    given_counts = evaluate(stored, anndata.read_h5ad(tmp_path / "counts/adata.h5ad"), n_samples=2, device="cpu")
    assert given_counts.gene_wise.r2 == pytest.approx(own.gene_wise.r2, abs=0.05)
    with pytest.raises(errors.NoLabels, match="no column obs"):
        evaluate(reference, labels="absent")
    assert evaluate(reference, labels="batch", n_samples=1, device="cpu").diff_exp.keys() == {"b0", "b1"}


def test_evaluate_without_a_batch_key(tmp_path):
    config = replace(CONFIG, minified=None, batches=None, labels=())
    reference = load_reference(write_hub_folder(tmp_path / "a", config))
    found = evaluate(reference, n_samples=1, device="cpu")
    assert found.diff_exp == {} and not math.isnan(found.gene_wise.r2)


def test_a_graft_has_a_card_of_its_own():
    reference = reference_of(CONFIG)
    adata = tiny_query(CONFIG, batches=("s1", "s2"))
    query = align(reference, adata, batch_key="batch")
    graft = fit(reference, query, FitConfig(max_steps=3, device="cpu"))
    text = str(
        graft_card(graft, cells_per_batch=query.alignment.cells_per_batch, summary={"cells": 40}, license="cc0-1.0")
    )
    card = parse_card(text)
    assert card.header["library_name"] == "scgraft" and card.header["license"] == "cc0-1.0"
    assert "base_model" not in card.header and card.tags["scgraft_format"] == "1"
    assert (
        graft.base.sha256 in text and "| s1 | 20 |" in text and '"objective": "match"' in text and '"cells": 40' in text
    )
    published = replace(graft, base=replace(graft.base, repo="org/atlas", revision="a" * 40))
    assert parse_card(str(graft_card(published))).header["base_model"] == "org/atlas"


def run(*args):
    return CliRunner().invoke(main, ["card", *map(str, args)])


def test_commands(tmp_path):
    folder = write_hub_folder(tmp_path / "reference", replace(CONFIG, minified=None))
    out = tmp_path / "card.md"
    done = run("write", folder, "--out", out, "--license", "mit", "--description", "x", "--metrics")
    assert done.exit_code == 0, done.output
    assert read_card(out).metrics.style == "corrected"
    assert run("write", folder, "--out", out).exit_code == 7
    shown = run("metrics", folder, "--samples", 1, "--style", "legacy")
    assert shown.exit_code == 0 and "Numbers: legacy" in shown.output and "| Mean Absolute Error |" in shown.output
    (folder / "README.md").write_text(out.read_text())
    lint = run("lint", folder)
    assert lint.exit_code == 0 and "error" not in lint.output, lint.output
    (folder / "README.md").write_text(out.read_text().replace("Minified**: False", "Minified**: True"))
    assert run("lint", folder).exit_code == 9
    assert '"severity": "error"' in run("lint", folder, "--json").output


LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
HEADERS = {
    "aliases that stand for a billion values": LAUGHS,
    "an alias": "a: &a x\ntags: [*a]\n",
    "merged keys": "a: &a {b: 1}\nc: {<<: *a}\n",
    "a header without an end": "tags: [" + "x, " * 100_000 + "]\n",
    "nested without an end": "tags: " + "[" * 20_000 + "\n",
    "a date that is none": "date: !!timestamp x\n",
    "a number that is none": "number: !!int ''\n",
    "a bool that is none": "flag: !!bool x\n",
    "bytes that are none": "bytes: !!binary é\n",
    "an object": "x: !!python/object/apply:os.system [echo]\n",
    "a key that is a list": "? [a, b]\n: 1\n",
    "a list": "- a\n- b\n",
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_header_that_cannot_be_read_is_empty_and_the_rest_is_read(kind):
    began = time.thread_time()
    card = scgraft.parse_card(f"---\n{HEADERS[kind]}---\n# Model Description\nText.\n")
    assert dict(card.header) == {} and card.description == "Text." and time.thread_time() - began < 5


def test_a_card_is_written_to_a_file_and_read_from_one(tmp_path):
    card = Card(header={"license": "mit"}, description="Cells.", minified=True)
    path = scgraft.write_card(card, tmp_path / "README.md")
    assert path.read_text() == str(card) and scgraft.read_card(path) == scgraft.parse_card(str(card))
    with pytest.raises(errors.OutputExists):
        scgraft.write_card(card, path)
    scgraft.write_card(replace(card, description="Others."), path, force=True)
    assert scgraft.read_card(str(path)).description == "Others."


def test_a_card_that_is_no_file_is_named(tmp_path):
    for path in (tmp_path, tmp_path / "none", "# Model Description", "x\0y", "x" * 9000):
        with pytest.raises(errors.CorruptFile, match="parse_card reads a text"):
            scgraft.read_card(path)
