"""Pre-flight, verdict, placement and the page."""

import json
import re
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import scgraft
from many_cells import many_cells
from scgraft.cli.main import main
from scgraft.cli.text import check_text
from scgraft.errors import BadOption, CorruptFile, NoLabels
from scgraft.judgement.verdict import verdict
from scgraft.mapping.check import cost_of_missing_genes
from scgraft.model.families import families
from scgraft.novelty.score import present_genes
from scgraft.results.figures import density_figure, flow_figure, plain
from scgraft.results.folder import write
from scgraft.results.methods import bibtex, methods
from scgraft.results.page import _number, read_report_data, report, report_html
from scgraft.results.placement import place, published_map
from scgraft.results.summary import summary_of
from scgraft.testing import tiny_query
from scgraft.testing.tiny_model import TinyConfig
from scgraft.values.colours import COLOURS, SILENT, in_order, palette
from scgraft.values.quality import Check, Finding, Measure
from tiny import reference_of

CONFIG = TinyConfig(encode_covariates=True, minified="latent_posterior_parameters", n_cells=60, n_genes=30)
HOSTILE = '</script><script>alert("x")</script>&<img src=x onerror=alert(1)>{{ 7*7 }}'


@pytest.fixture(scope="module")
def demo():
    with as_file(files("scgraft") / "_demo") as folder:
        reference = scgraft.load_reference(folder / "reference")
        query = anndata.read_h5ad(folder / "query.h5ad")
    return reference, query, scgraft.map_query(reference, query, batch_key="well")


def finding(result, name):
    return next(f for f in result.findings if f.name == name)


def test_check_of_a_clean_query(demo):
    reference, query, _ = demo
    result = scgraft.check(reference, query, batch_key="well")
    assert [finding(result, n).grade for n in ("counts", "genes", "batches", "training")] == ["ok"] * 4
    assert "2 new and 0 known" in finding(result, "batches").sentence
    assert finding(result, "resources").values["seconds"] > 0


def test_check_says_what_missing_genes_cost(demo):
    reference, query, _ = demo
    cut = query[:, ::4].copy()
    result = scgraft.check(reference, cut, batch_key="well")
    assert result.grade == "warning" and finding(result, "genes").grade == "warning"
    few = scgraft.check(reference, query[:, ::20].copy(), batch_key="well")
    assert few.grade == "stop" and finding(few, "missing genes").grade == "stop"
    cost = finding(result, "missing genes")
    assert cost.grade == "warning" and max(cost.values["loss"].values()) > 0.05
    aligned = scgraft.align(reference, cut, batch_key="well", min_found=0)
    everything = np.ones(len(reference.schema.genes), bool)
    none, _ = cost_of_missing_genes(reference, "bulk_labels", everything, aligned, 0)
    assert not any(none.values()) and not present_genes(reference, aligned).all()


def test_check_sees_what_is_wrong_with_batches(demo):
    reference, query, _ = demo
    adata = query.copy()
    adata.obs["disease"] = np.where(adata.obs["well"] == "well 7", "sick", "healthy")
    adata.obs["well"] = adata.obs["well"].astype(str).replace("well 7", "well 1")
    adata.obs.iloc[:3, adata.obs.columns.get_loc("well")] = "tiny well"
    adata.obs.iloc[:3, adata.obs.columns.get_loc("disease")] = "other"
    result = scgraft.check(reference, adata, batch_key="well")
    assert "'disease'" in finding(result, "confounding").sentence
    assert (
        "well 1" in finding(result, "known batches").sentence
        and "tiny well" in finding(result, "tiny batches").sentence
    )
    assert finding(scgraft.check(reference, adata), "batch column").action.endswith("well.")
    assert "reads like biology" in finding(scgraft.check(reference, adata, batch_key="disease"), "confounding").sentence


def test_names_that_only_resemble_biology_raise_no_alarm(demo):
    reference, query, _ = demo
    for name in ("lineage", "passage_no", "tissue"):
        adata = query.copy()
        adata.obs[name] = adata.obs["well"].to_numpy()
        found = [f.name for f in scgraft.check(reference, adata, batch_key="well").findings]
        assert ("confounding" in found) == (name == "tissue")


