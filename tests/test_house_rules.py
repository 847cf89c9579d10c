"""The rules of the house, checked on the syntax of every module: sizes, ranks, signatures, docstrings."""

from __future__ import annotations

import ast
import importlib
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

import scgraft

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "scgraft"
API = ROOT / "docs" / "api.md"
MAX_MODULE, MAX_FUNCTION = 400, 80

# From the top floor down: a folder imports only from folders further down. A file of the package's root is a folder of its own.
FLOORS = (
    "cli", "app", "", "testing", "pl", "sharing", "results", "mapping", "calibration", "labels", "judgement", "novelty", "expression", "graft",
    "cards", "reference", "query", "model", "values", "numerics", "files", "progress", "registry", "errors", "_version",
)  # fmt: skip
# What may be imported from outside by whom: the library, and the folders (or files) that may import it.
OUTSIDE = {
    "torch": ("model", "graft", "expression", "numerics", "labels/votes", "sharing/export", "sharing/export_scarches", "testing"),
    "anndata": ("files/h5ad", "files/h5mu", "files/known", "files/write_h5", "query", "results", "mapping/load", "mapping/check", "mapping/match", "reference", "sharing", "cli/demo", "testing", "expression/evaluate"),
    "gradio": ("app",),
    "huggingface_hub": ("reference/hub", "cards/catalogue", "sharing/publish"),
}  # fmt: skip
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
                if inner in modules:
                    yield inner
                elif (home, alias.name) != ("", "__version__"):
                    yield home


def room(name: str) -> str:
    """Folder of a module; a file of the root is its own, and so is the package itself ("")."""
    return name.split(".")[0]


def floor_faults(name: str, tree: ast.Module, modules: dict[str, ast.Module]) -> list[str]:
    """Imports that run upward between folders, or out of the list of folders."""
    if room(name) not in FLOORS:
        return [f"{name} stands in a folder that is not in FLOORS"]
    return [
        f"{name} imports {other or 'scgraft'}, which is not below it"
        for other in dict.fromkeys(imported(tree, modules))
        if room(other) != room(name) and (room(other) not in FLOORS or FLOORS.index(room(other)) < FLOORS.index(room(name)))
        or room(other) == room(name) == ""
        or other == name
    ]  # fmt: skip


def circles(modules: dict[str, ast.Module]) -> list[str]:
    """Modules of one folder that import one another in a circle; a package's __init__ counts as a module."""
    below = {name: set(imported(tree, modules)) & set(modules) - {name} for name, tree in modules.items() if name}
    below = {name: {other for other in others if room(other) == room(name)} for name, others in below.items()}
    while free := {name for name, others in below.items() if not others & below.keys()}:
        below = {name: others for name, others in below.items() if name not in free}
    return sorted(below)


def outside_faults(name: str, tree: ast.Module) -> list[str]:
    """Libraries that a module imports though its folder may not; what only a type checker reads is not an import."""
    found, path = [], name.replace(".", "/")
    for node in running(tree):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        for library in {n.split(".")[0] for n in names} & OUTSIDE.keys():
            if not any(path == allowed or path.startswith(f"{allowed}/") for allowed in OUTSIDE[library]):
                found.append(f"{name} imports {library}")
    return found


def running(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Imports that happen when the module or one of its functions runs."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        yield from running(node)


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


def told_devices(modules: dict[str, ast.Module]) -> dict[tuple[str, str], int]:
    """Functions that would choose a device where none is named (``device="auto"``), and the place of that argument."""
    found = {}
    for module, tree in modules.items():
        for node in tree.body:
            if isinstance(node, Function):
                names = [a.arg for a in (*node.args.posonlyargs, *node.args.args)]
                defaults = dict(zip(names[::-1], node.args.defaults[::-1], strict=False))
                defaults |= {a.arg: d for a, d in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True) if d}
                if "device" in defaults and ast.unparse(defaults["device"]) == "'auto'":
                    found[module, node.name] = names.index("device") if "device" in names else len(names) + 99
    return found


