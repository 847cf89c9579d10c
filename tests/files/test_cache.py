"""A home that is not there, or may not be written to, costs time and nothing else."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from scgraft.calibration.store import load_calibration, save_calibration
from scgraft.errors import ScgraftError
from scgraft.files.atomic import WORKSPACE
from scgraft.files.cache import cache_root
from scgraft.results.placement import published_map
from scgraft.testing import write_hub_folder
from scgraft.testing.tiny_model import TinyConfig
from tiny import reference_of


@pytest.fixture
def homeless(monkeypatch, tmp_path):
    for name in ("SCGRAFT_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"SCGRAFT_CACHE": "/a"}, "/a"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/scgraft"),
        ({"HOME": "/c"}, "/c/.cache/scgraft"),
        ({"SCGRAFT_CACHE": "/a", "XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/a"),
        ({"SCGRAFT_CACHE": "", "XDG_CACHE_HOME": "", "HOME": "/c"}, "/c/.cache/scgraft"),
    ],
)
def test_where_the_cache_is(monkeypatch, variables, expected):
    for name in ("SCGRAFT_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(cache_root()) == expected


def test_without_a_home_nothing_is_kept_and_nothing_is_made_here(homeless):
    root = cache_root()
    with pytest.raises((OSError, ScgraftError)):
        save_calibration({}, root / "calibration")
    with pytest.raises(ScgraftError):
        load_calibration(root / "calibration")
    assert list(homeless.iterdir()) == []


@pytest.mark.parametrize("content", [None, b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00\x10\x00{'descr': 3", b"pickle"])
def test_a_map_that_cannot_be_kept_or_was_damaged_is_made_anew(tmp_path, monkeypatch, content):
    reference = reference_of(TinyConfig(minified="latent_posterior_parameters"))
    reference.maps.clear()
    monkeypatch.setattr("scgraft.results.placement._umap", lambda points: np.ascontiguousarray(points[:, :2]))
    keep = Path(os.devnull) if content is None else tmp_path
    if content is not None:
        (tmp_path / "umap.npy").write_bytes(content)
    first, second = (published_map(reference, keep=keep)[0] for _ in range(2))
    assert np.array_equal(first, second) and first.dtype == np.float32
    assert content is None or np.array_equal(np.load(tmp_path / "umap.npy"), first)


MAP = """
import sys
from scgraft.mapping.load import load_reference
from scgraft.mapping.map import map_query
from scgraft.testing import tiny_query
from scgraft.testing.tiny_model import TinyConfig
query = tiny_query(TinyConfig(), n_cells=30, batches=("q",))
mapped = map_query(load_reference(sys.argv[1]), query, batch_key="batch")
print(mapped.labels["cell_type"].matrix.sum(axis=0).tolist(), mapped.novelty.score.sum(), sorted(mapped.calibration))
"""


def start(reference, **variables):
    environment = {name: value for name, value in os.environ.items() if name not in ("SCGRAFT_CACHE", "XDG_CACHE_HOME")}
    line = [sys.executable, "-c", MAP, str(reference)]
    return subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment | variables, text=True
    )


def test_processes_that_share_a_cache_and_one_that_cannot_write_to_its_home_map_the_same(tmp_path):
    """Two make the same calibration at once, a third takes it from the cache; for a fourth nothing can be kept."""
    reference = write_hub_folder(tmp_path / "r", TinyConfig(minified="latent_posterior_parameters"))
    cache = tmp_path / "cache"
    both = [start(reference, SCGRAFT_CACHE=str(cache)) for _ in range(2)]
    said = [process.communicate(timeout=600) for process in both]
    assert all(process.returncode == 0 for process in both), said
    files = {path: path.read_bytes() for path in cache.rglob("*") if path.is_file()}
    assert any(path.suffix == ".npz" for path in files) and not any(WORKSPACE in str(path) for path in cache.rglob("*"))
    third = start(reference, SCGRAFT_CACHE=str(cache)).communicate(timeout=600)
    assert files == {path: path.read_bytes() for path in cache.rglob("*") if path.is_file()}
    # Nobody makes a folder in /proc, whatever their rights.
    fourth = [start(reference, HOME="/proc").communicate(timeout=600)] if Path("/proc/self").exists() else []
    assert len({out for out, _ in [*said, third, *fourth]}) == 1, [*said, third, *fourth]
