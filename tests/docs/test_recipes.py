"""The recipes for pipelines, containers and conda: run where the tool is installed, and otherwise held to the program that they call."""

import json
import os
import re
import shutil
import subprocess
import textwrap
import tomllib
from pathlib import Path

import pytest
import yaml

from scgraft.cli.main import main
from scgraft.testing import TinyConfig, tiny_query, write_hub_folder

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "docs" / "recipes"
SHIPPED = [path for path in sorted(RECIPES.rglob("*")) if path.is_file()]
pytestmark = pytest.mark.skipif(not RECIPES.exists(), reason="the documentation is not beside these tests")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_a_recipe_calls_commands_and_options_that_there_are(path):
    text = path.read_text(encoding="utf-8").replace("\\$(", "$(")
    for line in re.findall(r"^.*\bscgraft (?:-\w )?(?:map|describe|demo|gather)\b.*$", text, flags=re.M):
        command = main.commands[re.search(r"scgraft (?:-\w )?(\w+)", line)[1]]
        known = {option for parameter in command.params for option in parameter.opts}
        assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", line)) <= known


@pytest.fixture
def sample(tmp_path):
    config = TinyConfig(encode_covariates=True, minified="latent_posterior_parameters")
    write_hub_folder(tmp_path / "reference", config)
    (tmp_path / "data").mkdir()
    tiny_query(config, n_cells=40).write_h5ad(tmp_path / "data" / "a.h5ad")
    return tmp_path