def test_check_shows_hostile_names_harmlessly(demo, tmp_path):
    """A batch that would clear the terminal or forge a line; and the same in JSON."""
    reference, query, _ = demo
    adata = query.copy()
    bad = "\x1b[2Jwell\nSTOP     genes: none"
    adata.obs["well"] = adata.obs["well"].astype(str).replace("well 7", bad)
    adata.write_h5ad(tmp_path / "q.h5ad")
    text = check_text(scgraft.check(reference, adata, batch_key="well"))
    assert "\x1b" not in text and not any(line.startswith("STOP") for line in text.splitlines())
    with as_file(files("scgraft") / "_demo") as folder:
        base = ["check", str(tmp_path / "q.h5ad"), "--reference", str(folder / "reference"), "--batch-key", "well"]
        assert "\x1b" not in CliRunner().invoke(main, base).output
        document = json.loads(CliRunner().invoke(main, [*base, "--json"]).output)
    assert bad in next(f for f in document["findings"] if f["name"] == "batches")["values"]["cells"]


def test_check_stops_at_what_is_not_counts(demo):
    reference, query, _ = demo
    adata = query.copy()
    adata.X = adata.X.astype(np.float32) * 0.37 + 0.11 * (adata.X > 0).astype(np.float32)
    result = scgraft.check(reference, adata, batch_key="well")
    assert result.grade == "stop" and finding(result, "NotCounts").action


def test_check_finds_cells_that_the_reference_lacks(demo):
    reference, query, _ = demo
    adata = query.copy()
    counts = adata.X.toarray()
    own = np.flatnonzero(adata.obs["bulk_labels"] == "CD19+ B")
    rng = np.random.default_rng(0)
    foreign = rng.permutation(counts.sum(axis=0))
    counts[own] = rng.poisson(counts[own].sum(axis=1, keepdims=True) * foreign / foreign.sum())
    adata.X = counts
    found = finding(scgraft.check(reference, adata, batch_key="well"), "unknown cells")
    assert found.grade == "warning" and "not explained" in found.sentence


def test_command_check(demo, tmp_path):
    _, query, _ = demo
    query.write_h5ad(tmp_path / "q.h5ad")
    query[:, ::20].copy().write_h5ad(tmp_path / "cut.h5ad")
    with as_file(files("scgraft") / "_demo") as folder:
        base = ["--reference", str(folder / "reference"), "--batch-key", "well"]
        good = CliRunner().invoke(main, ["check", str(tmp_path / "q.h5ad"), *base, "--json"])
        bad = CliRunner().invoke(main, ["check", str(tmp_path / "cut.h5ad"), *base])
    document = json.loads(good.output)
    assert good.exit_code == {"ok": 0, "repaired": 0, "warning": 11}[document["grade"]]
    assert bad.exit_code == 3 and "STOP" in bad.output and "->" in bad.output


def test_grade_is_the_worst():
    made = [Finding("a", "repaired", "b"), Finding("c", "warning", "d", "e"), Finding("f", "ok", "g")]
    assert Check(tuple(made)).grade == "warning" and Check(()).grade == "ok"
    assert "WARNING  c: d\n         -> e" in check_text(Check(tuple(made)))


def test_verdict_of_a_good_and_of_a_spoilt_mapping(demo):
    reference, query, mapped = demo
    assert mapped.verdict.light == "green" and scgraft.verdict(reference, query, mapped) is mapped.verdict
    spoilt = replace(mapped, verdict=None, latent=replace(mapped.latent, mean=mapped.latent.mean[::-1].copy()))
    labels = scgraft.transfer_labels(reference, spoilt.latent)
    judged = scgraft.verdict(reference, query, replace(spoilt, labels=labels))
    assert judged.light == "red" and all(m.action for m in judged.measures if m.light != "green")
    lights = {m.name: m.light for m in judged.measures}
    assert lights["agreement"] == "red" and lights["preservation"] != "green"


def test_the_worst_measure_decides():
    lines = tuple(Measure(n, light, 0.0, (), "s") for n, light in (("a", "green"), ("b", "amber")))
    assert verdict(lines).light == "amber" and "b" in verdict(lines).sentence and verdict(()).light == "grey"


