"""Advice can be followed where it is read: what a message names in Python has its option on the command line, and both are there."""

import ast
import inspect
import re
from dataclasses import fields, is_dataclass
from pathlib import Path

import click
import pytest

import scgraft
from scgraft.cli.main import main
from scgraft.cli.mapping import OBJECTIVES
from scgraft.values.graft import FitConfig, Objective

PACKAGE = Path(scgraft.__file__).parent
# Only the command line reaches these: a file in parts, its results, and the commands themselves.
COMMAND_LINE = (
    "cli/",
    "query/cell_file.py",
    "results/gather.py",
    "results/parts.py",
    "results/stream.py",
    "mapping/stream.py",
)
IN_PYTHON_ONLY = ("pl/", "expression/compare.py")
# Texts that are no advice to the user of a mapping: for developers, and what is written into a model's card.
NO_ADVICE = ("testing/", "cards/card.py", "model/families/", "labels/methods", "files/trial.py", "model/options.py")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
COMMAND = re.compile(r"(?:`|\()scgraft ([a-z]+)")
IN_PYTHON = re.compile(r"\b(?:scgraft\.([a-z_]+)|(FitConfig)\b|([a-z_]{4,})=(?=[\w.'({\[]))")
OWN_OBJECTS = re.compile(r"'\w+=[^']+'|\badata\.\S+|\bobs\[|\bis_trained_\b")


def texts(path: Path) -> list[str]:
    """Sentences in a module that are no docstrings; what is put into them is a blank."""

    def said(node: ast.AST) -> str | None:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node.value
        if isinstance(node, ast.JoinedStr):
            return "".join(v.value if isinstance(v, ast.Constant) else "_" for v in node.values)
        return None

    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = {id(v) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for v in node.values}
    described = (ast.Module, ast.ClassDef, ast.FunctionDef)
    bodies = (node.body for node in ast.walk(tree) if isinstance(node, described))
    docs = {id(body[0].value) for body in bodies if body and isinstance(body[0], ast.Expr)}
    found = (said(node) for node in ast.walk(tree) if id(node) not in inner | docs)
    return [text for text in found if text and " " in text]


def advice() -> list[tuple[str, str]]:
    """Module and text of everything that names an option, a command, an argument or a function."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if not name.startswith(NO_ADVICE):
            wanted = (OPTION, COMMAND, IN_PYTHON)
            found += [(name, text) for text in texts(path) if any(pattern.search(text) for pattern in wanted)]
    return found


def options_of(command: click.Command) -> set[str]:
    own = {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
    if isinstance(command, click.Group):
        own |= set().union(*map(options_of, command.commands.values()))
    return own


def arguments() -> set[str]:
    """Names of the arguments of public functions, and of the fields of public values."""
    public = [getattr(scgraft, name) for name in scgraft.__all__]
    public += [getattr(scgraft.pl, name) for name in scgraft.pl.__all__]
    found: set[str] = set()
    for thing in public:
        if inspect.isfunction(thing):
            found |= set(inspect.signature(thing).parameters)
        elif is_dataclass(thing):
            found |= {field.name for field in fields(thing)}
    return found


ADVICE = advice()


def test_there_is_advice_of_every_kind():
    said = "\n".join(text for _, text in ADVICE)
    assert all(word in said for word in ("--epochs 0", "scgraft explain", "--gene-map", "--min-found"))


@pytest.mark.parametrize(("module", "text"), ADVICE, ids=lambda value: value[:40])
def test_what_a_message_names_is_there(module, text):
    known = options_of(main)
    assert set(OPTION.findall(text)) <= known
    assert set(COMMAND.findall(text)) <= set(main.commands)
    names = IN_PYTHON.findall(OWN_OBJECTS.sub("", text))
    assert {function for function, _, _ in names if function} <= set(scgraft.__all__)
    assert {argument for _, _, argument in names if argument} <= arguments()


@pytest.mark.parametrize(("module", "text"), ADVICE, ids=lambda value: value[:40])
def test_what_a_message_names_in_one_place_it_names_in_the_other(module, text):
    in_python = bool(IN_PYTHON.search(OWN_OBJECTS.sub("", text)))
    on_the_command_line = bool(OPTION.search(text) or COMMAND.search(text))
    if module.startswith(COMMAND_LINE):
        assert on_the_command_line or not in_python
    elif in_python and not module.startswith(IN_PYTHON_ONLY):
        assert on_the_command_line, "name the option, as in: FitConfig(epochs=0) (--epochs 0)"


def test_the_objectives_of_the_command_line_are_all_of_them():
    from typing import get_args

    assert get_args(Objective) == OBJECTIVES and FitConfig().objective == OBJECTIVES[0]
