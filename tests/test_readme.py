"""What the README says outside of its numbered claims: its code runs, its commands exist, its lists are those of the code."""

import re
import socket
import subprocess
import sys
from pathlib import Path

import anndata
import click
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import scgraft
from scgraft.cli.main import EXIT_CODES, main
from scgraft.model.families import families

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# The tests of what the README says of names and counts: they would fail if it were wrong.
CHECKED = {
    "Names of genes are matched": {"test_genes_are_matched_in_every_way", "test_every_spelling_is_read"},
    "looked for everywhere": {"test_counts_are_found_wherever_they_are"},
    "recovered from log1p-normalised data where that is provable": {
        "test_counts_are_recovered_from_log1p_exactly",
        "test_a_cell_of_few_values_is_recovered_by_its_total_or_refused",
    },
    "What cannot be used raises an error": {
        "test_what_is_not_counts_is_refused_by_name",
        "test_the_other_species_is_refused",
    },
    "Laboratories can share and merge grafts": {"test_a_merged_graft_embeds_each_query_as_its_own_did"},
    "open the result in scvi-tools": {"test_scvi_tools_agrees_on_an_extended_model"},
    "no code from a download is run": {"test_hostile_files_are_refused_and_run_nothing"},
}


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize(("words", "tests"), CHECKED.items(), ids=[words[:20] for words in CHECKED])
def test_sentences_have_their_tests(words, tests):
    assert words in " ".join(README.split())
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    assert tests <= set(re.findall(r"^def (test_\w+)", "\n".join(sources), re.MULTILINE))


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    """A minified reference, a query, and the folder that `scgraft map` made of them without a network."""
    folder = tmp_path_factory.mktemp("readme")
    reference, adata = scgraft.testing.example()
    adata.obs["sample"] = adata.obs["batch"].astype(str)
    adata.write_h5ad(folder / "query.h5ad")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a network call"))
        args = [
            "map",
            folder / "query.h5ad",
            "--reference",
            reference,
            "--batch-key",
            "sample",
            "--out",
            folder / "mapped",
        ]
        done = CliRunner().invoke(main, [str(a) for a in args])
    assert done.exit_code == 0, done.output
    return reference, folder


def test_the_output_holds_what_the_readme_lists(mapped):
    reference, folder = mapped
    out = folder / "mapped"
    said = README.split("The output folder of `map` holds")[1].split("\n\n")[0]
    named = {name.rstrip("/") for name in re.findall(r"`([\w./]+)`", said)}
    assert named == {"report.html", "mapped.h5ad", "labels.csv", "summary.json", "graft"}
    assert all((out / name).exists() for name in named)
    query, made = anndata.read_h5ad(folder / "query.h5ad"), anndata.read_h5ad(out / "mapped.h5ad")
    assert made.obs_names.tolist() == query.obs_names.tolist() and "X_scgraft" in made.obsm
    table = pd.read_csv(out / "labels.csv", index_col="barcode")
    assert table.index.tolist() == query.obs_names.tolist()
    page = (out / "report.html").read_text(encoding="utf-8")
    assert all(f"<h2>{title}</h2>" in page for title in ("Verdict", "The map", "Labels"))


def test_a_graft_is_a_few_kilobytes_without_counts_and_applies_again(mapped):
    reference, folder = mapped
    files = sorted(path for path in (folder / "mapped/graft").rglob("*") if path.is_file())
    assert sum(path.stat().st_size for path in files) < 20_000
    loaded, query = scgraft.load_reference(reference), anndata.read_h5ad(folder / "query.h5ad")
    graft = scgraft.load_graft(folder / "mapped/graft", reference=loaded)
    # As many numbers as new columns need, whatever the number of cells: there is no room for a count.
    assert {row.shape[-1] for row in graft.rows.values()} == {len(graft.batches)} == {2}
    again = scgraft.map_query(loaded, query, batch_key="sample", graft=graft, calibration=None)
    latent = anndata.read_h5ad(folder / "mapped/mapped.h5ad").obsm["X_scgraft"]
    assert np.allclose(again.latent.mean, latent, atol=1e-5)


def test_the_code_for_a_notebook_runs_and_cells_get_what_is_promised(mapped, capsys):
    """A place, a label with a probability, a set of types, a mark; a verdict, and advice where it is not green; without counts."""
    reference, folder = mapped
    (code,) = blocks("python")
    code = code.replace("scvi-tools/tabula-sapiens-lung-scvi", str(reference)).replace(
        "query.h5ad", str(folder / "query.h5ad")
    )
    names: dict = {}
    exec(code, names)
    query, made = names["query"], names["mapped"]
    assert names["reference"].minified and made.verdict.sentence in capsys.readouterr().out
    assert query.obsm["X_scgraft"].shape[0] == query.n_obs and {"scgraft_cell_type", "scgraft_unknown"} & set(query.obs)
    assert "scgraft_cell_type" in query.obs and "scgraft" in query.uns
    labels = made.labels["cell_type"]
    assert ((labels.probability >= 0) & (labels.probability <= 1)).all() and len(labels.sets()) == query.n_obs
    assert labels.unknown.dtype == bool and made.novelty.novel.dtype == bool
    assert all(m.action for m in made.verdict.measures if m.light in ("amber", "red"))


def test_scvi_tools_is_not_needed(mapped):
    """A whole mapping in a fresh process imports none of scvi-tools, Lightning and pyro, and has the reference's counts nowhere."""
    reference, folder = mapped
    code = (
        "import sys, anndata, scgraft\n"
        f"reference = scgraft.load_reference({str(reference)!r})\n"
        f"query = anndata.read_h5ad({str(folder / 'query.h5ad')!r})\n"
        "scgraft.map_query(reference, query, batch_key='sample', calibration=None)\n"
        "print({'scvi', 'lightning', 'pytorch_lightning', 'pyro', 'scarches'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() == "set()", done.stderr


def command_lines():
    for block in blocks("sh"):
        for line in block.splitlines():
            if line.startswith("scgraft "):
                yield line.split("#")[0].split()[1:]


@pytest.mark.parametrize("words", command_lines(), ids=" ".join)
def test_every_command_and_option_exists(words):
    command: click.Command = main
    while isinstance(command, click.Group):
        name = words.pop(0)
        assert name in command.commands, name
        command = command.commands[name]
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options
    required = {p.opts[0] for p in command.params if isinstance(p, click.Option) and p.required}
    assert required <= set(words)
    assert any(isinstance(p, click.Argument) for p in command.params) or not [
        w for w in words[:1] if not w.startswith("-")
    ]


def test_exit_codes_are_those_of_the_code():
    """Every code that an error has is in the table, and nothing else but those that no error has."""
    rows = re.findall(
        r"^\| (\d+)(?:, (\d+) or (\d+))? \|", README.split("| exit code |")[1].split("\n\n")[0], re.MULTILINE
    )
    listed = {int(code) for row in rows for code in row if code}
    assert listed == {code for _, code in EXIT_CODES} | {0, 1, 2, 9, 11} | {129, 130, 143}


def test_the_families_are_those_that_map():
    (said,) = re.findall(r"Supported are (.*?) \(\[families\]", " ".join(README.split()))
    named = set(re.split(r", | and ", said))
    assert named == {name for name, family in families().items() if family.refusal is None}


def test_the_make_targets_are_there():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {"demo", "test"} == set(re.findall(r"^make (\w+)", "\n".join(blocks("sh")), re.MULTILINE)) <= set(targets)
