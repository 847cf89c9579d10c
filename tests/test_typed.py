"""A typed project can use every public name: mypy --strict has nothing to say."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import scgraft

HERE = Path(__file__).parent


@pytest.mark.skipif(find_spec("mypy") is None, reason="mypy is not installed (extra dev)")
def test_every_public_name_passes_mypy_strict(tmp_path):
    names = "\n".join(f"name_{i} = scgraft.{name}" for i, name in enumerate(scgraft.__all__))
    (tmp_path / "every_name.py").write_text(f"import scgraft\n\n{names}\nnumber: str = scgraft.FitConfig().seed\n")
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--follow-imports=silent",
        "--config-file=",
        "--ignore-missing-imports",
        "--hide-error-context",
    ]
    command += [
        "--no-error-summary",
        f"--cache-dir={tmp_path / 'cache'}",
        str(tmp_path / "every_name.py"),
        str(HERE / "typed_workflow.py"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent / "src", timeout=540)
    lines = done.stdout.splitlines()
    wrong = [line for line in lines if "every_name.py" in line and "Incompatible types in assignment" in line]
    assert len(wrong) == 1, f"mypy did not see the package: {done.stdout}{done.stderr}"  # it can fail
    assert [line for line in lines if line not in wrong] == []