def device_faults(name: str, tree: ast.Module, told: dict[tuple[str, str], int]) -> list[str]:
    """Calls that leave out the device, so that a step would choose one; of commands, in those that have ``--device``."""
    known = {other: (name, other) for module, other in told if module == name}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            home = (node.module or "").removeprefix("scgraft").removeprefix(".")
            known |= {a.asname or a.name: (home, a.name) for a in node.names if (home, a.name) in told}
    where: list[ast.AST] = [tree]
    if room(name) in ("cli", "app"):
        where = [n for n in functions(tree) if "device" in [a.arg for a in (*n.args.args, *n.args.kwonlyargs)]]
    found = []
    for node in (inner for part in where for inner in ast.walk(part)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            continue
        called, named = node.func.id, {k.arg for k in node.keywords}
        left_out = called in known and len(node.args) <= told[known[called]]
        if not named & {"device", None} and (left_out or called == "FitConfig" and (node.args or named)):
            found.append(f"{name}:{node.lineno} calls {called} without its device")
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


def is_numeric(node: ast.AST | None) -> bool:
    """Whether a value is a number, or numbers in a tuple, a dict or a call of a class; 0 and 1 mean none and one, and need no reason."""
    if isinstance(node, ast.Constant):
        return (
            isinstance(node.value, int | float | complex)
            and not isinstance(node.value, bool)
            and node.value not in (0, 1)
        )
    if isinstance(node, ast.UnaryOp):
        return is_numeric(node.operand)
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, ast.LShift | ast.Pow) or is_numeric(node.left) or is_numeric(node.right)
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return any(is_numeric(element) for element in node.elts)
    if isinstance(node, ast.Dict):
        return any(is_numeric(value) for value in node.values)
    if isinstance(node, ast.Call):
        return ast.unparse(node.func)[0].isupper() and any(is_numeric(word.value) for word in node.keywords)
    return False


