"""The code of docs/add-a-family.md runs, from the first block to the last."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from scgraft.model import families

PAGE = Path(__file__).parents[1] / "docs" / "add-a-family.md"


def test_the_page_runs(monkeypatch, capsys):
    if not PAGE.exists():
        pytest.skip("the docs are not beside the tests")
    monkeypatch.setattr(
        families, "FAMILIES", replace(families.FAMILIES, registered={})
    )  # the family is forgotten again
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, PAGE.name, "exec"), names)
    assert "LungVI" in capsys.readouterr().out and "LungVI" in families.families()