def test_the_rule_of_snakemake_maps(sample):
    snakemake = os.environ.get("SCGRAFT_SNAKEMAKE") or shutil.which("snakemake")
    if snakemake is None or shutil.which("scgraft") is None:
        pytest.skip("snakemake and scgraft are not both on the path (SCGRAFT_SNAKEMAKE names the first)")
    words = [
        snakemake,
        "--snakefile",
        RECIPES / "Snakefile",
        "--cores",
        "1",
        "--config",
        "reference=reference",
        "samples=a",
    ]
    done = subprocess.run([str(w) for w in [*words, "batch_key=batch"]], cwd=sample, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((sample / "reference.json").read_text())["base"]["family"] == "SCVI"
    assert len((sample / "mapped/a/labels.csv").read_text().splitlines()) == 41


def test_the_module_of_nextflow_maps(sample):
    nextflow = shutil.which("nextflow")
    if nextflow is None or shutil.which("scgraft") is None:
        pytest.skip("nextflow and scgraft are not both on the path")
    module = RECIPES / "scgraft_map" / "main.nf"
    (sample / "run.nf").write_text(
        f"include {{ SCGRAFT_MAP }} from '{module}'\n"
        "workflow { SCGRAFT_MAP(Channel.of([[id: 'a'], file('data/a.h5ad')]), file('reference')) }\n"
    )
    done = subprocess.run([nextflow, "run", "run.nf"], cwd=sample, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(sample.glob("work/*/*/a/labels.csv"))) == 1


def parts_of_the_module() -> dict[str, str]:
    """Sections of the process of Nextflow by name, in their order."""
    text = (RECIPES / "scgraft_map" / "main.nf").read_text(encoding="utf-8")
    assert re.match(r"process SCGRAFT_MAP \{\n", text) and text.rstrip().endswith("}")
    assert text.count("{") == text.count("}") and text.count("(") == text.count(")") and text.count('"""') == 4
    found = re.split(r"^    (input|output|when|script|stub):\n", text, flags=re.M)
    return {"directives": found[0], **dict(zip(found[1::2], found[2::2], strict=True))}


def test_the_module_of_nextflow_has_the_form_of_nf_core_and_says_in_meta_what_it_has():
    parts = parts_of_the_module()
    assert list(parts) == ["directives", "input", "output", "when", "script", "stub"]
    for wanted in ('tag "$meta.id"', "label 'process_", 'conda "${moduleDir}/environment.yml"'):
        assert wanted in parts["directives"]
    meta = yaml.safe_load((RECIPES / "scgraft_map" / "meta.yml").read_text(encoding="utf-8"))
    assert [next(iter(entry)) for entry in meta["output"]] == re.findall(r"emit: (\w+)", parts["output"])
    assert [next(iter(entry)) for entry in meta["input"]] == re.findall(r"(?:val|path)[( ](\w+)", parts["input"])


@pytest.mark.parametrize("section", ["script", "stub"])
def test_the_shell_lines_of_the_module_make_what_it_promises(section, tmp_path):
    """As Nextflow makes them: names put in, the indentation taken out; a stand-in writes what `scgraft map` does."""
    stand_in = tmp_path / "bin" / "scgraft"
    stand_in.parent.mkdir()
    stand_in.write_text(
        '#!/bin/bash\nif [ "$1" = --version ]; then echo "scgraft 0.2.0"; exit; fi\n'
        'test "$*" = "-q map a.h5ad --reference org/name --out a --batch-key well" || exit 3\n'
        "mkdir a && touch a/labels.csv a/report.html\n"
    )
    stand_in.chmod(0o755)
    lines = textwrap.dedent(parts_of_the_module()[section].split('"""')[1])
    names = {
        "query": "a.h5ad",
        "reference": "org/name",
        "prefix": "a",
        "args": "--batch-key well",
        "task.process": "SCGRAFT_MAP",
    }
    lines = re.sub(r"(?<!\\)\$\{([\w.]+)\}", lambda found: names[found[1]], lines).replace("\\$", "$")
    (tmp_path / "command.sh").write_text(lines)
    path = f"{stand_in.parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["bash", "-eu", "command.sh"], cwd=tmp_path, check=True, env=os.environ | {"PATH": path})
    assert {file.name for file in (tmp_path / "a").iterdir()} == {"labels.csv", "report.html"}
    versions = yaml.safe_load((tmp_path / "versions.yml").read_text(encoding="utf-8"))
    assert versions == {"SCGRAFT_MAP": {"scgraft": "0.2.0"}}


def test_recipes_are_well_formed():
    """YAML that YAML reads, scripts in the form that Docker and Apptainer know."""
    conda = (
        (RECIPES / "meta.yaml")
        .read_text(encoding="utf-8")
        .replace("{{ version }}", "0.2.0")
        .replace("{{ PYTHON }}", "python")
    )
    found = yaml.safe_load(re.sub(r"{%.*?%}", "", conda))
    assert found["package"] == {"name": "scgraft", "version": "0.2.0"} and found["about"]["license"] == "BSD-3-Clause"
    for path in sorted((RECIPES / "scgraft_map").glob("*.yml")):
        assert yaml.safe_load(path.read_text(encoding="utf-8"))
    docker = (RECIPES / "Dockerfile").read_text(encoding="utf-8").splitlines()
    words = {line.split()[0] for line in docker if line.strip() and not line.startswith("#")}
    assert words <= {"FROM", "COPY", "ARG", "RUN", "USER", "WORKDIR", "ENV", "ENTRYPOINT", "CMD"}
    parts = re.findall(r"^%(\w+)", (RECIPES / "scgraft.def").read_text(encoding="utf-8"), flags=re.M)
    assert parts == ["files", "post", "runscript", "help"]


def test_hadolint_finds_nothing_in_the_dockerfile():
    hadolint = os.environ.get("SCGRAFT_HADOLINT") or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not on the path (SCGRAFT_HADOLINT names it)")
    done = subprocess.run([hadolint, "--no-color", RECIPES / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_recipe_of_conda_needs_what_the_package_needs():
    renamed = {"pytorch": "torch", "matplotlib-base": "matplotlib"}
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    run = (RECIPES / "meta.yaml").read_text(encoding="utf-8").split("  run:\n")[1].split("\n\n")[0]
    listed = [line.removeprefix("    - ").split(" ", 1) for line in run.splitlines()]
    found = {renamed.get(name, name) + "".join(rest) for name, *rest in listed if name != "python"}
    assert found == {dependency.replace(" ", "") for dependency in needed}
