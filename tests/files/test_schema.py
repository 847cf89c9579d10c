"""Documents and arrays are what they must be, or a named error; every value that stands nowhere is tried everywhere."""

import io
import json
import zipfile
from dataclasses import asdict

import numpy as np
import pytest

from fuzz.mutate import VALUES
from scgraft.errors import CorruptFile
from scgraft.files import schema
from scgraft.files.npz import Array, read_npz, read_one
from scgraft.values.graft import FitConfig, FitRecord
from scgraft.values.novelty import Dossier
from scgraft.values.query import Alignment, AlignOptions
from scgraft.values.reference import BaseId

RECORD = FitRecord(FitConfig(), True, "done", loss=((0, 1.5),), reference_unchanged=("x", "x"), moved={"a": 0.1})
OPTIONS = AlignOptions()
VALID = [
    RECORD,
    FitConfig(epochs=3, fit_cells=None),
    BaseId("org/name", "a" * 40, "b" * 64, "SCVI"),
    Dossier(1, 2, 3, {"a": 2}, {"T": 0.5}, (("g", 1.5),), (), ("c",), "said"),
    OPTIONS,
]


def stored(value):
    return json.loads(json.dumps(asdict(value)))


@pytest.mark.parametrize("value", VALID, ids=lambda v: type(v).__name__)
def test_what_is_written_is_let_through(value):
    schema.of(type(value))(stored(value), "it")
    schema.of(Alignment)  # every type of it has a check


@pytest.mark.parametrize("value", VALID, ids=lambda v: type(v).__name__)
@pytest.mark.parametrize("odd", VALUES, ids=lambda v: repr(v)[:20])
def test_what_is_let_through_makes_the_value(value, odd):
    """Whatever stands in the place of an entry: it is refused with that place, or it is of the entry's type."""
    document = stored(value)
    for name, old in document.items():
        changed = document | {name: odd}
        try:
            schema.of(type(value))(changed, "it")
        except schema.Unfit as error:
            assert str(error).startswith((f"it.{name}", f"a name in it.{name}"))
        else:
            plain = {bool, str, type(None)}
            assert type(odd) is type(old) or None in (odd, old) or {type(odd), type(old)} <= {int, float} | plain


@pytest.mark.parametrize(
    "change", [lambda d: d.pop("reason"), lambda d: d.update(new=1), lambda d: d["config"].update(new=1)]
)
def test_entries_that_are_missing_or_unknown(change):
    document = stored(RECORD)
    change(document)
    with pytest.raises(schema.Unfit, match="lacks reason|has the unknown new"):
        schema.of(FitRecord)(document, "it")


def test_an_entry_with_a_default_may_be_of_a_later_version():
    document = stored(RECORD)
    del document["moved"]
    schema.of(FitRecord)(document, "it")
    with pytest.raises(schema.Unfit, match="lacks moved"):
        schema.of(FitRecord, more=True)(document, "it")
    schema.of(FitRecord, more=True)(stored(RECORD) | {"new": 1}, "it")


@pytest.mark.parametrize(
    "content", ["", "[", "[" * 100_000, '{"a": ' * 100_000, "nul", b"\xff\xfe", "1" * 10_000, "\x00", "{'a': 1}", "]"]
)
def test_what_is_no_json_is_unfit(content):
    with pytest.raises(schema.Unfit):
        schema.parse(content, schema.record({}), "it")


WANTED = {"numbers": Array("f", 2), "codes": Array("iu", 1), "name": Array("U", 0)}
GOOD = {"numbers": np.ones((3, 2), np.float32), "codes": np.arange(3), "name": np.array("x")}


def saved(path, arrays, **more):
    np.savez_compressed(path, **arrays, **more)
    return path


def test_good_arrays_are_read(tmp_path):
    found = read_npz(saved(tmp_path / "a.npz", GOOD), WANTED)
    assert found.keys() == GOOD.keys() and all(np.array_equal(found[k], GOOD[k]) for k in GOOD)
    assert str(read_one(tmp_path / "a.npz", "name", WANTED["name"])) == "x"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("numbers", np.ones(3, np.float32)), ("numbers", np.ones((3, 2), int)), ("numbers", np.full((3, 2), np.nan)),
        ("numbers", np.full((3, 2), -np.inf)), ("numbers", np.array([["a"]])), ("numbers", np.ones((3, 2), complex)),
        ("codes", np.ones(3)), ("codes", np.arange(3)[None]), ("codes", np.array(3)), ("codes", np.array(["1"])),
        ("codes", np.ones(3, bool)), ("name", np.array(["x"])), ("name", np.array(b"x")), ("name", np.array(1)),
        ("name", np.array("x", dtype=object)), ("codes", np.array([1, None])), ("codes", np.zeros(2, "M8[s]")),
    ],
)  # fmt: skip
def test_an_array_of_another_kind_is_named(tmp_path, name, value):
    with pytest.raises(CorruptFile, match=f"{name}|Object"):
        read_npz(saved(tmp_path / "a.npz", GOOD | {name: value}), WANTED)


@pytest.mark.parametrize("name", GOOD)
def test_a_missing_or_strange_array_is_named(tmp_path, name):
    with pytest.raises(CorruptFile, match="were expected"):
        read_npz(saved(tmp_path / "a.npz", {k: v for k, v in GOOD.items() if k != name}), WANTED)
    with pytest.raises(CorruptFile, match="were expected"):
        read_npz(saved(tmp_path / "b.npz", GOOD, strange=GOOD[name]), WANTED)


def header(shape, dtype="<f4"):
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": dtype, "fortran_order": False, "shape": shape})
    return out.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        header((10**9, 100)), header((10**6, 10**6)) + b"\0" * 64, header((2, 2)) + b"\0" * 15, header((2, 2)) + b"\0" * 17,
        header((0, 10**18)) + b"\0", header((2, 2), "|O") + b"cos\nsystem\n.", b"", b"\x93NUMPY", b"\x93NUMPY\x09\x00abc",
        header((2, 2))[:-5], header((2, 2), "<f4").replace(b"'<f4'", b"__imp"), b"\0" * (1 << 27),
    ],
)  # fmt: skip
def test_a_header_that_lies_is_named_at_once(tmp_path, content):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("numbers.npy", content)
    with pytest.raises(CorruptFile, match="cut or damaged"):
        read_npz(path, {"numbers": WANTED["numbers"]})
