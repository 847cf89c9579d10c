"""The small faults that mutation testing puts into a file: a comparison, an operator, a sign, a flag, a number, a branch."""

from __future__ import annotations

import ast
import copy
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType

SWAPS: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Pow: ast.Mult,
    ast.And: ast.Or, ast.Or: ast.And, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One change of one file."""

    path: Path
    first: int  # the lines that hold it, and where in the first
    last: int
    column: int
    what: str
    in_function: bool
    code: CodeType  # of the whole changed file, at the lines of the file as it is

    @property
    def name(self) -> str:
        return f"{self.path.name}:{self.first}:{self.column} {self.what}"


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


def inside(tree: ast.AST) -> set[int]:
    """Nodes in the body of a function; the others run once, when the file is imported."""
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.Lambda))
    bodies = (part for one in functions for part in (one.body if isinstance(one.body, list) else [one.body]))
    return {id(node) for body in bodies for node in ast.walk(body)}


def mutants(path: Path) -> list[Mutant]:
    """Every mutant of a file."""
    return list(_mutants(path, ast.parse(path.read_text(encoding="utf-8"))))


def _mutants(path: Path, tree: ast.AST) -> Iterator[Mutant]:
    hidden, within = silent(tree), inside(tree)
    for parent in list(ast.walk(tree)):
        for name, value in ast.iter_fields(parent):
            for i, node in enumerate(value if isinstance(value, list) else [value]):
                if not isinstance(node, ast.AST) or id(node) in hidden:
                    continue
                first, last, column = (getattr(node, at, 0) for at in ("lineno", "end_lineno", "col_offset"))
                for kind, new in changes(node):
                    before = ast.unparse(node)
                    _put(parent, name, i, value, ast.copy_location(new, node))
                    code = compile(ast.fix_missing_locations(tree), str(path), "exec")
                    yield Mutant(
                        path, first, last, column, f"{kind}: {before} -> {ast.unparse(new)}", id(node) in within, code
                    )
                    _put(parent, name, i, value, node)


def swaps(path: Path, wanted: list[list[str]]) -> list[Mutant]:
    """Mutants that are named by what to replace, each of which is in the file once."""
    source, found = path.read_text(encoding="utf-8"), []
    for old, new in wanted:
        if source.count(old) != 1:
            sys.exit(f"{old!r} is in the file {source.count(old)} times.")
        first = source[: source.index(old)].count("\n") + 1
        # Imported anew, whatever it is: the lines of the rest may have moved.
        code = compile(source.replace(old, new), str(path), "exec")
        found.append(Mutant(path, first, first + old.count("\n"), 0, f"{old} -> {new}", False, code))
    return found


def _put(parent: ast.AST, name: str, i: int, value: object, node: ast.AST) -> None:
    if isinstance(value, list):
        value[i] = node
    else:
        setattr(parent, name, node)
