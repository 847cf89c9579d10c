"""What a pickle may cost: each of these small files once hung, filled the memory or ended the interpreter."""

import contextlib
import datetime
import pickle
import struct
import time
import zipfile

import numpy as np
import pandas as pd
import pytest

from scgraft.errors import CorruptFile, UnsafeFile, UnsupportedModel
from scgraft.files import budget as budgets
from scgraft.reference import scvi_format
from scgraft.reference.hub import fetch
from scgraft.reference.scvi_format import read
from scgraft.reference.unpickle import read_pickle, read_torch_file
from scgraft.testing import write_hub_folder
from scgraft.testing.tiny_model import TinyConfig
from scgraft.values.names import level_name

SECONDS = 10


def test_the_files_of_a_reference_share_one_budget(tmp_path, monkeypatch):
    """What one of them takes is not left for the others."""
    folder = write_hub_folder(tmp_path / "r", TinyConfig(minified="latent_posterior_parameters"))
    assert read(fetch(folder)).latent is not None
    spent = []

    def read_maps(obsm, n_cells, budget):
        spent.append(n_cells)
        monkeypatch.setattr(budgets.time, "thread_time", lambda: 1e9)
        return {}, ()

    monkeypatch.setattr(scvi_format, "read_maps", read_maps)
    with pytest.raises(CorruptFile, match="takes far longer to read"):
        read(fetch(folder))
    assert spent


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def called(module: str, name: str, *args: bytes) -> bytes:
    return f"c{module}\n{name}\n".encode() + b"(" + b"".join(args) + b"tR"


def long_number(value: int) -> bytes:
    data = value.to_bytes(12, "little")
    return b"\x8a" + bytes([len(data)]) + data


N = 300_000
HOSTILE = {
    "a tuple nested without an end": b"}" + text("k") + b")" + b"\x85" * 200_000 + b"s",
    "a tuple nested without an end, as a key": b"}" + b")" + b"\x85" * 200_000 + b"Ns",
    "a list nested without an end": b"}" + text("k") + b"]" * 200_000 + b"a" * 199_999 + b"s",
    "a dictionary nested without an end": b"}" + (text("k") + b"}") * 200_000 + b"s" * 200_000,
    "tuples of tuples as a key": b"}" + b")" + b"2\x86" * 60 + b"Ns",
    "sets of sets": b"}" + text("k") + b"(" + b"(\x91" * 1000 + b"\x91s",
    "colliding keys": b"}(" + b"".join(long_number(i * (2**61 - 1)) + b"N" for i in range(2**3, 60_000)) + b"u",
    "a range": b"}" + text("k") + called("builtins", "range", number(50_000_000)) + b"s",
    "many ranges": b"}(" + b"".join(number(i) + called("builtins", "range", number(10**6)) for i in range(100)) + b"u",
    "a memo far away": b"}" + text("k") + b"N" + b"r" + struct.pack("<I", 2**32 - 1) + b"s",
    "a list copied again and again": (
        b"}(" + text("k") + b"(" + b"N" * N + b"lq\x00"
        + b"".join(number(i) + called("builtins", "list", b"h\x00") for i in range(2000)) + text("x") + b"u"
    ),
    "bytes copied again and again": (
        b"}(" + text("k") + b"B" + struct.pack("<I", N) + bytes(N) + b"q\x00"
        + b"".join(number(i) + called("_codecs", "encode", b"h\x00", text("latin1")) for i in range(4000)) + text("x") + b"u"
    ),
    "one text in the name of a device a million times": (
        b"}" + text("k") + text("x" * 100_000) + b"q\x00" + b"0" + called("torch", "device", b"h\x00" * 20_000) + b"s"
    ),
    "a text in a text in a text": b"}" + text("k") + called("torch", "device", b")" + b"2\x86" * 60) + b"s",
    "nothing, two million times": b"}" + b"N0" * 1_000_000,
    "a number of a million digits": b"}" + text("k") + b"L" + b"9" * 200_000 + b"L\ns",
    "a long number": b"}" + text("k") + b"\x8b" + struct.pack("<I", 1_000_000) + b"\x7f" * 200_000 + b"s",
    "a text longer than the file": b"}" + b"\x8d" + struct.pack("<Q", 2**62) + b"x",
    "marks": b"(" * 500_000,
    "buffers of protocol 5": b"}" + text("k") + b"\x97s",
    "an array of a size that nothing fills": (
        b"}" + text("k") + b"cnumpy.core.multiarray\n_reconstruct\n)R(K\x01" + b"(" + number(2**30) + number(2**30) + b"t"
        + called("numpy", "dtype", text("f8")) + b"\x89C\x08" + bytes(8) + b"tbs"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_no_pickle_hangs_or_fills_the_memory(kind, tmp_path):
    """Read, or refused by name, in seconds of the processor."""
    path = tmp_path / "attr.pkl"
    path.write_bytes(b"\x80\x02" + HOSTILE[kind] + b".")
    began = time.thread_time()
    with contextlib.suppress(CorruptFile):
        read_pickle(path)
    assert time.thread_time() - began < SECONDS


def test_storages_that_overlap_in_the_archive_are_not_read_again_and_again(tmp_path):
    """A thousand tensors that view all of one storage."""
    torch = pytest.importorskip("torch")
    base = torch.zeros(1_000_000)
    torch.save({str(i): base.view(1000, 1000) for i in range(300)}, tmp_path / "model.pt")
    with pytest.raises(CorruptFile, match="memory"):
        read_torch_file(tmp_path / "model.pt")


def test_an_archive_that_cannot_be_unpacked_is_named(tmp_path):
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", pickle.dumps({"k": "v" * 10_000}, protocol=2))
    data = bytearray(path.read_bytes())
    at = data.index(b"data.pkl") + len("data.pkl")
    data[at : at + 8] = b"\xff" * 8
    path.write_bytes(bytes(data))
    with pytest.raises(CorruptFile):
        read_torch_file(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_named(method, tmp_path):
    with zipfile.ZipFile(tmp_path / "model.pt", "w", method) as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}))
    with pytest.raises(CorruptFile, match="compressed or encrypted"):
        read_torch_file(tmp_path / "model.pt")


