"""Mutation testing of whole folders with mutmut: every mutant of every function, each against the tests that reach its function.

    pip install mutmut                                  # 3.8; not a dependency of the package
    python benchmarks/mutants_covered.py --room judgement --tests tests/judgement --work DIR [--minutes 7] [--survivors]

`benchmarks/mutants.py` draws a few mutants and asks all nearest tests; it also changes numbers at the top of a module, which mutmut
does not. This one says for each file how many mutants the tests kill, how many survive, and how many are in functions that
none of the tests reaches. Texts are not changed: their words are for people. It works in a copy in DIR, and goes on there
when it is run again; with DIR's tests changed, remove DIR.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEXT = ("operator_string", "operator_symmetric_string_methods_swap", "operator_unsymmetrical_string_methods_swap")
RUN = f"""
import sys
from mutmut.mutation import file_mutation, mutators
kept = [(kind, change) for kind, change in mutators.mutation_operators if change.__name__ not in {TEXT!r}]
mutators.mutation_operators[:] = kept
assert len(file_mutation.mutation_operators) == len(kept)
from mutmut.__main__ import cli
sys.argv = ["mutmut", "run", "--max-children", "2"]
cli()
"""


def prepare(work: Path, room: str, tests: list[str]) -> None:
    """A copy of the repository with mutmut's settings."""
    work.mkdir(parents=True)
    for name in ("src", "tests", "docs", "benchmarks"):
        shutil.copytree(ROOT / name, work / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "CHANGELOG.md", "Makefile"):
        shutil.copy(ROOT / name, work / name)
    whole = "" if room.endswith(".py") else "/*"
    settings = {
        "source_paths": ["src"],
        "only_mutate": [f"src/scgraft/{room}{whole}"],
        "also_copy": ["docs", "README.md", "CHANGELOG.md", "Makefile", "benchmarks"],
        "pytest_add_cli_args_test_selection": tests,
    }
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8") + "\n[tool.mutmut]\n"
    text += "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
    (work / "pyproject.toml").write_text(text, encoding="utf-8")


def table(work: Path, room: str, survivors: bool) -> None:
    """Killed, surviving and unreached mutants of each file."""
    total = [0, 0, 0, 0]
    for path in sorted((work / "mutants" / "src" / "scgraft").rglob("*.meta")):
        code = json.loads(path.read_text(encoding="utf-8"))["exit_code_by_key"]
        if not code or room.removesuffix(".py") not in str(path):
            continue
        # mutmut's own: 0 survived, 33 and 5 no test reaches it, None not yet run; what a signal ended is a timeout, so killed.
        asked = [value for value in code.values() if value is not None]
        number = [len(code), sum(v not in (0, 5, 33) for v in asked), asked.count(0), asked.count(33) + asked.count(5)]
        total = [a + b for a, b in zip(total, number, strict=True)]
        print(
            f"{path.stem:24} {number[0]:5} mutants {number[1]:5} killed {number[2]:5} survive {number[3]:5} unreached"
        )
        for name, value in code.items() if survivors else ():
            if value == 0:
                print("   ", name)
    open_ = total[0] - sum(total[1:])
    print(
        f"{room}: {total[1]} of {sum(total[1:])} killed ({total[1] / max(sum(total[1:]), 1):.0%}), {total[2]} survive, {total[3]} unreached"
        + (f"; {open_} not run yet" if open_ else "")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--room", required=True, help="folder or file under src/scgraft")
    parser.add_argument("--tests", nargs="+", default=[], help="tests, and options of pytest")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=7)
    parser.add_argument("--survivors", action="store_true", help="name them; `mutmut show NAME` in DIR shows one")
    given, more = parser.parse_known_args()
    if not given.work.exists():
        prepare(given.work, given.room, given.tests + more)
    with (given.work / "log").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-c", RUN], cwd=given.work, stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, "SCGRAFT_HYPOTHESIS": "mutants", "PYTHONPATH": os.environ.get("MUTMUT", "")},
        )  # fmt: skip
        try:
            child.wait(timeout=60 * given.minutes)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGINT)
            child.wait()
    table(given.work, given.room, given.survivors)


if __name__ == "__main__":
    main()
