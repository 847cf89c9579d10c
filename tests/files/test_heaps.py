"""A heap in which libhdf5 would go round for ever is refused; every heap that h5py writes passes."""

import struct

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scgraft.errors import CorruptFile
from scgraft.files.h5ad import open_h5
from scgraft.files.heaps import SIGNATURE


def written(path, texts):
    with h5py.File(path, "w") as file:
        file["texts"] = np.array(texts, dtype=object)
        file.attrs["order"] = np.array(texts[:20], dtype=object)
    return path


TEXTS = st.lists(
    st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=300), min_size=1, max_size=200
)


@settings(max_examples=30)
@given(TEXTS)
def test_what_h5py_writes_passes(tmp_path_factory, texts):
    path = written(tmp_path_factory.getbasetemp() / "texts.h5", texts)
    with open_h5(path) as file:
        assert file["texts"].asstr()[:].tolist() == texts


@pytest.mark.parametrize(
    ("index", "size"),
    [(0, 0), (0, 2**64 - 16), (0, 2**64 - 4096), (0, 2**64 - 1), (1, 2**64 - 24), (1, 2**64 - 4096), (7, 2**64 - 1)],
)
def test_objects_that_lead_nowhere_are_refused(tmp_path, index, size):
    path = written(tmp_path / "texts.h5", ["a text", "another"] * 9)
    content = bytearray(path.read_bytes())
    at = content.index(SIGNATURE) + 16
    content[at : at + 16] = struct.pack("<HHIQ", index, 0, 0, size)
    path.write_bytes(content)
    with pytest.raises(CorruptFile, match="heap of texts is damaged at byte"), open_h5(path):
        pass


def test_a_heap_behind_a_large_dataset_is_found(tmp_path):
    path = tmp_path / "texts.h5"
    with h5py.File(path, "w") as file:
        file["numbers"] = np.arange(1 << 19)
        file["texts"] = np.array(["a text"] * 9, dtype=object)
    content = bytearray(path.read_bytes())
    at = content.rindex(SIGNATURE) + 16
    content[at : at + 16] = bytes(16)
    path.write_bytes(content)
    with pytest.raises(CorruptFile, match="heap of texts is damaged"), open_h5(path):
        pass