class Named:
    """Pickles as a global of that name."""

    def __init__(self, module, name):
        self.data = f"c{module}\n{name}\n".encode()


@pytest.mark.parametrize(
    ("module", "name", "error"),
    [
        ("torch.nn.modules.activation", "LeakyReLU", UnsupportedModel),
        ("torch._C._nn", "softplus", UnsupportedModel),
        ("torch.nn.functional", "softplus", UnsupportedModel),
        ("torch.nn.modules.module", "_global_hooks", UnsafeFile),
        ("torch.storage", "_load_from_bytes_of_another", UnsafeFile),
        ("os", "system\x1b[31m", UnsafeFile),
    ],
)
def test_what_runs_no_code_is_not_called_unsafe(module, name, error, tmp_path):
    (tmp_path / "attr.pkl").write_bytes(b"\x80\x02}" + text("k") + Named(module, name).data + b"s.")
    with pytest.raises(error) as raised:
        read_pickle(tmp_path / "attr.pkl")
    assert "\x1b" not in str(raised.value)


VALUES = [
    pd.Interval(0.0, 1.5), pd.Interval(0, 2, closed="left"), pd.Interval(1, 2, closed="both"), pd.Timestamp("2020-02-03 04:05"),
    pd.Timestamp("2021-01-01").as_unit("s"), np.datetime64("2020-02-03"), np.datetime64("2020-02-03T04:05", "ns"),
    np.float64(2.0), np.int8(3), np.True_, "x", 7,
]  # fmt: skip


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("value", VALUES, ids=str)
def test_levels_have_the_name_that_pandas_gives_them(value, protocol, tmp_path):
    """Also with the protocols that scvi-tools does not use."""
    if protocol < 2 and isinstance(value, np.generic | pd.Interval):
        pytest.skip("pickled through copyreg, which is not on the list")
    path = tmp_path / "attr.pkl"
    path.write_bytes(pickle.dumps({"one": value, "list": [value], "array": np.array([value, value], object)}, protocol))
    found = read_pickle(path)
    wanted = level_name(pd.Timestamp(value) if isinstance(value, np.datetime64) else value)
    assert [level_name(v) for v in (found["one"], *found["list"], *found["array"])] == [wanted] * 4


def test_an_array_of_dates(tmp_path):
    dates = np.array(["2020-01-01T00:00", "2021-05-06T07:08"], "M8[ns]")
    (tmp_path / "attr.pkl").write_bytes(pickle.dumps({"dates": dates, "day": datetime.datetime.min.year}, 2))
    found = read_pickle(tmp_path / "attr.pkl")["dates"]
    assert found.dtype == dates.dtype and np.array_equal(found, dates)


