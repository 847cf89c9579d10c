"""Mutation testing: which small faults in a room of the code do its tests not see?

    python benchmarks/mutants.py --room query --tests tests/query --number 40 --out DIR [--seed 0] [--minutes 7]
    python benchmarks/mutants.py --room query --tests tests/query/test_new.py --out DIR --again     # what DIR says is alive
    python benchmarks/mutants.py --room numerics/votes.py --tests tests/numerics --swap OLD NEW [--swap OLD NEW ...]

Each mutant changes one place of one file (`mutants_changes.py`); the sample is drawn at random from all places of all files of
the room. A mutant is killed if a test fails, or if the tests need more than three times their time and ten seconds. The tests
that reach its lines are asked, the quickest first, up to --budget seconds of CPU; a mutant that none of them reaches is alive.

It needs Python 3.12 (sys.monitoring). The tests are imported once; a mutant in a function is put into a fork of that process,
where the function's code is exchanged, and no file is changed. What runs when a file is imported is imported anew in a fork that
has only the libraries. DIR keeps the answers: run it again to go on after --minutes.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import importlib.abc
import importlib.util
import json
import os
import pickle
import random
import resource
import signal
import sys
import time
import warnings
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FunctionType

import pytest
from mutants_changes import Mutant, mutants, swaps

ROOT = Path(__file__).parents[1]
LIBRARIES = ("torch", "anndata", "scanpy", "sklearn.linear_model", "scipy.stats", "hypothesis", "pytest", "networkx")
OPTIONS = ["-x", "-q", "--assert=plain", "-p", "no:cacheprovider"]


@dataclass
class Reached:
    """What each test costs (seconds of CPU) and which lines it reaches, its fixtures apart."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    lines: dict[str, set[tuple[str, int]]] = field(default_factory=lambda: defaultdict(set))
    fixtures: dict[str, list[str]] = field(default_factory=dict)

    def tests(self, mutant: Mutant, budget: float) -> list[str]:
        """The tests to ask, the quickest first; one file's stand together, as they share fixtures."""
        file, span = str(mutant.path), range(mutant.first, mutant.last + 1)
        reaching = []
        for test, used in self.fixtures.items():
            lines = self.lines[test].union(*(self.lines[name] for name in used))
            # What runs at the import of a file is of all tests that reach the file.
            if any((file, line) in lines for line in span) or (
                not mutant.in_function and any(name == file for name, _ in lines)
            ):
                reaching.append((self.seconds[test] + sum(self.seconds[name] for name in used), test))
        kept, total = [], 0.0
        for seconds, test in sorted(reaching):
            if kept and total + seconds > budget:
                break
            kept.append(test)
            total += seconds
        first = {}
        for i, test in enumerate(kept):
            first.setdefault(test.split("::")[0], i)
        return sorted(kept, key=lambda test: (first[test.split("::")[0]], kept.index(test)))


class Watch:
    """Which lines of the room run, for the test or fixture that runs now."""

    def __init__(self, folder: str) -> None:
        self.reached, self.folder, self.now = Reached(), folder, ""
        self.tool = sys.monitoring  # type: ignore[attr-defined]

    def start(self) -> None:
        self.tool.use_tool_id(4, "mutants")
        self.tool.register_callback(4, self.tool.events.LINE, self.line)
        self.tool.set_events(4, self.tool.events.LINE)

    def line(self, code: CodeType, number: int) -> object:
        if code.co_filename.startswith(self.folder):
            self.reached.lines[self.now].add((code.co_filename, number))
        return self.tool.DISABLE

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """What runs now is of this test or fixture; what is inside of it and has a name of its own is not counted."""
        before, self.now = self.now, name
        began, others = time.process_time(), sum(self.reached.seconds.values())
        self.tool.restart_events()
        yield
        others = sum(self.reached.seconds.values()) - others
        self.reached.seconds[name] += time.process_time() - began - others
        self.now = before
        self.tool.restart_events()


