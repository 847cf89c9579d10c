"""Importing the package and asking the command for help must be instant: nothing heavy is loaded."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import scgraft

HEAVY = ("torch", "numpy", "pandas", "anndata", "scanpy", "scipy", "huggingface_hub")

# Runs a statement and prints, as the last line, how it ended and which heavy packages it loaded.
PROBE = """
import json, sys
code = 0
try:
    {statement}
except SystemExit as end:
    code = end.code or 0
print(json.dumps([code, sorted(set({heavy!r}) & set(sys.modules))]))
"""

MAIN = "import runpy; sys.argv = ['scgraft', {option!r}]; runpy.run_module('scgraft.cli', run_name='__main__')"


def probe(statement: str) -> tuple[str, int, list[str]]:
    """What a fresh interpreter prints, its exit status, and the heavy packages that it loaded."""
    source = PROBE.format(statement=statement, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    printed, _, last = done.stdout.rstrip("\n").rpartition("\n")
    code, loaded = json.loads(last)
    return printed, code, loaded


def test_probe_sees_what_is_loaded() -> None:
    assert probe("import numpy") == ("", 0, ["numpy"])


def test_import_loads_nothing_heavy() -> None:
    assert probe("import scgraft; dir(scgraft); scgraft.__version__") == ("", 0, [])


@pytest.mark.parametrize(("option", "expected"), [("--help", "Usage: scgraft"), ("--version", scgraft.__version__)])
def test_command_loads_nothing_heavy(option: str, expected: str) -> None:
    printed, code, loaded = probe(MAIN.format(option=option))
    assert (code, loaded) == (0, [])
    assert expected in printed


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_installed_entry_point_loads_nothing_heavy(option: str) -> None:
    _, code, loaded = probe(f"sys.argv = ['scgraft', {option!r}]; from scgraft.cli.main import main; main()")
    assert (code, loaded) == (0, [])


def test_public_functions_stay_functions_when_their_modules_are_imported() -> None:
    statement = (
        "import scgraft, importlib; scgraft.load_reference; "
        "[importlib.import_module(f'scgraft.{m}') for m in set(scgraft._HOME.values())]; "
        "print(all(callable(getattr(scgraft, n)) for n in scgraft._HOME), scgraft.align.__module__)"
    )
    assert probe(statement)[0] == "True scgraft.query.align"


def test_every_name_that_can_be_used_is_listed() -> None:
    """`dir`, completion in a notebook, and `from scgraft import *` know the names that work."""
    assert list(scgraft.__all__) == sorted({*scgraft._HOME, *scgraft._MODULES, "__version__"})


def test_a_whole_mapping_loads_only_what_it_needs(tmp_path) -> None:
    source = (
        "import sys\n"
        "from scgraft.cli.main import main\n"
        f"sys.argv = ['scgraft', 'demo', '--out', {str(tmp_path / 'out')!r}]\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "assert 'torch' in sys.modules\n"
        "extra = {'torch._dynamo', 'torch._inductor', 'scanpy', 'sklearn', 'umap', 'numba', 'scvi'} & set(sys.modules)\n"
        "assert not extra, extra\n"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