def storage_file(obj: bytes, *, magic=0x1950A86A20F9469CFC6C, keys=("0",), length=4, raw=bytes(16)) -> bytes:
    """What torch's format before the zip has in it, with the pickle of the object as given."""
    head = [pickle.dumps(value, 2) for value in (magic, 1001, {"little_endian": True})]
    return b"".join([*head, obj, pickle.dumps(list(keys), 2), struct.pack("<q", length), raw])


def persistent(kind: str = "FloatStorage", length: int = 4) -> bytes:
    """The pickle of a tensor's storage."""
    pid = b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text("0") + text("cpu") + number(length) + b"Nt"
    return b"\x80\x02" + pid + b"Q."


def in_a_file(data: bytes) -> bytes:
    return b"ctorch.storage\n_load_from_bytes\n" + b"(B" + struct.pack("<I", len(data)) + data + b"tR"


def attributes(value: bytes) -> bytes:
    return b"\x80\x02}" + text("k") + value + b"s."


def test_a_tensor_in_a_plain_pickle_is_read_as_torch_reads_it(tmp_path):
    torch = pytest.importorskip("torch")
    tensors = {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.tensor([True, False]), "c": torch.zeros(0, 4)}
    (tmp_path / "attr.pkl").write_bytes(pickle.dumps(tensors))
    found = read_pickle(tmp_path / "attr.pkl")
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.numpy().dtype and np.array_equal(found[name], tensor.numpy())


NESTED = {
    "code": (storage_file(b"\x80\x02" + called("os", "system", text("true")) + b"."), UnsafeFile),
    "a file in a file in a file": (
        storage_file(b"\x80\x02" + in_a_file(storage_file(persistent())) + b"."),
        UnsafeFile,
    ),
    "another magic number": (storage_file(persistent(), magic=7), CorruptFile),
    "a storage that is not there": (storage_file(persistent(), raw=b""), CorruptFile),
    "a storage longer than declared": (storage_file(persistent(), raw=bytes(20)), CorruptFile),
    "a length that nothing fills": (storage_file(persistent(length=2**30), length=2**30), CorruptFile),
    "two lengths": (storage_file(persistent(), length=5), CorruptFile),
    "another key": (storage_file(persistent(), keys=("1",)), CorruptFile),
    "two storages": (storage_file(persistent()[:-1] + persistent()[2:], keys=("0", "0")), CorruptFile),
    "no storage": (storage_file(pickle.dumps({"a": 1}, 2)), CorruptFile),
    "a storage of objects": (storage_file(persistent("Tensor")), UnsafeFile),
    "cut": (storage_file(persistent())[:60], CorruptFile),
    "nothing": (b"", CorruptFile),
}


@pytest.mark.parametrize("kind", NESTED)
def test_a_file_within_a_pickle_is_refused_by_name(kind, tmp_path):
    data, error = NESTED[kind]
    (tmp_path / "attr.pkl").write_bytes(attributes(in_a_file(data)))
    with pytest.raises(error):
        read_pickle(tmp_path / "attr.pkl")


def test_a_file_within_a_pickle_is_paid_for_each_time_it_is_read(tmp_path):
    data = storage_file(persistent(length=25_000), length=25_000, raw=bytes(100_000))
    again = b"".join(b"h\x00(h\x01tR0" for _ in range(20_000))
    body = b"ctorch.storage\n_load_from_bytes\nq\x000B" + struct.pack("<I", len(data)) + data + b"q\x010" + again
    (tmp_path / "attr.pkl").write_bytes(b"\x80\x02" + body + b"}.")
    began = time.thread_time()
    with pytest.raises(CorruptFile, match="memory"):
        read_pickle(tmp_path / "attr.pkl")
    assert time.thread_time() - began < SECONDS


def test_a_model_file_has_no_file_within_it(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("a/data.pkl", attributes(in_a_file(storage_file(persistent()))))
    with pytest.raises(UnsafeFile, match="opens another file within it"):
        read_torch_file(tmp_path / "model.pt")


def test_a_matrix_a_range_and_a_table_with_two_indices_are_inert_or_plain(tmp_path):
    index = pd.MultiIndex.from_tuples([("a", "x"), ("b", "y")])
    saved = {
        "mask": np.matrix([[True, False]]),
        "range": range(2, 9, 3),
        "table": pd.DataFrame({"c": [1, 2]}, index=index),
    }
    (tmp_path / "attr.pkl").write_bytes(pickle.dumps(saved))
    found = read_pickle(tmp_path / "attr.pkl")
    assert type(found["mask"]) is np.ndarray and found["mask"].tolist() == [[True, False]]
    assert found["range"] == [2, 5, 8] and found["table"] is None
