"""Damaged files of every kind, at random: only errors of scgraft, no hang, no crash, no gigabyte, nothing read outside.

The same cases each time by default, about a minute, so that a failure is of the commit and not of the machine's speed; for as
long as ``SCGRAFT_FUZZ_SECONDS`` says where that is given (``make fuzz``: an hour). ``SCGRAFT_FUZZ_SEED`` gives other damage. What
fails is kept where the message says.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fuzz.mutate import TARGETS

SECONDS = float(os.environ.get("SCGRAFT_FUZZ_SECONDS", 0))
CASES = 100  # of each target, where no time is given
SEED = int(os.environ.get("SCGRAFT_FUZZ_SEED", 0))
COLUMNS = ("fine", "different", "named", "raw", "hang", "crash")


@pytest.fixture(scope="module")
def table():
    """The table of the issue, printed at the end (``pytest -s``)."""
    rows: dict[str, Counter[str]] = {}
    yield rows
    print(f"\n| tried | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}")
    for name, row in rows.items():
        print(f"| {sum(row.values())} of {name} | {' | '.join(str(row[column]) for column in COLUMNS)} |")


@pytest.mark.parametrize("target", TARGETS)
def test_damage_is_named(sound, child, table, target, tmp_path):
    reader, name, ways = TARGETS[target]
    row = table.setdefault(target, Counter())
    wrong: list[str] = []
    end, number = time.monotonic() + SECONDS / len(TARGETS), 0
    while time.monotonic() < end if SECONDS else number < CASES:
        number += 1
        rng = np.random.default_rng([SEED, sorted(TARGETS).index(target), number])
        folder = tmp_path / "case"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(sound / reader, folder)
        ways[number % len(ways)](rng, folder)
        outcome = child.read(reader, folder / name)
        row[outcome.kind] += 1
        if outcome.kind in ("raw", "hang", "crash") or outcome.outside:
            kept = Path(shutil.copytree(folder, tmp_path / f"kept-{number}"))
            wrong.append(f"{outcome} in {kept}")
    assert row["fine"] + row["different"] + row["named"] > 0
    assert not wrong, "\n".join([f"{len(wrong)} of {number}:", *wrong[:20]])
