"""Damaged files of every kind, at random: only errors of scgraft, no hang, no crash, no gigabyte, nothing read outside.

The same cases each time by default, about a minute, so that a failure is of the commit and not of the machine's speed; for as
long as ``SCGRAFT_FUZZ_SECONDS`` says where that is given (``make fuzz``: an hour), a target that has had its ``ENOUGH`` leaves
what is left of its time to the next. ``SCGRAFT_FUZZ_SEED`` gives other damage. What fails is kept where the message says.
"""

from __future__ import annotations

import os
import shutil
import time
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fuzz.mutate import TARGETS

SECONDS = float(os.environ.get("SCGRAFT_FUZZ_SECONDS", 0))
CASES = 100  # of each target, where no time is given
ENOUGH = 5000  # of each target, where time is given
SEED = int(os.environ.get("SCGRAFT_FUZZ_SEED", 0))
COLUMNS = ("fine", "different", "named", "raw", "hang", "crash")
MOST = 1 << 30  # bytes that reading one file may take


@pytest.fixture(scope="module")
def table():
    """The table of the issue, printed at the end (``pytest -s``)."""
    rows: dict[str, Counter[str]] = {}
    yield rows
    print(f"\n| tried | {' | '.join(COLUMNS)} | most memory, MB |\n|---|{'---|' * len(COLUMNS)}---|")
    for name, row in rows.items():
        print(
            f"| {sum(row[column] for column in COLUMNS)} of {name} | {' | '.join(str(row[column]) for column in COLUMNS)} | {row['memory'] >> 20} |"
        )


@pytest.fixture(scope="module")
def until(child):
    """When the time for all targets is over."""
    return time.monotonic() + SECONDS


@pytest.mark.parametrize("target", TARGETS)
def test_damage_is_named(sound, child, table, until, target, tmp_path):
    reader, name, ways = TARGETS[target]
    row = table.setdefault(target, Counter())
    wrong: list[str] = []
    now, number = time.monotonic(), 0
    end = now + max(0.0, until - now) / (len(TARGETS) - list(TARGETS).index(target))
    while number < (ENOUGH if SECONDS else CASES) and (not SECONDS or number < 1 or time.monotonic() < end):
        number += 1
        rng = np.random.default_rng([SEED, zlib.crc32(target.encode()), number])
        folder = tmp_path / "case"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(sound / reader, folder)
        ways[number % len(ways)](rng, folder)
        outcome = child.read(reader, folder / name)
        row[outcome.kind] += 1
        row["memory"] = max(row["memory"], outcome.memory)
        if outcome.kind in ("raw", "hang", "crash") or outcome.outside or outcome.memory > MOST:
            kept = Path(shutil.copytree(folder, tmp_path / f"kept-{number}"))
            wrong.append(f"{outcome} in {kept}")
    assert row["fine"] + row["different"] + row["named"] > 0
    assert not wrong, "\n".join([f"{len(wrong)} of {number}:", *wrong[:20]])
