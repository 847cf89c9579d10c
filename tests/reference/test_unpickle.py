"""Law 9: whatever bytes a file holds, reading it runs none of its code."""

import builtins
import importlib
import io
import os
import pickle
import struct
import subprocess
import zipfile
from collections import OrderedDict, defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scgraft.errors import CorruptFile, UnsafeFile
from scgraft.reference.unpickle import read_pickle, read_torch_file
from shared_files import SHARED

MODELS = sorted([*SHARED.glob("golden*/*/model.pt"), *SHARED.glob("hub/cells/*/model.pt")])


@pytest.mark.skipif(not MODELS, reason="needs shared/golden, which is not beside this checkout")
@pytest.mark.parametrize("path", MODELS[::6], ids=lambda p: p.parent.name)
def test_real_models_are_read_as_torch_reads_them(path):
    found, expected = read_torch_file(path), torch.load(path, map_location="cpu", weights_only=False)
    for key, value in expected["model_state_dict"].items():
        if isinstance(value, torch.Tensor):
            array = found["model_state_dict"][key]
            assert array.dtype == value.numpy().dtype and np.array_equal(array, value.numpy()), key
    names, wanted = found["var_names"], expected["var_names"]
    if not isinstance(wanted, dict):  # one array for each modality of a MuData, else one array
        names, wanted = {"": names}, {"": wanted}
    assert names.keys() == wanted.keys() and all(np.array_equal(names[key], wanted[key]) for key in wanted)
    assert set(found["attr_dict"]["registry_"]) == set(expected["attr_dict"]["registry_"])


def saved(value, path):
    torch.save(value, path)
    return path


DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype(dtype, tmp_path):
    tensor = torch.arange(6).reshape(2, 3).to(dtype)
    found = read_torch_file(saved({"t": tensor}, tmp_path / "m.pt"))["t"]
    assert found.tolist() == tensor.tolist()


def test_views_parameters_and_plain_values(tmp_path):
    base = torch.arange(24.0).reshape(4, 6)
    value = {
        "transposed": base.T,
        "column": base[:, 2],
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(3),
        "parameter": torch.nn.Parameter(base),
        "nested": (1, ["a", {"b": None}], {True}),
        "default": defaultdict(dict, {"k": {"j": 1}}),
        "ordered": OrderedDict(a=1),
        "objects": np.array(["g1", "g2"], dtype=object),
        "strings": np.array(["x", "yy"]),
        "ints": np.arange(3, dtype=np.int16),
        "number": np.float64(2.5),
    }
    found = read_torch_file(saved(value, tmp_path / "m.pt"))
    for key in ("transposed", "column", "empty", "scalar", "parameter"):
        assert np.array_equal(found[key], value[key].detach().numpy()), key
    assert found["nested"] == value["nested"] and found["ordered"] == {"a": 1}
    assert found["default"] == {"k": {"j": 1}} and type(found["default"]) is dict
    for key in ("objects", "strings", "ints"):
        assert found[key].dtype == value[key].dtype and np.array_equal(found[key], value[key]), key
    assert found["number"] == 2.5