@given(st.integers(0, 1000), st.integers(1, 30))
def test_cells_are_placed_among_reference_points_and_novel_ones_beside(seed, m):
    rng = np.random.default_rng(seed)
    reference = reference_of(CONFIG)
    points, _, _ = published_map(reference)
    novel = rng.random(m) < 0.4
    placed = place(
        reference, reference.latent.mean[rng.integers(60, size=m)], novel=novel, cluster=rng.integers(3, size=m)
    )
    assert np.array_equal(placed.reference, points) and np.array_equal(placed.tray, novel)
    inside = placed.query[~novel]
    assert (inside >= points.min(axis=0) - 1e-4).all() and (inside <= points.max(axis=0) + 1e-4).all()
    assert (placed.query[novel, 0] > points[:, 0].max()).all()


def test_nothing_is_placed_between_islands():
    reference = reference_of(CONFIG)
    islands = np.where(np.arange(60)[:, None] % 2 == 0, [0.0, 0.0], [100.0, 100.0]).astype(np.float32)
    placed = place(replace(reference, maps={"X_umap": islands}), reference.latent.mean)
    assert set(np.unique(placed.query.round(3)).tolist()) <= {0.0, 100.0}


def test_a_reference_without_a_map_gets_one_that_is_kept(tmp_path):
    reference = replace(reference_of(CONFIG), maps={})
    points, cells, source = published_map(reference, keep=tmp_path)
    assert points.shape == (60, 2) and "no map" in source and len(cells) == 60
    np.save(tmp_path / "umap.npy", points + 1)
    assert np.array_equal(published_map(reference, keep=tmp_path)[0], points + 1)


def test_the_page_escapes_hostile_names_and_asks_for_nothing(tmp_path):
    """Labels, batches, cells and genes are named by strangers."""
    reference = reference_of(CONFIG)
    key = reference.schema.labels_key
    obs = reference.obs.assign(**{key: [f"{HOSTILE}{i % 2}" for i in range(60)]})
    schema = replace(reference.schema, labels=())
    reference = replace(reference, obs=obs, schema=schema, base=replace(reference.base, repo=HOSTILE))
    query = tiny_query(CONFIG, n_cells=50, batches=(HOSTILE, "b"))
    query.obs_names = [f"{HOSTILE}{i}" for i in range(50)]
    query.obs = query.obs[["batch"]].rename(columns={"batch": "sample"})
    mapped = scgraft.map_query(reference, query, batch_key="sample", config=scgraft.FitConfig(max_steps=5))
    write(mapped, query, tmp_path / "out", reference=reference)
    files_written = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*")}
    assert not any(set(name) & set("<>\"'&{}; ") for name in files_written)
    summary = json.loads((tmp_path / "out/summary.json").read_text(encoding="utf-8"))
    assert summary["base"]["repo"] == HOSTILE and HOSTILE in summary["alignment"]["cells_per_batch"]
    assert set(pd.read_csv(tmp_path / "out/labels.csv")["barcode"]) == set(query.obs_names)
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    own = page.replace(__import__("plotly.offline", fromlist=["x"]).get_plotlyjs(), "")
    assert len(re.findall("<script[ >]", own)) == 4 and own.count("</script>") == 4
    assert "<img" not in own and "alert(1)>" not in own and "49" not in re.findall(r"<title>.*</title>", own)[0]
    assert "&lt;/script&gt;" in own and "default-src 'none'" in own
    # plotly's defaults would upload: every button is listed, and there is nowhere to send to.
    assert "showSendToCloud: false" in own and 'plotlyServerURL: ""' in own and "modeBarButtons:" in own
    assert not re.search(r"""(?:src|href)\s*=\s*["']?\s*(?:https?:)?//""", own)


