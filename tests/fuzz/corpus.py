"""What comes of every hostile file that the tests make: ``PYTHONPATH=src:tests python tests/fuzz/corpus.py`` prints the table.

The rows are those of the fuzzer's table (``make fuzz`` prints that of random damage); a row that is named here runs alone:
``... corpus.py registry tensors``.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fuzz.pool import Outcome, Reader
from hostile_h5ad import harm, members, write_secret
from reference import test_hostile_pickles as pickles
from reference import test_one_change as one_change
from reference import test_unpickle
from scgraft.errors import ScgraftError
from scgraft.reference.unpickle import read_pickle, read_torch_file
from scgraft.testing import tiny_query, write_hub_folder
from scgraft.testing.tiny_model import TinyConfig

READ_AS = ("reference", "minified", "query", "backed query", "query in runs")
COLUMNS = ("fine", "different", "named", "raw", "hang", "crash", "read outside")


def outcome(read: Callable[[], object]) -> str:
    """How reading ended, in this process."""
    try:
        read()
    except ScgraftError:
        return "named"
    except Exception:  # noqa: BLE001 - it is counted
        return "raw"
    return "fine"


def of_pickles(home: Path) -> Iterator[str]:
    """Pickles that ask for code, for time or for memory, and files within pickles."""
    canary = home / "canary"
    bodies = [b"\x80\x02" + body + b"." for body in pickles.HOSTILE.values()]
    bodies += [pickles.attributes(pickles.in_a_file(data)) for data, _ in pickles.NESTED.values()]
    bodies += [test_unpickle.pickle.dumps({"x": payload}) for payload in test_unpickle.hostile(canary).values()]
    rng = np.random.default_rng(0)
    parts = test_unpickle.GLOBALS + test_unpickle.OPCODES
    bodies += [b"\x80\x02" + b"".join(parts[i] for i in rng.integers(len(parts), size=20)) + b"." for _ in range(500)]
    for body in bodies:
        (home / "attr.pkl").write_bytes(body)
        yield outcome(lambda: read_pickle(home / "attr.pkl"))
    assert not canary.exists(), "something was executed"


def of_archives(home: Path) -> Iterator[str]:
    """A model file whose archive is changed: names, sizes, compression, entries within and without."""
    from fuzz.mutate import of_zip

    write_hub_folder(home / "r", TinyConfig())
    sound = (home / "r" / "model.pt").read_bytes()
    for number in range(500):
        (home / "model.pt").write_bytes(of_zip(np.random.default_rng(number), sound))
        yield outcome(lambda: read_torch_file(home / "model.pt"))


def of_h5ad(home: Path, read_as: str) -> Iterator[str]:
    """Shaped AnnData files of all kinds that concern the reader."""
    plain, minified = TinyConfig(minified=None), TinyConfig(minified="latent_posterior_parameters")
    for name, config in (("reference", plain), ("minified", minified)):
        write_hub_folder(home / name, config)
    for name in ("query", "secret"):
        (home / name).mkdir()
    tiny_query(plain, n_cells=30, batches=("a", "b")).write_h5ad(home / "query" / "adata.h5ad")
    secret = write_secret(home / "secret")
    sound = {name: home / name / "adata.h5ad" for name in ("reference", "minified", "query")}
    sound |= {"backed query": sound["query"], "query in runs": sound["query"]}
    with Reader(sound, secret.parent) as reader:
        for kind, member in members():
            if kind == ("broken sparse" if read_as == "minified" else "bad map"):
                continue  # a minified file holds no counts, and the others no map
            shutil.rmtree(home / "case", ignore_errors=True)
            shutil.copytree(sound[read_as].parent, home / "case")
            found: Outcome = reader.read(read_as, harm(home / "case" / "adata.h5ad", kind, member, secret))
            yield "read outside" if found.outside else found.kind


def _of_changes(home: Path, kinds: str) -> Iterator[str]:
    for number, config in enumerate(one_change.MODELS):
        with pytest.MonkeyPatch.context() as patch:
            changed = one_change.Changed(write_hub_folder(home / f"{kinds}{number}", config), config, patch)
            for path, value in _changes(changed, kinds):
                try:
                    found = changed.outcome(one_change.at(path, value))
                except Exception:  # noqa: BLE001 - it is counted
                    found = "raw"
                yield {"same": "fine"}.get(found, found)


def _changes(changed: Any, kinds: str) -> Iterator[tuple[tuple[str, ...], object]]:
    if kinds == "tensors":
        state = changed.whole["model_state_dict"]
        tensors = [key for key, value in state.items() if isinstance(value, np.ndarray)]
        for key, change in itertools.product(tensors, one_change.TENSOR_CHANGES.values()):
            yield ("model_state_dict", key), change
        return
    for root in (("attr_dict", "registry_"), ("attr_dict", "init_params_")):
        places = [(*root, *path) for path in one_change.entries(changed.whole[root[0]][root[1]])]
        yield from itertools.product(places, [*one_change.WRONG, one_change.DELETE])


ROWS: dict[str, tuple[str, Callable[[Path], Iterator[str]]]] = {
    "pickles": ("pickles", of_pickles),
    "archives": ("archives of a model", of_archives),
    "tensors": (
        "changes of single tensors (deleted, wrong shape, wrong numbers)",
        lambda home: _of_changes(home, "tensors"),
    ),
    "registry": ("changes of single registry entries and options", lambda home: _of_changes(home, "registry")),
    **{f"h5ad as {name}": (f"shaped h5ad, read as {name}", partial(of_h5ad, read_as=name)) for name in READ_AS},
}


def main() -> None:
    print(f"| tried | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}", flush=True)
    for row in sys.argv[1:] or ROWS:
        name, make = ROWS[row]
        with tempfile.TemporaryDirectory() as home:
            os.environ["SCGRAFT_CACHE"] = home
            counts = Counter(make(Path(home)))
        print(f"| {sum(counts.values()):,} {name} | {' | '.join(f'{counts[c]:,}' for c in COLUMNS)} |", flush=True)


if __name__ == "__main__":
    main()
