"""Mutation testing: which small faults in the code do the nearest tests not see?

    python benchmarks/mutants.py --room query --tests tests/query --each 8 [--seed 0] [--limit 60] [--out FILE]
    python benchmarks/mutants.py --room numerics/votes.py --tests tests/numerics --swap OLD NEW [--swap OLD NEW ...]

Each mutant changes one place of one file: a comparison, an arithmetic or logical operator, a number, a condition. It is
killed if a test fails, or if the tests take longer than the limit. The tests run in a fork that has the libraries loaded already;
the changed file is only in the memory of that fork. With --swap the mutants are texts of your own instead.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib.abc
import importlib.util
import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SWAPS: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Pow: ast.Mult,
    ast.And: ast.Or, ast.Or: ast.And, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip


def changes(node: ast.AST) -> list[tuple[str, ast.AST]]:
    """Every change of one node, as (what it is, the new node)."""
    found = []
    if isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            new = copy.deepcopy(node)
            new.ops[i] = SWAPS[type(op)]()
            found.append(("comparison", new))
    elif isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign) and type(node.op) in SWAPS:
        new = copy.deepcopy(node)
        new.op = SWAPS[type(node.op)]()
        found.append(("operator", new))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.Invert | ast.USub):
        found.append(("sign", copy.deepcopy(node.operand)))
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        found.append(("flag", ast.Constant(not node.value)))
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        # Twice is what a limit that is too wide looks like; 0 becomes 1.
        found.append(("number", ast.Constant(node.value * 2 if node.value not in (0, 1) else 1 - node.value)))
    elif isinstance(node, ast.IfExp):
        found.append(("branch", ast.IfExp(node.test, copy.deepcopy(node.orelse), copy.deepcopy(node.body))))
    return found


def silent(tree: ast.AST) -> set[int]:
    """Nodes that change no behaviour, or only a type: annotations, assertions and what only a type checker reads."""
    out: set[int] = set()
    for node in ast.walk(tree):
        hidden: list[ast.AST | None] = []
        if isinstance(node, ast.arg | ast.AnnAssign):
            hidden.append(node.annotation)
        if isinstance(node, ast.FunctionDef):
            hidden.append(node.returns)
        if isinstance(node, ast.Assert) or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            hidden.append(node)
        out |= {id(inner) for one in hidden if one is not None for inner in ast.walk(one)}
    return out


def mutants(source: str) -> Iterator[tuple[int, str, str]]:
    """Every mutant of a file: line, what was changed, the whole changed source."""
    tree = ast.parse(source)
    hidden = silent(tree)
    for parent in list(ast.walk(tree)):
        for name, value in ast.iter_fields(parent):
            for i, node in enumerate(value if isinstance(value, list) else [value]):
                if not isinstance(node, ast.AST) or id(node) in hidden:
                    continue
                for kind, new in changes(node):
                    before = ast.unparse(node)
                    _put(parent, name, i, value, new)
                    yield (
                        getattr(node, "lineno", 0),
                        f"{kind}: {before} -> {ast.unparse(new)}",
                        ast.unparse(ast.fix_missing_locations(tree)),
                    )
                    _put(parent, name, i, value, node)


def swaps(source: str, wanted: list[list[str]]) -> list[tuple[int, str, str]]:
    """Mutants that are named by what to replace, each of which is in the file once: line, what, the whole changed source."""
    for old, _ in wanted:
        if source.count(old) != 1:
            sys.exit(f"{old!r} is in the file {source.count(old)} times.")
    return [
        (source[: source.index(old)].count("\n") + 1, f"{old} -> {new}", source.replace(old, new))
        for old, new in wanted
    ]


def _put(parent: ast.AST, name: str, i: int, value: object, node: ast.AST) -> None:
    if isinstance(value, list):
        value[i] = node
    else:
        setattr(parent, name, node)


class Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a changed source."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        self.name, self.path, self.source = name, path, source

    def find_spec(self, name, path=None, target=None):
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(name, self.path, loader=self, submodule_search_locations=None)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        exec(compile(self.source, str(self.path), "exec"), module.__dict__)


def survives(path: Path, source: str | None, tests: list[str], limit: int) -> tuple[bool, float]:
    """Whether the tests pass with the changed file (None: as it is), and the seconds that they took."""
    began, child = time.time(), os.fork()
    if child == 0:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        signal.alarm(limit)  # ends the process
        name = ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)
        if source is not None:
            sys.meta_path.insert(0, Changed(name, path, source))
        import pytest

        os._exit(int(pytest.main(["-x", "-q", "--assert=plain", "-p", "no:cacheprovider", *tests])))
    _, status = os.waitpid(child, 0)
    return os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0, time.time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--room", required=True, help="folder or file under src/scgraft")
    parser.add_argument("--tests", nargs="+", required=True)
    parser.add_argument("-k", default="", help="as of pytest")
    parser.add_argument("--each", type=int, default=8, help="mutants of each file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, default=120, help="seconds for the tests of one mutant")
    parser.add_argument("--swap", nargs=2, action="append", default=[], metavar=("OLD", "NEW"))
    parser.add_argument("--out", type=Path, help="JSON lines to append to")
    given = parser.parse_args()
    os.chdir(ROOT)
    os.environ["SCGRAFT_HYPOTHESIS"] = "mutants"
    sys.path.insert(0, str(ROOT / "src"))
    for library in (
        "torch",
        "anndata",
        "scanpy",
        "sklearn.linear_model",
        "scipy.stats",
        "hypothesis",
        "pytest",
        "networkx",
    ):
        try:
            importlib.import_module(library)
        except ImportError:
            continue
    room = ROOT / "src" / "scgraft" / given.room
    passed, seconds = survives(room, None, [*given.tests, "-k", given.k], 10 * given.limit)
    if not passed:
        sys.exit("The tests do not pass as they are.")
    print(f"tests alone: {seconds:.0f} s", flush=True)
    total = killed = 0
    for path in [room] if room.suffix else sorted(room.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        found = swaps(text, given.swap) if given.swap else list(mutants(text))
        random.Random(given.seed).shuffle(found)
        for line, what, source in found if given.swap else found[: given.each]:
            alive, seconds = survives(path, source, [*given.tests, "-k", given.k], given.limit)
            total, killed = total + 1, killed + (not alive)
            print(
                f"{'ALIVE ' if alive else 'killed'} {seconds:4.0f} s {path.relative_to(ROOT)}:{line} {what}", flush=True
            )
            if given.out:
                with given.out.open("a") as out:
                    out.write(
                        json.dumps({"file": str(path.relative_to(ROOT)), "line": line, "what": what, "alive": alive})
                        + "\n"
                    )
    print(f"{given.room}: {killed} of {total} killed")


if __name__ == "__main__":
    main()
