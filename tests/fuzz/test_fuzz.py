"""Damaged files of every kind, at random: only errors of scgraft, no hang, no crash, no gigabyte, nothing read outside.

A minute in all by default, an hour by ``make fuzz`` (``SCGRAFT_FUZZ_SECONDS``); ``SCGRAFT_FUZZ_SEED`` gives other damage. What
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

from fuzz.mutate import CALIBRATION, TARGETS
from fuzz.pool import Reader
from hostile_h5ad import write_secret
from scgraft.mapping.load import load_reference
from scgraft.mapping.map import map_query
from scgraft.results.folder import write_mapping
from scgraft.testing import tiny_query, write_hub_folder
from scgraft.testing.tiny_model import TinyConfig

SECONDS = float(os.environ.get("SCGRAFT_FUZZ_SECONDS", 45))
SEED = int(os.environ.get("SCGRAFT_FUZZ_SEED", 0))
MINIFIED = TinyConfig(minified="latent_posterior_parameters", encode_covariates=True)
COLUMNS = ("fine", "different", "named", "raw", "hang", "crash")


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Folders with sound files, by reader."""
    home = tmp_path_factory.mktemp("sound")
    write_hub_folder(home / "reference", TinyConfig(minified=None))
    write_hub_folder(home / "minified", MINIFIED)
    query = tiny_query(MINIFIED, n_cells=40, batches=("a", "b"))
    (home / "query").mkdir()
    query.write_h5ad(home / "query" / "adata.h5ad")
    reference = load_reference(home / "minified")
    mapped = map_query(reference, query, batch_key="batch")
    write_mapping(mapped, query, home / "out", reference=reference, page=True)
    (home / "calibration").mkdir()
    shutil.copy(next((home / "out" / "calibration").glob("*.npz")), home / "calibration" / CALIBRATION)
    shutil.copytree(home / "out" / "graft", home / "graft")
    (home / "report").mkdir()
    for name in ("summary.json", "labels.csv", "map.npz"):
        shutil.copy(home / "out" / name, home / "report" / name)
    (home / "secret").mkdir()
    write_secret(home / "secret")
    return home


@pytest.fixture(scope="module")
def child(sound):
    files = {reader: sound / reader / name for reader, name, _ in TARGETS.values()}
    with Reader(files, sound / "secret") as reader:
        yield reader


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
    while time.monotonic() < end:
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
