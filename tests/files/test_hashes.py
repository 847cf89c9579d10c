"""A changed byte in the hub's cache is found, whichever file it is in; names and commits as huggingface_hub lays them out."""

import hashlib
import shutil
import subprocess

import pytest

from scgraft.errors import CorruptFile
from scgraft.files.hashes import check_stated_hash, git_blob, sha256, stated_hash
from scgraft.reference import hub

CONTENT = {"model.pt": b"weights" * 99, "adata.h5ad": b"cells" * 999, "README.md": b"a card", "metrics.json": b"{}"}
LARGE = ("model.pt", "adata.h5ad")  # by the large-file protocol: named by their sha256


@pytest.fixture
def snapshot(tmp_path, monkeypatch):
    folder = tmp_path / "snapshots" / ("c" * 40)
    folder.mkdir(parents=True)
    (tmp_path / "blobs").mkdir()
    for name, content in CONTENT.items():
        if name in LARGE:
            stated = hashlib.sha256(content).hexdigest()
        else:
            stated = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        (tmp_path / "blobs" / stated).write_bytes(content)
        (folder / name).symlink_to(tmp_path / "blobs" / stated)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *args, **kwargs: str(folder))
    return folder


def test_a_sound_cache_is_taken(snapshot):
    assert hub.download("org/name", None, hub.PATTERNS) == snapshot


@pytest.mark.parametrize("name", CONTENT)
@pytest.mark.parametrize(
    "change", [lambda b: b[:-1] + bytes([b[-1] ^ 1]), lambda b: b[:-1], lambda b: b + b"\0", lambda b: b""]
)
def test_a_changed_byte_is_found(snapshot, name, change):
    blob = (snapshot / name).resolve()
    blob.write_bytes(change(blob.read_bytes()))
    with pytest.raises(CorruptFile, match=f"{name} in the cache is not the file of the hub"):
        hub.download("org/name", None, hub.PATTERNS)


def test_a_file_that_nobody_asked_for_is_not_looked_at(snapshot):
    (snapshot / "adata.h5ad").resolve().write_bytes(b"changed")
    assert hub.download("org/name", None, ["README.md"]) == snapshot


def test_copied_files_have_no_stated_hash(snapshot, tmp_path):
    shutil.copytree(snapshot, tmp_path / "copy")
    assert stated_hash(tmp_path / "copy" / "model.pt") is None
    check_stated_hash(tmp_path / "copy" / "model.pt")


def test_hashes_are_those_of_git_and_sha256sum(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 9000)
    assert sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    if shutil.which("git"):
        assert git_blob(path) == subprocess.check_output(["git", "hash-object", path], text=True).strip()