class Reduce:
    """Pickles as a call."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


def hostile(canary):
    command = f"touch {canary}"
    return {
        "os.system": Reduce(os.system, command),
        "subprocess": Reduce(subprocess.Popen, ["touch", str(canary)]),
        "eval": Reduce(eval, f"open({str(canary)!r}, 'w')"),
        "exec": Reduce(exec, f"open({str(canary)!r}, 'w')"),
        "nested": Reduce(list, Reduce(map, os.system, [command])),
        "getattr": Reduce(getattr, Reduce(__import__, "os"), "system"),
        "open": Reduce(builtins.open, str(canary), "w"),
        "importlib": Reduce(importlib.import_module, "antigravity"),
        "a file removed": Reduce(os.remove, str(canary)),
        "compiled": Reduce(exec, Reduce(compile, command, "x", "exec")),
        "in an argument": Reduce(np.dtype, Reduce(os.system, command)),
    }


KINDS = list(hostile("x"))


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_files_are_refused_and_run_nothing(kind, tmp_path):
    canary = tmp_path / "canary"
    payload = hostile(canary)[kind]
    plain = tmp_path / "attr.pkl"
    plain.write_bytes(pickle.dumps({"x": payload}))
    zipped = tmp_path / "model.pt"
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"x": payload}, protocol=2))
    for read, path in ((read_pickle, plain), (read_torch_file, zipped)):
        with pytest.raises(UnsafeFile, match="refers to .*Nothing of it was executed"):
            read(path)
    with pytest.raises(CorruptFile, match="not a zip file"):
        read_torch_file(plain)
    assert not canary.exists()


def raw(tmp_path, *opcodes):
    path = tmp_path / "attr.pkl"
    path.write_bytes(b"".join(opcodes) + b".")
    return path


@pytest.mark.parametrize("module", ["builtins", "__builtin__", "posix", "torch.storage", "numpy", "pandas.io.pickle"])
@pytest.mark.parametrize("name", ["eval", "system", "_load_from_bytes", "f2py.os.system", "sys.modules", "read_pickle"])
def test_globals_are_matched_as_exact_pairs(module, name, tmp_path):
    path = raw(tmp_path, b"\x80\x04", *(b"\x8c" + bytes([len(s)]) + s.encode() for s in (module, name)), b"\x93")
    try:
        read_pickle(path)
    except (UnsafeFile, CorruptFile):
        return
    raise AssertionError("a pickle of a bare global is not a model")


def test_build_cannot_change_a_stand_in(tmp_path):
    """BUILD on an allowed function, with a slot state that sets attributes."""
    path = raw(
        tmp_path,
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n",
        b"N}X\x0c\x00\x00\x00__defaults__)s\x86b",
    )
    with pytest.raises(CorruptFile, match="must not change a function"):
        read_pickle(path)


def test_extension_codes_are_refused(tmp_path):
    with pytest.raises(CorruptFile):
        read_pickle(raw(tmp_path, b"\x80\x02\x82\x01"))


def test_shared_tuples_do_not_unfold_exponentially(tmp_path):
    value: tuple = ()
    for _ in range(120):
        value = (value, value)
    path = tmp_path / "attr.pkl"
    path.write_bytes(pickle.dumps({"x": value}))
    assert read_pickle(path)["x"] is not None


def test_zip_bomb(tmp_path):
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}))
        with archive.open("a/data/0", "w") as file:
            for _ in range(300):
                file.write(bytes(1 << 20))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(CorruptFile, match="compressed entry of 314572800 bytes"):
        read_torch_file(path)


def test_a_tensor_beyond_its_storage(tmp_path):
    path = saved({"t": torch.arange(4.0)}, tmp_path / "m.pt")
    with zipfile.ZipFile(path) as archive:
        files = {i.filename: archive.read(i) for i in archive.infolist()}
    key = next(k for k in files if k.endswith("data/0"))
    for change, match in ((files[key][:8], "4 elements were declared"), (files[key] + bytes(4), "20 bytes")):
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in (files | {key: change}).items():
                archive.writestr(name, data)
        with pytest.raises(CorruptFile, match=match):
            read_torch_file(path)
    stride = files[next(k for k in files if k.endswith("data.pkl"))].replace(b"K\x04\x85", b"K\x05\x85")
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, stride if name.endswith("data.pkl") else data)
    with pytest.raises(CorruptFile, match="reaches beyond its storage|elements were declared"):
        read_torch_file(path)


def test_lfs_pointer(tmp_path):
    path = tmp_path / "model.pt"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    with pytest.raises(CorruptFile, match="Git LFS pointer"):
        read_torch_file(path)


def good_bytes():
    buffer = io.BytesIO()
    torch.save({"w": torch.arange(6.0), "attr": {"registry_": defaultdict(dict), "n": np.arange(3)}}, buffer)
    return buffer.getvalue()


GOOD = good_bytes()


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255), st.booleans())
def test_damaged_files_load_or_raise_a_named_error(tmp_path_factory, position, change, cut):
    data = bytearray(GOOD)
    if cut:
        data = data[:position]
    else:
        data[position] ^= change
    path = tmp_path_factory.getbasetemp() / "damaged.pt"
    path.write_bytes(bytes(data))
    try:
        read_torch_file(path)
    except (UnsafeFile, CorruptFile):
        pass


GLOBALS = [
    b"cos\nsystem\n",
    b"cbuiltins\neval\n",
    b"cnumpy\ndtype\n",
    b"ccollections\nOrderedDict\n",
    b"cpandas.core.frame\nDataFrame\n",
    b"cnumpy.core.multiarray\n_reconstruct\n",
]
OPCODES = [
    b"N",
    b")",
    b"]",
    b"}",
    b"(",
    b"t",
    b"R",
    b"b",
    b"0",
    b"2",
    b"\x81",
    b"\x85",
    b"\x86",
    b"s",
    b"a",
    b"e",
    b"u",
]
OPCODES += [b"K\x01", b"X" + struct.pack("<I", 1) + b"x", b"q\x00", b"h\x00", b"Q", b"o", b"\x93", b"\x8f", b"\x90"]


@given(st.lists(st.sampled_from(GLOBALS + OPCODES) | st.binary(max_size=3), max_size=25))
def test_random_programs_load_or_raise_a_named_error(tmp_path_factory, program):
    path = tmp_path_factory.getbasetemp() / "random.pkl"
    path.write_bytes(b"\x80\x02" + b"".join(program) + b".")
    try:
        read_pickle(path)
    except (UnsafeFile, CorruptFile):
        pass