class Session:
    """A pytest plugin: runs each test once and notes what it reaches, or asks about all mutants that are in functions."""

    def __init__(self, folder: str, ask: list[Mutant], told: Told) -> None:
        self.watch, self.ask, self.told = Watch(folder), ask, told
        self.failed = self.watching = False

    def pytest_runtest_logreport(self, report) -> None:
        self.failed |= report.failed
        if report.failed and self.watching:
            print(report.longrepr, file=sys.stderr)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef, request):
        if not self.watching:
            return (yield)
        with self.watch.of(f"fixture {fixturedef.baseid} {fixturedef.argname}"):
            return (yield)

    def pytest_runtestloop(self, session) -> bool:
        items = {item.nodeid: item for item in session.items}
        if self.told.reached is None:
            self.measure(session.items)
        for mutant in self.ask:
            self.told.answer(mutant, lambda tests, m=mutant: self.ask_one(m, [items[test] for test in tests]))
        return True

    def run(self, items: list) -> bool:
        """Whether the tests pass, up to the first that does not."""
        for item, after in zip(items, [*items[1:], None], strict=True):
            with self.watch.of(item.nodeid) if self.watching else nullcontext():
                item.ihook.pytest_runtest_protocol(item=item, nextitem=after)
            if self.failed:
                return False
        return True

    def measure(self, items: list) -> None:
        self.watching = True
        self.watch.start()
        if not self.run(items):
            os._exit(1)
        for item in items:
            defined = item._fixtureinfo.name2fixturedefs
            self.watch.reached.fixtures[item.nodeid] = [f"fixture {d[-1].baseid} {name}" for name, d in defined.items()]
        self.told.keep(self.watch.reached)

    def ask_one(self, mutant: Mutant, items: list) -> int:
        def run() -> int:
            items[0].config.pluginmanager.unregister(name="terminalreporter")
            exchange(mutant)
            return not self.run(items)

        return forked(run, self.told.limit([item.nodeid for item in items]))


def exchange(mutant: Mutant) -> None:
    """Gives each function of the file the code that the changed file has for it, wherever the function was imported to."""
    new: dict[tuple[str, int], CodeType] = {}
    codes = [mutant.code]
    while codes:
        code = codes.pop()
        new[code.co_qualname, code.co_firstlineno] = code  # type: ignore[attr-defined]
        codes += [inner for inner in code.co_consts if isinstance(inner, CodeType)]
    changed = 0
    for one in gc.get_objects():
        if isinstance(one, FunctionType) and one.__code__.co_filename == str(mutant.path):
            one.__code__ = new[one.__code__.co_qualname, one.__code__.co_firstlineno]
            changed += 1
    assert changed, mutant.name


class Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from changed code."""

    def __init__(self, mutant: Mutant) -> None:
        self.name = ".".join(mutant.path.relative_to(ROOT / "src").with_suffix("").parts)
        self.mutant = mutant

    def find_spec(self, name, path=None, target=None):
        return (
            importlib.util.spec_from_file_location(name, self.mutant.path, loader=self) if name == self.name else None
        )

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        exec(self.mutant.code, module.__dict__)


def forked(run, limit: float) -> int:
    """What `run` gives in a fork without a voice; a limit on its seconds of CPU."""
    child = os.fork()
    if child == 0:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        now = resource.getrusage(resource.RUSAGE_SELF)
        resource.setrlimit(resource.RLIMIT_CPU, (int(now.ru_utime + now.ru_stime + limit) + 1,) * 2)
        signal.alarm(int(20 * limit))  # if it waits for something
        code = 1
        try:
            code = int(run())
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1]


class Told:
    """What is known: which lines the tests reach, and what they said of each mutant. Kept in a folder."""

    def __init__(self, folder: Path, budget: float, minutes: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.budget, self.end = folder, budget, time.time() + 60 * minutes
        self.reached: Reached | None = None

    def of(self, tests: list[str]) -> bool:
        """Whether it is known what these tests reach."""
        self.file = self.folder / f"reached-{zlib.crc32(' '.join(tests).encode()):08x}.pickle"
        self.reached = pickle.loads(self.file.read_bytes()) if self.file.exists() else None
        return self.reached is not None

    def keep(self, reached: Reached) -> None:
        self.file.write_bytes(pickle.dumps(reached))

    def limit(self, tests: list[str]) -> float:
        """Seconds of CPU after which a mutant is taken for one that never ends."""
        return 10 + 3 * sum(
            self.reached.seconds[name] for test in tests for name in (test, *self.reached.fixtures[test])
        )

    def answers(self) -> dict[str, bool]:
        file = self.folder / "answers.jsonl"
        lines = map(json.loads, file.read_text().splitlines()) if file.exists() else ()
        return {line["name"]: line["alive"] for line in lines}

    def answer(self, mutant: Mutant, ask) -> None:
        """Asks the tests of a mutant, unless the time is over."""
        if time.time() > self.end:
            return
        tests, began = self.reached.tests(mutant, self.budget), _children()
        alive = not tests or ask(tests) == 0
        word = "killed" if not alive else "ALIVE " if tests else "beyond"
        print(f"{word} {_children() - began:4.1f} s {len(tests):3} tests {mutant.name}", flush=True)
        with (self.folder / "answers.jsonl").open("a") as out:
            out.write(json.dumps({"name": mutant.name, "alive": alive, "tests": len(tests)}) + "\n")


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def session(tests: list[str], plugin: Session) -> None:
    """One pytest in a fork, which imports the tests once."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = pytest.main([*OPTIONS, *tests], plugins=[plugin])
        sys.stdout.flush()
        os._exit(int(code))
    if os.waitpid(child, 0)[1]:
        sys.exit("The tests do not pass as they are.")


