"""A file that ends or holds up the process which reads it is refused by one process that is started for it."""

import subprocess
import sys

import h5py
import numpy as np
import pytest

from scgraft.errors import CorruptFile
from scgraft.files import trial
from scgraft.files.h5ad import open_h5, read_h5ad
from scgraft.testing import tiny_query
from scgraft.testing.tiny_model import TinyConfig

# The datatype of a text of any length, version 1 (HDF5 File Format Specification, IV.A.2.d): class 9, kind "string", size 16.
TEXT = bytes.fromhex("19010100100000001000000001000000")
IN_A_CHILD = "import sys, h5py; f = h5py.File(sys.argv[1]); f['obs'].attrs['encoding-version'][0]"


@pytest.fixture
def path(tmp_path):
    adata = tiny_query(TinyConfig(), n_cells=20)
    adata.write_h5ad(tmp_path / "adata.h5ad")
    return tmp_path / "adata.h5ad"


def damage(path, kind=0x97):
    """Another kind of the text of an attribute of obs: neither a string nor a row of numbers."""
    content = bytearray(path.read_bytes())
    at = content.index(TEXT, content.index(b"encoding-version"))
    while at >= 0:
        content[at + 1] = kind
        at = content.find(TEXT, at)
    path.write_bytes(content)


def test_what_crashes_hdf5_is_named(path):
    damage(path)
    # The damage is what it is meant to be: whoever reads it without care is ended by the system.
    assert subprocess.run([sys.executable, "-c", IN_A_CHILD, str(path)], check=False).returncode < 0
    with pytest.raises(CorruptFile, match=r"adata\.h5ad cannot be read: it is damaged in a way that crashes"):
        read_h5ad(path)


@pytest.mark.parametrize("kind", range(0x02, 0x100, 0x1D))
def test_every_other_kind_of_text_is_named_or_read(path, kind):
    damage(path, kind)
    try:
        read_h5ad(path)
    except CorruptFile:
        pass


def test_a_file_is_tried_once_for_as_long_as_it_stays(path, monkeypatch):
    started = []
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *args, **more: started.append(args) or run(*args, **more))
    for _ in range(3):
        read_h5ad(path)
    assert len(started) == 1
    with h5py.File(path, "r+") as file:
        file["uns/more"] = np.arange(3)
    read_h5ad(path)
    assert len(started) == 2


@pytest.mark.parametrize("executable", [None, "", "/bin/false", "/nowhere/python"])
def test_where_no_process_starts_the_file_is_walked_here(path, monkeypatch, executable):
    monkeypatch.setattr(sys, "executable", executable)
    assert read_h5ad(path).n_obs == 20
    with h5py.File(path, "r+") as file:
        file["uns/stolen"] = h5py.ExternalLink("/etc/hosts", "/")
    with pytest.raises(trial.UnsafeFile), open_h5(path):
        pass


def test_what_keeps_hdf5_busy_is_ended(path, monkeypatch):
    monkeypatch.setattr(trial, "START", f"print({trial.READY!r}, flush=True)\nwhile True: pass")
    monkeypatch.setattr(trial, "SECONDS", 1)
    monkeypatch.setattr(trial, "PATIENCE", 1)
    with pytest.raises(CorruptFile, match="keeps it busy"), open_h5(path):
        pass


def test_texts_of_any_length_are_read_within_the_memory(path):
    with h5py.File(path, "r+") as file:
        file["uns/texts"] = np.array(["x" * 1000] * 5000, dtype=object)
        file.create_dataset("uns/wide", data=np.zeros((3, 1 << 20)), compression="gzip")
        file.create_dataset("uns/empty", data=h5py.Empty("f4"))
    assert len(read_h5ad(path).uns["texts"]) == 5000
