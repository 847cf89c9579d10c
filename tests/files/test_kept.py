"""What is kept of references: listed, limited, removed, and not believed where somebody else can write."""

import os
from dataclasses import dataclass

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from scgraft.calibration import calibrate as module
from scgraft.calibration.store import cache_folder
from scgraft.cli.main import main
from scgraft.files import cache
from scgraft.testing.tiny_model import TinyConfig
from tiny import reference_of


@dataclass(frozen=True)
class Stub:
    """Stands for a calibration."""

    name: str
    base_cells: str = ""


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("SCGRAFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fill(root, sizes):
    """Folders used one after the other."""
    for i, size in enumerate(sizes):
        folder = root / "calibration" / f"{i:03d}"
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(b"x" * size)
        for path in (folder / "file", folder):
            os.utime(path, (1000 + i, 1000 + i))


@given(sizes=st.lists(st.integers(0, 50), max_size=6), limit=st.integers(0, 200))
def test_the_longest_unused_go_first(tmp_path_factory, sizes, limit):
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("cache")
        patch.setenv("SCGRAFT_CACHE", str(root))
        fill(root, sizes)
        cache.keep_below(limit)
        left = [int(entry.path.name) for entry in cache.kept()]
        total = np.cumsum(sizes[::-1])
        assert sorted(left) == sorted(i for i, t in zip(range(len(sizes))[::-1], total, strict=True) if t <= limit)


def test_what_is_used_is_kept(root):
    fill(root, [10, 10, 10])
    cache.mark_used(root / "calibration/000")
    cache.keep_below(20)
    assert [entry.path.name for entry in cache.kept()] == ["000", "002"]


def test_the_cache_is_listed_and_cleared(root):
    assert "0 references" in CliRunner().invoke(main, ["cache", "list"]).output
    fill(root, [1_500_000, 500_000])
    listed = CliRunner().invoke(main, ["cache", "list"]).output
    assert listed.index("001") < listed.index("000 ") and "2 references, 2.0 MB" in listed
    assert "2.0 MB removed" in CliRunner().invoke(main, ["cache", "clear"]).output
    assert cache.kept() == [] and root.exists()


def test_a_cache_that_others_can_write_to_is_left_alone(root, monkeypatch):
    found, made = Stub("found"), Stub("made")
    reference = reference_of(TinyConfig(minified="latent_posterior_parameters", n_cells=60))
    monkeypatch.setattr(module, "calibrate", lambda *given, **options: {"": made})
    monkeypatch.setattr(module, "load_calibration", lambda *given, **options: {"": found})
    monkeypatch.setattr(module, "save_calibration", lambda *given, **options: None)
    folder = cache_folder(reference, ())
    folder.mkdir(parents=True)
    assert cache.is_own(folder) and module.calibration_of(reference, [])[""].name == "found"
    folder.chmod(0o777)
    assert not cache.is_own(folder) and module.calibration_of(reference, []) == {"": made}
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    folder.chmod(0o755)
    assert not cache.is_own(folder / "not there yet")
