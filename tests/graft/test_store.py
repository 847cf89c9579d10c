"""Law 4: a saved graft loads as it was, or not at all."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scgraft.errors import BaseMismatch, CorruptGraft, FormatTooNew, GraftError, OutputExists
from scgraft.graft.store import load_graft, save_graft
from scgraft.values.graft import GRAFT_FORMAT, FitConfig, FitRecord, Graft
from scgraft.values.reference import BaseId, Reference, Schema

BASE = BaseId("org/atlas", "a" * 40, "b" * 64, "SCVI")
NAMES = st.text(min_size=1, max_size=12).filter(lambda s: s.isprintable())


@st.composite
def grafts(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    batches = tuple(draw(st.lists(NAMES, max_size=3, unique=True)))
    rows = {
        name: rng.standard_normal((draw(st.integers(0, 4)), len(batches))).astype(np.float32)
        for name in draw(st.lists(NAMES, max_size=3, unique=True))
    }
    record = FitRecord(
        FitConfig(seed=draw(st.integers(0, 9)), epochs=draw(st.none() | st.integers(0, 3))),
        trained=draw(st.booleans()),
        reason=draw(st.text(max_size=20).filter(str.isprintable)),
        seconds=draw(st.floats(0, 1e6)),
        loss=((0, draw(st.floats(-1e6, 1e6))), (20, 1.5)),
        reference_unchanged=("x", "x"),
        moved=dict.fromkeys(batches, 0.25),
        versions={"scgraft": "0.1.0"},
    )
    return Graft(BASE, {"batch": batches}, rows, record)


def equal(a, b):
    return (
        (a.base, a.levels, a.record, a.format) == (b.base, b.levels, b.record, b.format)
        and a.rows.keys() == b.rows.keys()
        and all(a.rows[k].dtype == b.rows[k].dtype and np.array_equal(a.rows[k], b.rows[k]) for k in a.rows)
    )


GRAFT = Graft(
    BASE,
    {"batch": ("lab a", "lab b")},
    {"w[batch]": np.arange(6, dtype=np.float32).reshape(3, 2)},
    FitRecord(FitConfig(), True, "done", loss=((0, 1.0),), reference_unchanged=("x", "x")),
)


def reference(**changes):
    schema = Schema(np.array(["g"]), None, ("0",))
    return Reference(replace(BASE, **changes), schema, None, {})


@settings(max_examples=30)
@given(grafts())
def test_round_trip_is_bitwise(tmp_path_factory, graft):
    folder = tmp_path_factory.getbasetemp() / "graft"
    assert equal(load_graft(save_graft(graft, folder, force=True)), graft)


def test_only_the_folder_is_left_behind(tmp_path):
    save_graft(GRAFT, tmp_path / "g")
    save_graft(GRAFT, tmp_path / "g", force=True)
    assert [p.name for p in tmp_path.iterdir()] == ["g"]
    assert {p.name for p in (tmp_path / "g").iterdir()} == {"graft.json", "graft.safetensors"}


def test_an_existing_folder_is_not_overwritten(tmp_path):
    save_graft(GRAFT, tmp_path / "g")
    with pytest.raises(OutputExists, match="exists already"):
        save_graft(replace(GRAFT, levels={}), tmp_path / "g")
    assert equal(load_graft(tmp_path / "g"), GRAFT)


def test_another_base_is_refused(tmp_path):
    save_graft(GRAFT, tmp_path / "g")
    assert equal(load_graft(tmp_path / "g", reference=reference(repo="another/name")), GRAFT)
    with pytest.raises(
        BaseMismatch, match="made for org/atlas at aaaaaaaaaaaa .*reference is org/atlas at cccccccccccc"
    ):
        load_graft(tmp_path / "g", reference=reference(sha256="c" * 64, revision="c" * 40))


def test_other_cells_of_the_same_model_are_another_base(tmp_path):
    save_graft(replace(GRAFT, base=replace(BASE, cells="d" * 64)), tmp_path / "g")
    assert load_graft(tmp_path / "g", reference=reference(cells="d" * 64)).base.cells == "d" * 64
    assert load_graft(tmp_path / "g", reference=reference()).base.cells == "d" * 64
    with pytest.raises(BaseMismatch, match="had the sha256 dddddddddddd; those of org/atlas have eeeeeeeeeeee"):
        load_graft(tmp_path / "g", reference=reference(cells="e" * 64))


def test_newer_format(tmp_path):
    save_graft(replace(GRAFT, format=2), tmp_path / "g")
    with pytest.raises(FormatTooNew, match="format 2.*reads formats up to 1"):
        load_graft(tmp_path / "g")


@pytest.mark.parametrize("name", ["graft.json", "graft.safetensors"])
def test_missing_files(name, tmp_path):
    folder = save_graft(GRAFT, tmp_path / "g")
    (folder / name).unlink()
    with pytest.raises(CorruptGraft, match=f"holds no {name}"):
        load_graft(folder)


@pytest.mark.parametrize("name", ["graft.json", "graft.safetensors"])
@settings(max_examples=60)
@given(data=st.data())
def test_a_cut_or_changed_byte_never_gives_another_graft(tmp_path_factory, name, data):
    folder = tmp_path_factory.getbasetemp() / f"damaged {name}"
    save_graft(GRAFT, folder, force=True)
    path = folder / name
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content = content[:at]
    else:
        content[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(content))
    try:
        assert equal(load_graft(folder), GRAFT)  # only white space can differ
    except GraftError:
        pass


def test_entries_that_are_not_known(tmp_path):
    folder = save_graft(GRAFT, tmp_path / "g")
    document = json.loads((folder / "graft.json").read_text())
    document["extra"] = 1
    (folder / "graft.json").write_text(json.dumps(document))
    with pytest.raises(CorruptGraft, match="checksum does not fit"):
        load_graft(folder)


FORMATS = Path(__file__).parent / "formats"


@pytest.mark.parametrize("name", sorted(path.name for path in FORMATS.iterdir()))
def test_grafts_of_every_format_that_was_ever_released_are_read(name):
    """`1-first` was written by the commit that introduced format 1; entries that its record lacks have their default."""
    graft = load_graft(FORMATS / name)
    assert graft.format == int(name.split("-")[0]) and graft.batches == ("new",)
    assert graft.base.sha256 == "011797a6e9d0ddad80e34ce5c0e6f1dc40debc7a5eb703efe78d24b3674085fd"
    places = ("z_encoder.encoder", "l_encoder.encoder", "decoder.px_decoder")
    shapes = {name: row.shape for name, row in graft.rows.items()}
    assert shapes == {f"{place}.fc_layers.Layer 0.0.weight[batch]": (4, 1) for place in places}
    assert graft.record.config.seed == 7 and graft.record.steps == {"1-first": 3, "1": 9}[name]
    assert graft.record.config.labels is None and (graft.record.reach is None) == (name == "1-first")


def test_every_format_has_a_folder():
    assert {int(path.name.split("-")[0]) for path in FORMATS.iterdir()} == set(range(1, GRAFT_FORMAT + 1))
