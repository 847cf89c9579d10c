"""A home that is not there, or may not be written to, costs time and nothing else."""

import os
from pathlib import Path

import numpy as np
import pytest

from scgraft.calibration.store import load_calibration, save_calibration
from scgraft.errors import ScgraftError
from scgraft.files.cache import cache_root
from scgraft.results.placement import published_map
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
