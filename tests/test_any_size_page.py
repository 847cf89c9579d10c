"""What docs/any-size.md tells to run can be run."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "any-size.md"


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_scripts_have_the_syntax_of_bash():
    scripts = re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert any(script.startswith("#!/bin/bash\n#SBATCH") for script in scripts)
    for script in scripts:
        found = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
        assert found.returncode == 0, found.stderr
