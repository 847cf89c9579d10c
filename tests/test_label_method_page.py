"""The code of docs/add-a-label-method.md runs, from the first block to the last."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from scgraft.labels import methods

PAGE = Path(__file__).parents[1] / "docs" / "add-a-label-method.md"


def test_the_page_runs(monkeypatch, capsys):
    if not PAGE.exists():
        pytest.skip("the docs are not beside the tests")
    monkeypatch.setattr(methods, "METHODS", replace(methods.METHODS, registered={}))  # the method is forgotten again
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, PAGE.name, "exec"), names)
    assert "nearest mean of a class" in capsys.readouterr().out and "centroid" in methods.label_methods()
    listed = set(re.findall(r"`(\w+)` \(", PAGE.read_text(encoding="utf-8").split("##")[0]))
    monkeypatch.setattr(methods, "METHODS", replace(methods.METHODS, registered={}))
    assert listed == set(methods.label_methods())  # the page names every built-in method