def numbers(tree: ast.Module) -> Iterator[tuple[str, ast.stmt | ast.expr]]:
    """Numeric constants of a module, defaults of its options, and defaults of the arguments of its public functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef):
            for line in node.body:
                if not isinstance(line, ast.Assign | ast.AnnAssign) or not is_numeric(line.value):
                    continue
                name = ast.unparse(line.targets[0] if isinstance(line, ast.Assign) else line.target)
                if isinstance(node, ast.ClassDef) or name.strip("()_").upper() == name.strip("()_"):
                    yield name, line
        elif isinstance(node, Function) and not node.name.startswith("_"):
            given = zip(reversed(node.args.posonlyargs + node.args.args), reversed(node.args.defaults), strict=False)
            for argument, value in [*given, *zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)]:
                if value is not None and is_numeric(value):
                    yield f"{node.name}({argument.arg})", value


def number_faults(source: str) -> list[str]:
    """Numbers without a comment of at least three words, on their line or right above it."""
    words, alone = {}, set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            words[token.start[0]] = len(token.string.strip("# ").split())
            alone |= {token.start[0]} if token.line.strip().startswith("#") else set()
    found = []
    for name, node in numbers(ast.parse(source)):
        first = node.lineno
        while first - 1 in alone:
            first -= 1
        if sum(words.get(line, 0) for line in range(first, (node.end_lineno or node.lineno) + 1)) < 3:
            found.append(
                f"line {node.lineno}: say in a comment on the line or above it where {name} comes from (a paper, a benchmark and its "
                "data, a format, a convention), or 'chosen by eye, not measured'"
            )
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_every_number_says_where_it_comes_from(path: Path) -> None:
    assert number_faults(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("K = 30", 1),
        ("K = 30  # neighbours", 1),
        ("K = 30  # neighbours, as in scArches", 0),
        ("# As many neighbours as in scArches.\nK = 30", 0),
        ("# As many neighbours as in scArches.\nK = 30\nL = 15", 1),
        ("# As many neighbours as in\n# scArches.\nK = 30", 0),
        ("# As many neighbours as in scArches.\n\nK = 30", 1),
        ("J = 2  # half of what scArches has\nK = 30", 1),
        ("K, L = 0.5, -2.0", 1),
        ("K = {'a': 1 << 20}", 1),
        ("K = 'a # b c d'", 0),
        ("K = '# as in scArches', 3", 1),
        ("RECIPE = Recipe(draws=3)", 1),
        ("SEED, ONE = 0, 1.0", 0),
        ("class A:\n    steps: int = 100", 1),
        ("class A:\n    # As many as the loss needs.\n    steps: int = 100\n    seed: int = 0", 0),
        ("def f(*, alpha: float = 0.1): ...", 1),
        ("def f(\n    alpha=0.1,  # the usual error rate\n): ...", 0),
        ("def _f(alpha=0.1): ...", 0),
        ("names = {'a': 3}", 0),
    ],
)
def test_a_number_without_a_source_is_found(source: str, found: int) -> None:
    assert len(number_faults(source)) == found


@pytest.mark.parametrize("name", SOURCES)
def test_imports_run_downward(name: str) -> None:
    if name:  # the package itself names everything, for a type checker and on demand
        assert floor_faults(name, SOURCES[name], SOURCES) == []
        assert outside_faults(name, SOURCES[name]) == []


@pytest.mark.parametrize("name", [name for name in SOURCES if room(name) != "testing"])
def test_the_device_is_passed_on(name: str) -> None:
    """What asks for a device (``device=``, ``--device``) gives it to every step; tests/test_device.py runs them."""
    told = told_devices(SOURCES)
    assert ("graft.embed", "embed") in told and device_faults(name, SOURCES[name], told) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from scgraft.low import step\nstep(1)", 1),
        ("from scgraft.low import step as s\ns(1, device='cpu')\ns(1)", 1),
        ("from scgraft.low import other\nother(1)\nother(1, 'cpu')", 1),
        ("from scgraft.high import step\nstep(1)\nself.step(1)", 0),
        ("FitConfig()\nFitConfig(seed=1, device=d)\nFitConfig(seed=1)", 1),
    ],
)
def test_a_device_that_is_left_out_is_found(source: str, found: int) -> None:
    low = ast.parse("def step(x, *, device='auto'): pass\ndef other(x, device='auto'): pass\ndef free(x, device): pass")
    assert len(device_faults("a", ast.parse(source), told_devices({"low": low}))) == found


def test_no_circle_within_a_folder() -> None:
    assert circles(SOURCES) == []


def test_every_folder_is_there_and_has_tests() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name not in ("_demo", "__pycache__")}
    files = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert folders | files | {""} == set(FLOORS)


@pytest.mark.parametrize("rule", [length_faults, signature_faults, docstring_faults, execution_faults])
@pytest.mark.parametrize("name", SOURCES)
def test_rule(name: str, rule) -> None:
    assert rule(SOURCES[name]) == []


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_module_is_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_MODULE


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


STAND_IN = {
    name: ast.Module([], [])
    for name in (
        "graft.fit",
        "graft.embed",
        "reference.hub",
        "mapping.map",
        "values",
        "model.vae",
        "cli.main",
        "errors",
        "",
    )
}


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("graft.fit", "from scgraft.mapping.map import map_query"),
        ("graft.fit", "from scgraft.mapping import map"),
        ("graft.fit", "from scgraft import map_query"),
        ("graft.fit", "import scgraft.graft.fit"),
        ("graft.fit", "def f():\n    import scgraft.cli.main"),
        ("graft.fit", "from .values import Graft"),
        ("graft.fit", "from scgraft.nowhere import x"),
        ("model.vae", "if TYPE_CHECKING:\n    from scgraft.graft.fit import fit"),
        ("values", "from scgraft.graft import fit"),
        ("nowhere.file", ""),
    ],
)
def test_a_wrong_import_is_found(name: str, source: str) -> None:
    assert len(floor_faults(name, ast.parse(source), STAND_IN)) == 1


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("graft.fit", "from scgraft.model.vae import Vae\nfrom scgraft import errors\nimport numpy"),
        ("graft.fit", "from scgraft.graft.embed import embed"),
        ("cli.main", "import scgraft\nfrom scgraft import map_query\nimport scgraft_other"),
    ],
)
def test_a_right_import_is_let_through(name: str, source: str) -> None:
    assert floor_faults(name, ast.parse(source), STAND_IN) == []


def test_a_circle_is_found() -> None:
    one, two = (
        ast.parse("from scgraft.graft.embed import embed"),
        ast.parse("def f():\n    from scgraft.graft.fit import fit"),
    )
    assert (
        circles({"graft.fit": one, "graft.embed": two, "graft.store": ast.parse("from scgraft.graft.fit import fit")})
        != []
    )
    assert circles({"graft.fit": one, "graft.embed": ast.parse("")}) == []


@pytest.mark.parametrize(
    ("name", "source", "found"),
    [
        ("values.query", "import torch", 1),
        ("graft.embed", "import torch.nn", 0),
        ("graft.store", "def f():\n    from anndata import AnnData", 1),
        ("query.align", "import anndata.io", 0),
        ("novelty.find", "if TYPE_CHECKING:\n    import torch", 0),
        ("labels.explain", "from torch import Tensor", 1),
        ("labels.votes", "from torch import Tensor", 0),
    ],
)
def test_a_library_in_the_wrong_folder_is_found(name: str, source: str, found: int) -> None:
    assert len(outside_faults(name, ast.parse(source))) == found


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
