"""The examples in docstrings run as they are shown, and every public function has one."""

import doctest
import importlib
import inspect

import pytest

import scgraft

FUNCTIONS = sorted(name for name in scgraft.__all__ if inspect.isfunction(getattr(scgraft, name)))
# Methods of the values that do more than hold a field, and what other developers use.
OTHERS = ("scgraft.values.labels:Labels.sets", "scgraft.values.labels:Labels.resolve", "scgraft.testing:example")


def docstring(name: str) -> str:
    home, _, path = name.partition(":")
    found = importlib.import_module(home)
    for part in path.split("."):
        found = getattr(found, part)
    return inspect.getdoc(found) or ""


@pytest.mark.parametrize("name", [*(f"scgraft:{name}" for name in FUNCTIONS), *OTHERS])
def test_the_example_of_a_public_function_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    test = doctest.DocTestParser().get_doctest(docstring(name), {}, name, None, None)
    assert test.examples, f"{name} has no example"
    assert not any(doctest.SKIP in example.options for example in test.examples)
    report: list[str] = []
    failed, _ = doctest.DocTestRunner(verbose=False).run(test, out=report.append)
    assert not failed, "".join(report)
