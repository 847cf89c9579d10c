"""The rules of the house, checked on the syntax of every module: sizes, ranks, signatures, docstrings."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import scgraft

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "scgraft"
API = ROOT / "docs" / "api.md"
MAX_MODULE, MAX_FUNCTION = 400, 80
# One frozen value after another, most of it docstrings: splitting it would only scatter them.
LONG_MODULES = {"values": 620, "unpickle": 440}

# A module imports only from modules with a lower rank. A package's name stands for its __init__.
RANKS = {
    "errors": 0, "values": 0.3,
    "products": 0.4, "levels": 0.5, "genes": 0.5, "counts": 0.5, "neighbors": 0.5,
    "slots": 1, "adam": 1, "unpickle": 1, "align": 1, "transfer": 1, "read_query": 1,
    "nn": 1, "nn.likelihoods": 1.1, "nn.layers": 1.2, "nn.options": 1.2, "nn.stored": 1.2, "nn.output": 1.25, "nn.vae": 1.3,
    "nn.scanvae": 1.4, "nn.totalvae": 1.4,
    "objective": 1.5,
    "families.scvi": 2, "families.scanvi": 2, "families.totalvi": 2, "families": 2.5, "model": 2.7, "matching": 2.8,
    "hub": 3, "scvi_format": 3, "store": 3, "fit": 3, "embed": 3, "metrics": 3, "card": 3.3,
    "_tiny_model": 1, "_tiny_cells": 2, "_tiny_hub": 3,
    "pipeline": 4, "report": 4, "demo": 4.6, "testing": 4, "describe": 4, "check": 4.1,
    "output": 4.5,
    "atomic": 0.5, "merge": 3, "joint": 3, "scvi_registry": 3.2, "cells": 3.2, "decode": 3.4, "ranking": 0.5,
    "evaluate": 3.5, "export": 3.5, "card_lint": 3.6, "compare": 3.7, "publish": 3.7, "resolve": 4.1, "card_commands": 4.7, "share_commands": 4.8,
    "cli": 5,
    # How far results can be trusted.
    "atlas": -1, "confidence": -1, "hierarchy": 0.2, "conformal": 0.5, "query_graph": 0.7,
    "generate": 3.1, "reconstruction": 3.1, "classifier": 3.2, "adaptation": 3.3, "novelty": 3.2, "measures": 3.3, "calibrate": 3.5, "calibration_store": 3.5,
    "placement": 1.1, "figures": 1, "verdict": 3.6, "trust": 3.7, "explain": 4, "pl": 4.65,
}  # fmt: skip
# `import scgraft` reaches every public name, the pipeline's too.
ROOT_RANK = 4.7
# Calls that only build a constant; a call of a class (capitalised) is one too.
BUILDERS = {"sorted", "frozenset", "set", "tuple", "dict", "list", "float", "range", "compile", "getLogger", "join"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources() -> dict[str, ast.Module]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(path.read_text(encoding="utf-8"))
    return found


SOURCES = sources()
MODULES = [name for name in SOURCES if name]


def imported(tree: ast.Module, modules: dict[str, ast.Module]) -> Iterator[str]:
    """Modules of the package that a module imports, anywhere in it; "" for the package itself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "scgraft":
                    yield alias.name.removeprefix("scgraft").removeprefix(".")
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield "a relative import"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "scgraft":
            home = (node.module or "").removeprefix("scgraft").removeprefix(".")
            for alias in node.names:
                inner = f"{home}.{alias.name}".lstrip(".")
                if inner in modules or inner in RANKS:
                    yield inner
                elif (home, alias.name) != ("", "__version__"):
                    yield home


def rank_faults(name: str, tree: ast.Module, modules: dict[str, ast.Module]) -> list[str]:
    if name not in RANKS:
        return [f"{name} has no rank: add it to RANKS, above everything that it imports"]
    ranks = RANKS | {"": ROOT_RANK}
    return [
        f"{name} (rank {RANKS[name]}) imports {other or 'scgraft'} (rank {ranks.get(other, 'unknown')})"
        for other in dict.fromkeys(imported(tree, modules))
        if ranks.get(other, float("inf")) >= ranks[name]
    ]


def functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def public(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, Function | ast.ClassDef]]:
    """Public functions and classes of a module, and the public methods of those classes, by dotted name."""
    for node in body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            yield f"{prefix}{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body, f"{prefix}{node.name}.")


def length_faults(tree: ast.Module) -> list[str]:
    """Functions that are too long, the docstring not counted."""
    found = []
    for node in functions(tree):
        body = node.body[1:] if ast.get_docstring(node) is not None else node.body
        lines = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
        found += [f"{node.name} has {lines} lines"] if lines > MAX_FUNCTION else []
    return found


