"""Every block of code on the pages is read, and those that need no network, cluster or container are run as they stand."""

import ast
import inspect
import os
import re
import shutil
import subprocess
import sys
import tomllib
import warnings
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pandas as pd
import pytest

import scgraft
from scgraft.cli.main import main
from scgraft.query.read import read_query
from scgraft.testing.tiny_model import TinyConfig

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
pytestmark = pytest.mark.skipif(not DOCS.exists(), reason="the documentation is not beside these tests")
FENCE = re.compile(r"^ *```([a-z]+)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
# Words of the pages, and what stands for them where a block is run.
STANDS_FOR = {
    "--revision COMMIT ": "", ', revision="COMMIT"': "", "ORG/NAME": "reference", "org/name": "reference", "org/atlas": "reference",
    '"B cell"': '"alpha"', "/data/": "",
}  # fmt: skip
# Blocks that are not run, by what they hold, and why.
NOT_RUN = {
    "tabula-sapiens-lung-scvi": "a reference of the hub; the same lines run on map-a-query with a tiny one",
    "pip install -c constraints.txt": "installs; make demo, the release and the tests of the demo do the same",
    "SLURMCluster": "needs a cluster of SLURM",
    "--scheduler": "needs a scheduler (tests/results/test_cluster.py has one)",
    "docker run": "needs a running docker",
    "HF_TOKEN": "publishes (tests/sharing/test_publish.py does so to a hub of its own)",
    "LAB/GRAFT": "reads from a hub (tests/sharing/test_publish.py has one of its own)",
    "serve(": "serves until it is stopped (tests/app/test_page.py)",
    "benchmarks/mutants.py": "runs the tests of a room once for each mutant",
    "benchmarks/families": "takes minutes, and packages that are no dependencies",
    "make benchmarks": "takes hours, and PYTHON and DIR stand for paths",
    "register_family": "run by tests/test_family_page.py",
    "UnsupportedModel": "run by tests/test_family_page.py",
    "centroid": "run by tests/test_label_method_page.py",
    'method="classifier"': "run by tests/test_label_method_page.py",
    "scgraft card": "the metrics need a reference's counts (tests/cards/test_metrics.py)",
    "--shard": "sixteen jobs (tests/results/test_stream.py has some)",
    "read_lazy": "run by tests/mapping/test_lazy.py, with dask",
}


def blocks(*languages):
    """(page, code, language) of every block of some languages."""
    found = []
    for page in sorted(DOCS.glob("*.md")):
        for language, code in FENCE.findall(page.read_text(encoding="utf-8")):
            if language in languages:
                found.append((page.stem, inspect.cleandoc("\n" + code), language))
    return found


def of(page, *languages, holds=""):
    """The one block of a page that holds some words."""
    (code,) = [c for p, c, _ in blocks(*languages) if p == page and holds in c]
    for word, stand_in in STANDS_FOR.items():
        code = code.replace(word, stand_in)
    return code


def named(found):
    return [f"{page}-{i}" for i, (page, *_) in enumerate(found)]


COMMANDS, CODE = blocks("bash", "sh"), blocks("python")


def test_every_block_is_of_a_language_that_is_looked_at():
    found = {language for page in DOCS.glob("*.md") for language, _ in FENCE.findall(page.read_text(encoding="utf-8"))}
    assert found <= {"python", "bash", "sh", "toml", "r", "dockerfile"}
    for _, code, _ in blocks("toml"):
        assert tomllib.loads(code)["project"]["entry-points"]


@pytest.mark.parametrize(("page", "code", "language"), COMMANDS, ids=named(COMMANDS))
def test_commands_are_right_for_the_shell_and_exist(page, code, language):
    bash = shutil.which("bash")
    if bash and "[--only" not in code:
        done = subprocess.run([bash, "-n"], input=code, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    for line in code.splitlines():
        words = line.split(" #")[0].split()
        if not words or words[0] != "scgraft":
            continue
        words = [word for word in words[1:] if word not in ("-q", "-v")]
        command: click.Command = main
        while isinstance(command, click.Group):
            assert words[0] in command.commands, line
            command = command.commands[words.pop(0)]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, line


def test_shellcheck_finds_nothing_in_the_commands():
    tool = os.environ.get("SCGRAFT_SHELLCHECK") or shutil.which("shellcheck")
    if tool is None:
        pytest.skip("shellcheck is not on the path (SCGRAFT_SHELLCHECK names it)")
    for page, code, _ in blocks("bash"):
        done = subprocess.run([tool, "--shell=bash", "-"], input=code, capture_output=True, text=True)
        assert done.returncode == 0, f"{page}: {done.stdout}"


@pytest.mark.parametrize(("page", "code", "language"), CODE, ids=named(CODE))
def test_python_reads_and_calls_what_there_is_with_arguments_that_there_are(page, code, language):
    for node in ast.walk(ast.parse(code)):
        if not (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "scgraft"):
            continue
        assert hasattr(scgraft, node.attr), node.attr
    for call in [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]:
        home = call.func
        if isinstance(home, ast.Attribute) and isinstance(home.value, ast.Name) and home.value.id == "scgraft":
            known = inspect.signature(getattr(scgraft, home.attr)).parameters
            assert {keyword.arg for keyword in call.keywords} <= set(known), ast.unparse(call)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the files that the pages speak of: `reference`, `query.h5ad`, `big.h5ad`, grafts of two laboratories."""
    work = tmp_path_factory.mktemp("howtos")
    home, adata = scgraft.testing.example()
    shutil.copytree(home, work / "reference")
    for name in ("sample", "donor"):
        adata.obs[name] = adata.obs["batch"].astype(str)
    adata.write_h5ad(work / "query.h5ad")
    adata.write_h5ad(work / "big.h5ad")
    return work


@pytest.fixture(scope="module")
def names(folder):
    """What the pages take as given: the reference, the query, its mapping, and two grafts whose batch has one name."""
    reference, adata = scgraft.load_reference(folder / "reference"), read_query(folder / "query.h5ad")
    kinds = reference.obs["cell_type"].astype(str)
    reference = replace(reference, obs=reference.obs.assign(coarse="cell", fine=kinds))
    mapped = scgraft.map_query(reference, adata, batch_key="sample")
    run = adata.copy()
    run.obs["run"] = "run1"
    one, other = (
        scgraft.map_query(reference, run[rows].copy(), batch_key="run", calibration=None).graft
        for rows in (slice(0, 20), slice(20, 40))
    )
    query = scgraft.align(reference, adata, batch_key="sample")
    return {
        "scgraft": scgraft, "reference": reference, "adata": adata, "mapped": mapped, "graft": mapped.graft, "query": query,
        "graft_a": one, "graft_b": other,
    }  # fmt: skip


RUN = ("map-a-query", "trust", "objective", "open-in-scvi-tools", "share-a-graft", "expression")


def test_every_block_is_run_or_it_is_said_why_not():
    for page, code, _ in CODE + COMMANDS:
        assert page in {*RUN, "pipelines", "any-size"} or any(words in code for words in NOT_RUN), (page, code)


@pytest.mark.parametrize("page", RUN)
def test_the_python_of_a_page_runs(names, folder, monkeypatch, page):
    monkeypatch.chdir(folder)
    given = dict(names)
    given["adata"] = names["adata"].copy()
    for at, code, _ in CODE:
        if at == page:
            for word, stand_in in STANDS_FOR.items():
                code = code.replace(word, stand_in)
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", UserWarning
                )  # the tiny reference's decoder is not to be trusted, and that is said
                exec(code, given)


def bash(code, work, **environment):
    """Run a block in a shell that knows scgraft as this Python's."""
    (work / "bin").mkdir(exist_ok=True)
    program = work / "bin" / "scgraft"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nfrom scgraft.cli.main import run\nsys.argv[0] = 'scgraft'\nrun()\n"
    )
    program.chmod(0o755)
    path = f"{work / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-eu", "-c", code], cwd=work, capture_output=True, text=True, env=os.environ | {"PATH": path} | environment
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_the_commands_run_one_after_the_other(folder):
    """Map, map again as one job of an array, share with another laboratory, export."""
    bash(of("map-a-query", "sh"), folder)
    assert len(pd.read_csv(folder / "mapped/labels.csv")) == 40
    (folder / "samples.txt").write_text("other.h5ad\nbig.h5ad\n")
    bash(of("pipelines", "bash", holds="SBATCH"), folder, SLURM_ARRAY_TASK_ID="2")
    assert len(pd.read_csv(folder / "mapped/big/labels.csv")) == 40
    shutil.rmtree(folder / "model", ignore_errors=True)  # which the page's Python writes too
    bash(of("open-in-scvi-tools", "sh", holds="query.h5ad"), folder)
    assert (folder / "model" / "model.pt").exists()
    for name in "ab":
        shutil.copytree(folder / "mapped", folder / f"lab_{name}", ignore=shutil.ignore_patterns("big"))
    batches = sorted(set(read_query(folder / "query.h5ad").obs["sample"].astype(str)))
    renames = " --rename ".join(f'"2:{name}={name} of lab b"' for name in batches)
    bash(of("share-a-graft", "sh", holds="merge").replace('"2:run1=run1 of lab b"', renames), folder)
    assert len(scgraft.load_graft(folder / "merged").batches) == 2 * len(batches)
    bash(of("share-a-graft", "sh", holds="join"), folder)
    assert read_query(folder / "atlas.h5ad").obs["source"].value_counts().tolist() == [60, 40, 40]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands_after_the_line_of_the_page(folder, shell):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    line = of("pipelines", "bash", holds="eval").split("#")[0]
    if shell == "bash":
        assert "scgraft" in bash(f"{line}\ncomplete -p scgraft", folder)
    made = bash(f"_SCGRAFT_COMPLETE={shell}_source scgraft", folder)
    assert subprocess.run([shell, "-n"], input=made, text=True, capture_output=True).returncode == 0
    asked = {"bash": "bash_complete", "zsh": "zsh_complete", "fish": "fish_complete"}[shell]
    told = bash(
        "scgraft", folder, _SCGRAFT_COMPLETE=asked, COMP_WORDS="scgraft ma", COMP_CWORD="1" if shell != "fish" else "ma"
    )
    assert "map" in told and "match" in told