def test_the_page_is_written_again_from_files_alone(demo, tmp_path):
    reference, query, mapped = demo
    out = write(mapped, query.copy(), tmp_path / "out", reference=reference)
    before = (out / "report.html").read_bytes()
    (out / "report.html").unlink()
    result = CliRunner().invoke(main, ["report", str(out)])
    assert result.exit_code == 0 and (out / "report.html").read_bytes() == before
    text = before.decode()
    for heading in (
        "The map",
        "Labels",
        "From query clusters to labels",
        "Receipt of the surgery",
        "Methods and citations, ready to paste",
    ):
        assert heading in text
    stored = anndata.read_h5ad(out / "mapped.h5ad")
    assert np.isfinite(stored.obsm["X_scgraft_map"]).all()
    (out / "summary.json").write_text("{")
    with pytest.raises(CorruptFile, match="not the output"):
        scgraft.report(out)


def test_a_mapping_in_memory_has_the_page_of_its_folder(demo, tmp_path):
    reference, query, mapped = demo
    out = scgraft.write(mapped, query.copy(), tmp_path / "out", reference=reference)
    page = scgraft.report(mapped, tmp_path / "page.html", reference=reference, adata=query)
    assert page.read_bytes() == (out / "report.html").read_bytes()
    assert 'id="map-figure"' not in scgraft.report(mapped, tmp_path / "bare.html").read_text(encoding="utf-8")
    with pytest.raises(BadOption, match="page.html"):
        scgraft.report(mapped)
    stored = pd.read_csv(out / "labels.csv", index_col="barcode")
    pd.testing.assert_frame_equal(stored, mapped.to_frame(), check_dtype=False, rtol=1e-4)


def test_a_mapping_without_labels_has_a_page_too(demo, tmp_path):
    reference, query, mapped = demo
    bare = scgraft.map_query(reference, query, batch_key="well", labels=None, graft=mapped.graft)
    out = write(bare, query.copy(), tmp_path / "out", reference=reference)
    assert "Nothing was calibrated" in (out / "report.html").read_text(encoding="utf-8")
    out = write(bare, query.copy(), tmp_path / "two")
    assert 'id="map-figure"' not in (out / "report.html").read_text(encoding="utf-8")


def test_on_a_density_stand_some_cells_of_every_label():
    rng = np.random.default_rng(0)
    points, label = rng.standard_normal((160_000, 2)), np.where(np.arange(160_000) < 30, "rare <b>", "common")
    label[:7] = "seven"
    figure = density_figure(points, points, np.zeros(len(points), bool), label)
    drawn = {trace.name: np.stack([trace.x, trace.y], axis=1) for trace in figure.data if trace.type == "scatter"}
    assert {name: len(at) for name, at in drawn.items()} == {"common": 4999, "rare &lt;b&gt;": 20, "seven": 7}
    assert np.isin(drawn["seven"].round(3), points[:7].round(3)).all()
    assert len({trace.marker.color for trace in figure.data if trace.type == "scatter"}) == 3
    again = density_figure(points, points, np.zeros(len(points), bool), label)
    assert figure.to_json() == again.to_json()


def test_many_points_become_a_density():
    points = np.random.default_rng(0).standard_normal((200_001, 2)).astype(np.float32)
    figure = density_figure(points, points[:150_000], np.zeros(150_000, bool))
    assert {trace.type for trace in figure.data} == {"heatmap"}


def test_a_page_of_very_many_cells_is_small(demo, tmp_path):
    """A hundred thousand cells with random scores, thirty types, and barcodes of sixteen letters."""
    reference, query, mapped = demo
    out = write(mapped, query.copy(), tmp_path / "out", reference=reference)
    page = report_html(many_cells(read_report_data(out), 100_000))
    assert len(page.encode()) < 8e6


def test_what_the_paragraph_cites_is_in_the_bibtex(demo):
    _, _, mapped = demo
    summary = json.loads(json.dumps(summary_of(mapped)))
    for family in families():
        text = methods(summary | {"base": summary["base"] | {"family": family}})
        entries = bibtex(summary | {"base": summary["base"] | {"family": family}})
        dois = set(re.findall(r"doi:(10\.[^\s;,)]+[^\s;,).])", text))
        assert len(dois) > 4 and dois <= set(re.findall(r"doi = \{(.*)\}", entries))
        assert entries.count("{") == entries.count("}")
    assert "reference 'reference' (a local folder, sha256" in text and "/" not in text.split("sha256")[0]  # no path


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.95, "0.950"), (0.0, "0.00"), (1.0, "1.00"), (12.34, "12.3"), (123.4, "123"), (4567.8, "4,568"), (None, "")],
)
def test_numbers_of_a_column_have_three_digits(value, said):
    assert _number(value) == said