def signature_faults(tree: ast.Module) -> list[str]:
    return [
        f"{name} takes **{n.args.kwarg.arg}"
        for name, n in public(tree.body)
        if isinstance(n, Function) and n.args.kwarg
    ]


def docstring_faults(tree: ast.Module) -> list[str]:
    return [f"{name} has no docstring" for name, node in public(tree.body) if not ast.get_docstring(node)]


def execution_faults(tree: ast.Module) -> list[str]:
    """Statements at the top of a module that do more than define something."""
    found = []
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom | Function | ast.ClassDef):
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "__name__ == '__main__'"):
            continue
        if isinstance(node, ast.Assign | ast.AnnAssign):
            calls = [ast.unparse(n.func).split(".")[-1] for n in ast.walk(node) if isinstance(n, ast.Call)]
            found += [f"line {node.lineno} calls {c}" for c in calls if c not in BUILDERS and not c[0].isupper()]
            continue
        found.append(f"line {node.lineno} runs {type(node).__name__}")
    return found


@pytest.mark.parametrize("name", MODULES)
def test_imports_from_lower_ranks_only(name: str) -> None:
    assert rank_faults(name, SOURCES[name], SOURCES) == []


@pytest.mark.parametrize("rule", [length_faults, signature_faults, docstring_faults, execution_faults])
@pytest.mark.parametrize("name", SOURCES)
def test_rule(name: str, rule) -> None:
    assert rule(SOURCES[name]) == []


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_module_is_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONG_MODULES.get(path.stem, MAX_MODULE)


@pytest.mark.parametrize(
    ("rule", "source", "fault"),
    [
        (length_faults, "def f():\n    '''Doc.'''\n" + "    pass\n" * 81, "f has 81 lines"),
        (length_faults, "def f():\n    def g():\n" + "        pass\n" * 81, "g has 81 lines"),
        (signature_faults, "class A:\n    def f(self, **rest): ...", "A.f takes **rest"),
        (docstring_faults, "class A:\n    '''Doc.'''\n    def f(self): ...", "A.f has no docstring"),
        (execution_faults, "X = 1\nprint(X)", "line 2 runs Expr"),
        (execution_faults, "import torch\nN = torch.get_num_threads()", "line 2 calls get_num_threads"),
        (execution_faults, "for i in (): pass", "line 1 runs For"),
    ],
)
def test_rules_bite(rule, source: str, fault: str) -> None:
    assert fault in rule(ast.parse(source))


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("fit", "from scgraft.hub import fetch"),
        ("fit", "from scgraft import pipeline"),
        ("fit", "from scgraft import map_query"),
        ("fit", "import scgraft.fit"),
        ("fit", "def f():\n    import scgraft.cli"),
        ("fit", "from .values import Graft"),
        ("fit", "from scgraft.nowhere import x"),
        ("nn.likelihoods", "from scgraft.nn.layers import Linear"),
        ("nowhere", ""),
    ],
)
def test_ranks_bite(name: str, source: str) -> None:
    modules = dict.fromkeys(RANKS, ast.Module([], []))
    assert len(rank_faults(name, ast.parse(source), modules)) == 1


@pytest.mark.parametrize(
    ("name", "source"),
    [
        (
            "fit",
            "from scgraft import __version__\nfrom scgraft.nn.vae import Vae\nfrom scgraft import errors\nimport numpy",
        ),
        ("cli", "import scgraft\nfrom scgraft import map_query\nimport scgraft_other"),
        ("families", "from scgraft.families import scvi\nfrom scgraft.families.scanvi import FAMILY"),
    ],
)
def test_ranks_let_through(name: str, source: str) -> None:
    modules = dict.fromkeys(RANKS, ast.Module([], []))
    assert rank_faults(name, ast.parse(source), modules) == []


def test_public_names_are_sorted() -> None:
    assert scgraft.__all__ == sorted(scgraft.__all__)
    assert dir(scgraft) == scgraft.__all__


@pytest.mark.parametrize("name", scgraft.__all__)
def test_public_name_is_importable(name: str) -> None:
    home = scgraft._HOME.get(name, name)
    if home in scgraft._MODULES or name in scgraft._HOME:
        if home not in SOURCES:
            pytest.skip(f"scgraft.{home} is not written yet")
        importlib.import_module(f"scgraft.{home}")
    assert getattr(scgraft, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        scgraft.nonsense  # noqa: B018


def test_public_names_are_documented() -> None:
    if not API.exists():
        pytest.skip("docs/api.md is not written yet")
    text = API.read_text(encoding="utf-8")
    absent = [name for name in scgraft.__all__ if not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)]
    assert absent == []
