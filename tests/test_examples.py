"""The examples in docstrings run as they are shown, and every public function has one."""

import doctest
import importlib
import inspect

import pytest

import scgraft

# Every function among the public names, and among those of the two public modules; a new one is asked for an example by itself.
FUNCTIONS = [
    f"{module.__name__}:{name}"
    for module in (scgraft, scgraft.pl, scgraft.testing)
    for name in sorted(module.__all__)
    if inspect.isfunction(getattr(module, name))
]
# Methods of the values that do more than hold a field, and what other developers use.
OTHERS = (
    *(f"scgraft.values.labels:Labels.{name}" for name in ("included", "sets", "resolve")),
    "scgraft.values.mapping:MappedQuery.to_frame",
    "scgraft.values.description:Description.to_dict",
)


def docstring(name: str) -> str:
    home, _, path = name.partition(":")
    found = importlib.import_module(home)
    for part in path.split("."):
        found = getattr(found, part)
    return inspect.getdoc(found) or ""


@pytest.mark.parametrize("name", [*FUNCTIONS, *OTHERS])
def test_the_example_of_a_public_function_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    test = doctest.DocTestParser().get_doctest(docstring(name), {}, name, None, None)
    assert test.examples, f"{name} has no example"
    assert not any(doctest.SKIP in example.options for example in test.examples)
    report: list[str] = []
    failed, _ = doctest.DocTestRunner(verbose=False).run(test, out=report.append)
    assert not failed, "".join(report)


def test_public_modules_and_their_functions_are_all_looked_at():
    """Nothing public is a function that the list above would not see (a partial, a cached one)."""
    for module in (scgraft, scgraft.pl, scgraft.testing):
        others = [name for name in module.__all__ if not inspect.isfunction(getattr(module, name))]
        assert all(
            inspect.isclass(v) or inspect.ismodule(v) or isinstance(v, str)
            for v in (getattr(module, n) for n in others)
        )