def test_no_page_says_where_the_reference_lies(demo, tmp_path):
    """A page is sent to others: the name of a folder says what they need."""
    reference, _, mapped = demo
    text = report(mapped, tmp_path / "page.html").read_text(encoding="utf-8")
    shown = text[text.index("<body>") : text.index('<script type="text/plain" id="plotly">')]
    home = str(Path(reference.base.repo).parent)
    assert len(home) > 1 and home not in shown and "local" in shown
    for value in (reference, mapped, mapped.graft):
        assert home not in repr(value) and home not in value._repr_html_()


def test_figures_escape_and_cut_names():
    assert plain("<b>") == "&lt;b&gt;" and len(plain("x" * 500)) <= 60
    assert plain("a\nb\u202e\"c'") == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}\"c'"
    figure = flow_figure(np.array(["1", "1", "2"]), np.array(["<a>", "b", "b"]))
    assert "&lt;a&gt;" in figure.data[0].node.label and sum(figure.data[0].link.value) == 3


def test_levels_are_in_order_and_unknown_is_grey():
    assert in_order(np.array(["10", "9", "b", "a", "9"])) == ["9", "10", "a", "b"]
    colours = palette(["b", "unknown", "a"])
    assert colours["a"] == COLOURS[0] and colours["b"] == COLOURS[1] and colours["unknown"] == SILENT


def test_static_figures_return_their_axes(demo):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    reference, query, mapped = demo
    result = mapped.labels["bulk_labels"]
    doubtful = replace(result, unknown=result.unknown | (np.arange(len(result.label)) % 20 == 0))
    mapped = replace(mapped, labels={"bulk_labels": doubtful})
    ax = plt.subplots()[1]
    assert scgraft.pl.map(reference, mapped, ax=ax) is ax and ax.get_legend()
    for color in ("probability", "novelty"):
        assert scgraft.pl.map(reference, mapped, color=color).collections
    with pytest.raises(BadOption, match="'novelty', a column of mapped"):
        scgraft.pl.map(reference, mapped, color="batch")
    shown = [text.get_text() for text in scgraft.pl.map(reference, mapped).get_legend().get_texts()]
    assert shown[-1] == "unknown" and set(shown) <= {*mapped.labels["bulk_labels"].classes, "unknown"}
    bars = scgraft.pl.composition(mapped, query.obs["well"])
    result = mapped.labels["bulk_labels"]
    assert result.unknown.any() and len(bars.patches) == 2 * (len(set(result.label[~result.unknown])) + 1)
    assert bars.get_legend().get_texts()[-1].get_text() == "unknown"
    assert np.allclose(sum(p.get_width() for p in bars.patches), 2)
    assert scgraft.pl.reliability(mapped.calibration["bulk_labels"]).lines
    assert scgraft.pl.novelty(mapped).patches
    bare = replace(mapped, novelty=None)
    with pytest.raises(NoLabels):
        scgraft.pl.novelty(bare)
    with pytest.raises(NoLabels):
        scgraft.pl.composition(mapped, query.obs["well"], labels="absent")
    plt.close("all")


def test_labels_follow_the_hierarchy(demo):
    reference, _, mapped = demo
    fine = reference.obs["bulk_labels"].astype(str)
    obs = pd.DataFrame({"coarse": np.where(fine.str.contains("CD4|CD8"), "T cell", fine), "fine": fine})
    result, parents = mapped.labels["bulk_labels"], scgraft.parents_of(obs, ["coarse", "fine"])
    named, sets = result.resolve(0.05, parents=parents), result.included(0.05)
    within = [
        {parents.get(result.classes[c], result.classes[c]) for c in np.flatnonzero(row)} == {"T cell"} for row in sets
    ]
    several = np.array(within) & (sets.sum(axis=1) > 1)
    assert several.any() and (named[several] == "T cell").all() and not (named[~np.array(within)] == "T cell").any()