def anew(mutant: Mutant, tests: list[str], limit: float) -> int:
    """A mutant that the import of its file runs: everything of the package is imported in the fork."""

    def run() -> int:
        sys.meta_path.insert(0, Changed(mutant))
        return int(pytest.main([*OPTIONS, *tests]))

    return forked(run, limit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--room", required=True, help="folder or file under src/scgraft")
    parser.add_argument("--tests", nargs="+", required=True, help="tests, and options of pytest")
    parser.add_argument("--number", type=int, default=40, help="mutants of the room")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--budget", type=float, default=10, help="seconds of CPU of the tests that one mutant is shown")
    parser.add_argument("--minutes", type=float, default=7)
    parser.add_argument("--again", action="store_true", help="only those that DIR says are alive")
    parser.add_argument("--swap", nargs=2, action="append", default=[], metavar=("OLD", "NEW"))
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    given, more = parser.parse_known_args()
    tests = [*given.tests, *more]
    os.chdir(ROOT)
    # The libraries have threads that wait; a fork has none of them, and the tests run with one.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    os.environ["SCGRAFT_HYPOTHESIS"] = "mutants"
    sys.path.insert(0, str(ROOT / "src"))
    for library in LIBRARIES:
        if importlib.util.find_spec(library.split(".")[0]):
            importlib.import_module(library)
    room = ROOT / "src" / "scgraft" / given.room
    files = [room] if room.suffix else sorted(room.rglob("*.py"))
    drawn = [one for path in files for one in (swaps(path, given.swap) if given.swap else mutants(path))]
    print(f"{given.room}: {len(drawn)} places")
    if not given.swap:
        random.Random(given.seed).shuffle(drawn)
        drawn = drawn[: given.number]
    told = Told(given.out, given.budget, given.minutes)
    before = told.answers()
    ask = [one for one in drawn if (before.get(one.name) is True if given.again else one.name not in before)]
    if not told.of(tests):
        session(tests, Session(str(room), [], told))
        told.of(tests)
    spent = sum(told.reached.seconds.values())
    print(f"{len(told.reached.fixtures)} tests, {spent:.0f} s of CPU; {len(ask)} mutants to ask", flush=True)
    session(tests, Session(str(room), [one for one in ask if one.in_function], told))
    for mutant in ask:
        if not mutant.in_function:
            told.answer(mutant, lambda tests, m=mutant: anew(m, tests, 20 + told.limit(tests)))
    after = told.answers()
    count = Counter((one.path.name, after[one.name]) for one in drawn if one.name in after)
    for name in sorted({name for name, _ in count}):
        print(f"{name:20} {count[name, False]:3} of {count[name, False] + count[name, True]} killed")
    killed = sum(n for (_, alive), n in count.items() if not alive)
    print(f"{given.room}: {killed} of {sum(count.values())} killed, {len(drawn) - sum(count.values())} not asked yet")


if __name__ == "__main__":
    main()