@pytest.mark.skipif(shutil.which("Rscript") is None, reason="Rscript is not installed")
def test_the_lines_of_r_run_with_seurat_and_singlecellexperiment(tmp_path):
    """An object of Seurat becomes a folder that is read as it was, and gets the labels of a mapping; so does one of Bioconductor."""
    there = subprocess.run(["Rscript", "-e", "library(Seurat); library(SingleCellExperiment)"], capture_output=True)
    if there.returncode:
        pytest.skip("the packages Seurat and SingleCellExperiment of R are not installed")
    adata = scgraft.testing.tiny_query(TinyConfig(), n_cells=30)
    pd.DataFrame(adata.X.toarray().T if hasattr(adata.X, "toarray") else adata.X.T, index=adata.var_names, columns=adata.obs_names).to_csv(tmp_path / "counts.csv")  # fmt: skip
    (tmp_path / "out").mkdir()
    table = pd.DataFrame(
        {"cell type": [f"t{i % 3}" for i in range(30)]}, index=pd.Index(adata.obs_names, name="barcode")
    )
    table.to_csv(tmp_path / "out" / "labels.csv")
    seurat, sce = of("from-r", "r", holds="AssayData"), of("from-r", "r", holds="counts(sce)")
    program = "\n".join([
        'm <- Matrix::Matrix(as.matrix(read.csv("counts.csv", row.names = 1, check.names = FALSE)), sparse = TRUE)',
        'object <- Seurat::CreateSeuratObject(m, assay = "RNA")', seurat, 'file.rename("query", "of_seurat")',
        of("from-r", "r", holds="AddMetaData"), 'stopifnot(identical(unname(object$cell.type), paste0("t", (seq_len(30) - 1) %% 3)))',
        "sce <- SingleCellExperiment::SingleCellExperiment(assays = list(counts = m))", sce, 'file.rename("query", "of_sce")',
        'stopifnot(identical(sce$`cell type`[2], "t1"))',
    ])  # fmt: skip
    (tmp_path / "run.R").write_text(program)
    done = subprocess.run(["Rscript", "run.R"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("of_seurat", "of_sce"):
        read = read_query(tmp_path / name)
        assert (
            read.obs_names.tolist() == adata.obs_names.tolist() and read.var_names.tolist() == adata.var_names.tolist()
        )
        assert np.array_equal(read.X.toarray(), adata.X.toarray() if hasattr(adata.X, "toarray") else adata.X)
