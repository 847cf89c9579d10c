"""A file mapped in parts: the same as in memory, whatever interrupts it, whoever makes the parts."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import anndata
import click
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import scgraft
from scgraft.cli.main import main
from scgraft.cli.options import Shard, Size
from scgraft.errors import CorruptFile, GenesNotFound, NotCounts
from scgraft.files.atomic import remove_folder, remove_leftovers
from scgraft.mapping import freeze, map, stream
from scgraft.mapping.load import load_reference
from scgraft.query import places
from scgraft.query.align import align
from scgraft.query.kept import KeptCounts
from scgraft.query.on_disk import OnDisk
from scgraft.results import stream as results
from scgraft.results.parts import Part, Parts, part_name, read_part, write_part
from scgraft.results.stream import Job, gather, map_in_parts, parts_folder
from scgraft.testing import tiny_query, write_hub_folder
from scgraft.testing.tiny_model import TinyConfig
from scgraft.values.graft import FitConfig
from scgraft.values.query import AlignOptions

CONFIG = TinyConfig(encode_covariates=True, minified="latent_posterior_parameters", n_cells=120, n_genes=40)
FIT = FitConfig(max_steps=5, device="cpu")
N = 230


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Samples and parts of a few dozen cells."""
    for module in (map, stream):
        monkeypatch.setattr(module, "SAMPLE", 100)
    monkeypatch.setattr(freeze, "CELLS", 48)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return load_reference(write_hub_folder(tmp_path_factory.mktemp("reference") / "r", CONFIG))


def query(path, **kwargs):
    adata = tiny_query(CONFIG, n_cells=N, batches=("new 1", "new 2"))
    adata.obs["note"] = np.arange(N) % 7
    adata.write_h5ad(path) if path.suffix == ".h5ad" else adata.write_zarr(path)
    return adata


def job(path, **changes):
    return replace(Job(path, AlignOptions(batch_key="batch"), config=FIT, page=False), **changes)


def quiet(line):
    pass


@pytest.fixture(scope="module")
def undisturbed(reference, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        for module in (map, stream):
            patch.setattr(module, "SAMPLE", 100)
        patch.setattr(freeze, "CELLS", 48)
        adata = query(folder / "query.h5ad")
        map_in_parts(reference, job(folder / "query.h5ad"), folder / "out", say=quiet)
        whole = scgraft.map_query(reference, adata, batch_key="batch", config=FIT)
    return folder, adata, whole


def bytes_of(folder):
    """Content of the files with one row for each cell; summary.json says how long the fit took."""
    return {name: (folder / name).read_bytes() for name in ("labels.csv.gz", "mapped.h5ad")}


def test_a_file_in_parts_is_mapped_as_in_memory(undisturbed):
    folder, adata, whole = undisturbed
    table = pd.read_csv(folder / "out/labels.csv.gz", index_col="barcode")
    mapped = anndata.read_h5ad(folder / "out/mapped.h5ad")
    expected = whole.to_frame()
    assert table.index.tolist() == list(adata.obs_names) and list(table) == list(expected)
    for name in expected:
        if expected[name].dtype.kind == "f":
            assert np.allclose(table[name], expected[name], rtol=1e-5)
        else:
            assert (table[name].to_numpy() == expected[name].to_numpy()).all(), name
    assert np.array_equal(mapped.obsm["X_scgraft"], whole.latent.mean)
    own = scgraft.annotate(adata.copy(), whole)
    for name in own.obs:
        assert mapped.obs[name].astype(str).tolist() == own.obs[name].astype(str).tolist(), name
    assert mapped.n_vars == 0 and mapped.uns["scgraft"]["base"] == own.uns["scgraft"]["base"]
    assert not parts_folder(folder / "out").exists()
    summary = json.loads((folder / "out/summary.json").read_text())
    assert summary["alignment"]["n_cells"] == N and summary["sample"] < 120


class Killed(Exception):
    pass


@pytest.mark.parametrize("damage", ["none", "one is cut", "one is gone", "no room"])
def test_the_second_reading_takes_what_the_first_one_kept(undisturbed, reference, tmp_path, monkeypatch, damage):
    folder, _, _ = undisturbed
    real, learnt, read = results.load_frozen, [], []

    def load_frozen(path, *args):
        kept = path.parent / results.KEPT
        if damage == "no room":
            assert not kept.exists()
        else:
            assert len(list(kept.iterdir())) == -(-N // 48)
        if damage == "one is cut":
            (kept / "000002.npz").write_bytes((kept / "000002.npz").read_bytes()[:-30])
        if damage == "one is gone":
            (kept / "000002.npz").unlink()
        learnt.append(path)
        return real(path, *args)

    monkeypatch.setattr(results, "load_frozen", load_frozen)
    counted = OnDisk.__getitem__
    monkeypatch.setattr(
        OnDisk, "__getitem__", lambda self, rows: (read.append(rows) if learnt else None, counted(self, rows))[1]
    )
    if damage == "no room":
        monkeypatch.setattr(KeptCounts, "has_room", lambda self, size: False)
    said = []
    map_in_parts(reference, job(folder / "query.h5ad"), tmp_path / "out", say=said.append)
    assert read == {"none": [], "no room": [slice(i, min(i + 48, N)) for i in range(0, N, 48)]}.get(
        damage, [slice(96, 144)]
    )
    assert any("read twice" in line for line in said) == (damage == "no room")
    assert any("GB on the disk" in line for line in said) == (damage != "no room")
    assert bytes_of(tmp_path / "out") == bytes_of(folder / "out")


@pytest.mark.parametrize(("at", "when"), [(0, "before"), (3, "during"), (1, "after")])
def test_a_killed_run_goes_on_and_gives_the_same_bytes(undisturbed, reference, tmp_path, monkeypatch, at, when):
    folder, _, _ = undisturbed
    real, made = Parts.add, []

    def add(self, number, part):
        if number == at and not made:
            made.append(number)
            if when == "during":
                (self.folder / part_name(number)).write_bytes(b"half of it")
            if when == "after":
                real(self, number, part)
            raise Killed
        real(self, number, part)

    monkeypatch.setattr(Parts, "add", add)
    with pytest.raises(Killed):
        map_in_parts(reference, job(folder / "query.h5ad"), tmp_path / "out", say=quiet)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(results, "survey", None)  # nothing is learnt again
    map_in_parts(reference, job(folder / "query.h5ad"), tmp_path / "out", say=quiet)
    assert bytes_of(tmp_path / "out") == bytes_of(folder / "out")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_runs_killed_at_random_moments_go_on_and_give_the_same_bytes(tmp_path):
    """SCGRAFT_KILLS=60 for more moments, SCGRAFT_KILLS_SEED=2 for others."""
    write_hub_folder(tmp_path / "reference", CONFIG)
    query(tmp_path / "query.h5ad")
    kills = int(os.environ.get("SCGRAFT_KILLS", "6"))
    line = [
        sys.executable,
        str(Path(__file__).with_name("kill_runs.py")),
        str(tmp_path),
        str(kills),
        os.environ.get("SCGRAFT_KILLS_SEED", "1"),
    ]
    done = subprocess.run(line, capture_output=True, text=True)
    log = (tmp_path / "log").read_text() if (tmp_path / "log").exists() else ""
    assert done.returncode == 0, done.stderr[-2000:] + log[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    print(found)
    assert len(found["seen"]) == kills and sum(code == -9 for code, _ in found["seen"]) >= kills / 2
    undisturbed = bytes_of(tmp_path / "undisturbed")
    for i in range(kills):
        assert bytes_of(tmp_path / f"out {i}") == undisturbed, found["seen"][i]
    left = {path.name for path in tmp_path.iterdir() if ".scgraft-tmp-" in path.name}
    assert len(left) <= 1  # of the last run: the next one in that folder removes it


def test_shards_gathered_are_the_single_run(undisturbed, reference, tmp_path):
    folder, _, _ = undisturbed
    for i in (2, 0, 1):
        work = map_in_parts(reference, job(folder / "query.h5ad"), tmp_path / "out", shard=(i, 3), say=quiet)
        if i == 0:
            with pytest.raises(CorruptFile, match="missing"):
                gather(work)
    gather(work)
    assert bytes_of(tmp_path / "out") == bytes_of(folder / "out")


def changed_calibration(calibration):
    novelty = calibration["cell_type"].novelty.copy()
    novelty[len(novelty) // 2] += 1e-3
    return {"cell_type": replace(calibration["cell_type"], novelty=novelty)}


CHANGES = {
    "labels": lambda job, _: replace(job, labels=None),
    "options": lambda job, _: replace(job, options=replace(job.options, batch_key=None)),
    "config": lambda job, _: replace(job, config=replace(FIT, seed=1)),
    "calibration": lambda job, whole: replace(job, calibration=changed_calibration(whole.calibration)),
    "graft": lambda job, whole: replace(job, graft=whole.graft),
    "page": lambda job, _: replace(job, page=True),
}


@pytest.mark.parametrize("name", CHANGES)
def test_other_settings_start_anew_and_say_so(undisturbed, reference, tmp_path, name):
    folder, _, whole = undisturbed
    said, wanted = [], job(folder / "query.h5ad")
    other = CHANGES[name](wanted, whole)
    if name == "calibration":
        wanted = replace(wanted, calibration=whole.calibration)
    work = map_in_parts(reference, other, tmp_path / "out", shard=(0, 2), say=quiet)
    before = {p.name: p.stat().st_mtime_ns for p in work.glob("*.npz")}
    map_in_parts(reference, wanted, tmp_path / "out", shard=(0, 2), say=said.append)
    assert len(before) == 3 and any(f"another {name}:" in line for line in said)
    assert all((work / part).stat().st_mtime_ns > time for part, time in before.items())
    map_in_parts(reference, wanted, tmp_path / "out", say=said.append)
    assert bytes_of(tmp_path / "out") == bytes_of(folder / "out")


def same_cells_another_name(reference):
    obs = reference.obs.copy()
    key = reference.schema.labels_key
    obs[key] = obs[key].astype(str).to_numpy()[::-1]
    return replace(reference, obs=obs)


@pytest.mark.parametrize("name", ["input", "reference", "scgraft", "sample", "cells in a part"])
def test_another_file_reference_or_version_starts_anew(undisturbed, reference, tmp_path, monkeypatch, name):
    folder, adata, _ = undisturbed
    path, said = tmp_path / "query.h5ad", []
    adata.write_h5ad(path)
    map_in_parts(reference, job(path), tmp_path / "out", shard=(0, 2), say=quiet)
    if name == "input":
        os.utime(path, (1, 1))
    if name == "reference":
        reference = same_cells_another_name(reference)
    if name == "scgraft":
        monkeypatch.setattr(results, "__version__", "99.0")
    if name == "sample":
        monkeypatch.setattr(results, "SAMPLE", 99)
    if name == "cells in a part":
        monkeypatch.setattr(results, "CELLS", 47)
    map_in_parts(reference, job(path), tmp_path / "out", shard=(0, 2), say=said.append)
    assert any(f"another {name}:" in line for line in said)
    said.clear()
    map_in_parts(reference, job(path), tmp_path / "out", shard=(0, 2), say=said.append)
    assert not any("made with another" in line for line in said) and any("Going on: 3 parts" in line for line in said)


def test_a_folder_of_parts_goes_at_once(tmp_path):
    """Whatever ends a run while it removes its parts, the next one finds all of them or none."""
    (tmp_path / "out.parts").mkdir()
    (tmp_path / "out.parts/settings.json").write_text("{}")
    real = shutil.rmtree

    def killed(path, **kwargs):
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(Killed):
            remove_folder(tmp_path / "out.parts")
    assert shutil.rmtree is real and not (tmp_path / "out.parts").exists()
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_changed_part_is_made_again(undisturbed, reference, tmp_path):
    folder, _, _ = undisturbed
    work = map_in_parts(reference, job(folder / "query.h5ad"), tmp_path / "out", shard=(0, 1), say=quiet)
    path = work / part_name(2)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert Parts(work).unfinished(5) == [2]
    map_in_parts(reference, job(folder / "query.h5ad"), tmp_path / "out", say=quiet)
    assert bytes_of(tmp_path / "out") == bytes_of(folder / "out")


def test_zarr_layers_and_dense_counts_are_the_same(undisturbed, reference, tmp_path):
    folder, adata, _ = undisturbed
    labels = (folder / "out/labels.csv.gz").read_bytes()
    other = adata.copy()
    other.layers["counts"] = other.X.copy()
    other.X = other.X.toarray() + 0.25
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata says that its default will change
        other.write_zarr(tmp_path / "layer.zarr")
    other.X = other.layers.pop("counts").toarray()
    other.write_h5ad(tmp_path / "dense.h5ad")
    for name in ("layer.zarr", "dense.h5ad"):
        map_in_parts(reference, job(tmp_path / name), tmp_path / "out", force=True, say=quiet)
        assert (tmp_path / "out/labels.csv.gz").read_bytes() == labels, name
    map_in_parts(reference, job(tmp_path / "dense.h5ad"), tmp_path / "out", counts=True, force=True, say=quiet)
    mapped = anndata.read_h5ad(tmp_path / "out/mapped.h5ad")
    assert np.array_equal(mapped.X, other.X) and "scgraft_novel" in mapped.obs


def test_what_cannot_be_read_in_pieces_is_refused(reference, tmp_path, monkeypatch):
    monkeypatch.setattr(places, "JUDGED", 16)
    adata = query(tmp_path / "query.h5ad")
    late = adata.copy()
    counts = late.X.tolil()
    counts[200, 3] = -1
    late.X = counts.tocsr()
    late.write_h5ad(tmp_path / "late.h5ad")
    with pytest.raises(NotCounts, match="cell") as caught:
        map_in_parts(reference, job(tmp_path / "late.h5ad"), tmp_path / "out", say=quiet)
    assert "cells 192 to 229" in caught.value.__notes__[0]
    assert not (tmp_path / "out").exists()


def test_counts_stored_gene_by_gene_are_written_cell_by_cell_once(undisturbed, reference, tmp_path, monkeypatch):
    folder, adata, _ = undisturbed
    changed, said = adata.copy(), []
    changed.X = adata.X.tocsc()
    changed.write_h5ad(tmp_path / "csc.h5ad")
    for i in range(2):
        map_in_parts(reference, job(tmp_path / "csc.h5ad"), tmp_path / "out", shard=(i, 2), say=said.append)
    assert sum("gene by gene" in line for line in said) == 1
    monkeypatch.setattr(results, "write_by_cells", None)
    map_in_parts(reference, job(tmp_path / "csc.h5ad"), tmp_path / "out", say=said.append)
    assert (tmp_path / "out/labels.csv.gz").read_bytes() == (folder / "out/labels.csv.gz").read_bytes()
    mapped = anndata.read_h5ad(tmp_path / "out/mapped.h5ad")
    assert mapped.obs["note"].tolist() == adata.obs["note"].tolist()
    assert not list(tmp_path.glob("*.parts"))


def test_places_are_judged_and_counts_recovered_as_in_memory(reference, tmp_path):
    """Integers that are no counts are passed over, whatever their name; recovered and divided counts are those of the file."""
    adata = query(tmp_path / "query.h5ad")
    total = np.asarray(adata.X.sum(axis=1))
    log = np.log1p(adata.X.toarray() / total * 1e4).astype(np.float32)
    plain = map_in_parts(reference, job(tmp_path / "query.h5ad"), tmp_path / "plain", say=quiet)
    labels = (plain / "labels.csv.gz").read_bytes()
    mask = (adata.X.toarray() > 0).astype(np.float32)
    cases = {
        "log": ({"X": log}, "recovered from log1p-normalised X"),
        "mask": ({"X": log, "mask": mask, "counts": np.rint(log)}, "recovered from log1p-normalised X"),
        "ten": ({"X": adata.X * 10}, "every value is 10 times a count"),
        "late": ({"X": np.rint(log), "some": adata.X}, "layers['some']"),
    }
    for name, (matrices, source) in cases.items():
        changed = anndata.AnnData(matrices["X"], obs=adata.obs.copy(), var=adata.var.copy())
        changed.obs["n_counts"] = total.ravel()
        changed.layers.update({key: value for key, value in matrices.items() if key != "X"})
        changed.write_h5ad(tmp_path / f"{name}.h5ad")
        whole = align(reference, changed, batch_key="batch")
        assert source in whole.alignment.counts_from, name
        out = map_in_parts(reference, job(tmp_path / f"{name}.h5ad"), tmp_path / name, say=quiet)
        assert (out / "labels.csv.gz").read_bytes() == labels, name
        assert source in stream.open_query(reference, tmp_path / f"{name}.h5ad", AlignOptions("batch")).source, name


def test_cells_unlike_those_that_were_judged_are_refused_by_name(reference, tmp_path, monkeypatch):
    monkeypatch.setattr(places, "JUDGED", 16)
    adata = query(tmp_path / "query.h5ad")
    counts = adata.X.toarray() * 10
    counts[200, 3] = 7
    adata.X = counts
    adata.write_h5ad(tmp_path / "ten.h5ad")
    with pytest.raises(NotCounts, match="not like those") as caught:
        map_in_parts(reference, job(tmp_path / "ten.h5ad"), tmp_path / "out", say=quiet)
    assert "cells 192 to 229" in caught.value.__notes__[0]


def test_missing_genes_are_measured_as_in_memory(reference, tmp_path):
    """Nothing is refused for a fixed share of the genes where what they cost is known."""
    adata = query(tmp_path / "query.h5ad")
    few = adata[:, np.argsort(-np.asarray(adata.X.sum(axis=0)).ravel())[:9]].copy()
    few.write_h5ad(tmp_path / "few.h5ad")
    ask = job(tmp_path / "few.h5ad", options=AlignOptions(batch_key="batch", drop_empty=True, min_found=None))
    try:
        whole = scgraft.map_query(reference, few, batch_key="batch", drop_empty=True, config=FIT, calibration=None)
    except GenesNotFound as error:
        with pytest.raises(GenesNotFound) as caught:
            map_in_parts(reference, ask, tmp_path / "out", say=quiet)
        assert str(caught.value) == str(error)
        return
    map_in_parts(reference, ask, tmp_path / "out", say=quiet)
    assert any("accuracy falls from" in said for said in whole.alignment.messages)


def test_cells_without_counts_are_left_out(reference, tmp_path):
    adata = query(tmp_path / "query.h5ad")
    counts = adata.X.tolil()
    counts[[3, 100, 229]] = 0
    adata.X = counts.tocsr()
    adata.write_h5ad(tmp_path / "query.h5ad")
    options = AlignOptions(batch_key="batch", drop_empty=True)
    map_in_parts(reference, job(tmp_path / "query.h5ad", options=options), tmp_path / "out", say=quiet)
    mapped = anndata.read_h5ad(tmp_path / "out/mapped.h5ad")
    left_out = np.flatnonzero(np.isnan(mapped.obsm["X_scgraft"]).all(axis=1))
    assert left_out.tolist() == [3, 100, 229] and mapped.obs["scgraft_cell_type_unknown"].iloc[3]
    assert len(pd.read_csv(tmp_path / "out/labels.csv.gz")) == N - 3


def test_a_part_comes_back_as_it_was(undisturbed, reference, tmp_path):
    folder, _, _ = undisturbed
    work = map_in_parts(reference, job(folder / "query.h5ad"), tmp_path / "out", shard=(0, 1), say=quiet)
    parts = [read_part(work / part_name(i)) for i in range(5)]
    assert np.concatenate([p.rows for p in parts]).tolist() == list(range(N))
    assert {p.name for p in work.iterdir()} >= {"parts.json", "settings.json", "frozen", "sample"}


def test_the_command_streams_what_is_larger_than_its_memory(undisturbed, reference, tmp_path):
    folder, _, _ = undisturbed

    def run(*args):
        result = CliRunner().invoke(main, [str(a) for a in args])
        assert result.exit_code == 0, result.output
        return result.output

    base = ("map", folder / "query.h5ad", "--reference", reference.base.repo, "--batch-key", "batch", "--epochs", 0)
    assert "read to check them" not in run(*base, "--out", tmp_path / "memory", "--no-report")
    assert "read to check them" in run(*base, "--out", tmp_path / "parts", "--memory", "100K")
    assert {p.name for p in (tmp_path / "parts").iterdir()} >= {"report.html", "labels.csv.gz", "graft", "calibration"}
    one = pd.read_csv(tmp_path / "memory/labels.csv")
    assert one.equals(pd.read_csv(tmp_path / "parts/labels.csv.gz"))
    for i in (1, 2):
        run(*base, "--out", tmp_path / "shards", "--shard", f"{i}/2")
    run("gather", tmp_path / "shards.parts")
    assert bytes_of(tmp_path / "shards") == bytes_of(tmp_path / "parts")


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [(Size(), "4G", 4 * 10**9), (Size(), "1.5 mb", 1_500_000), (Size(), "7", 7), (Shard(), "3/16", (2, 16))],
)
def test_sizes_and_shards_are_read(kind, text, value):
    assert kind.convert(text, None, None) == value


@pytest.mark.parametrize(("kind", "text"), [(Size(), "many"), (Size(), "-1G"), (Shard(), "0/4"), (Shard(), "5/4")])
def test_what_is_no_size_and_no_shard_is_refused(kind, text):
    with pytest.raises(click.BadParameter, match="write for example"):
        kind.convert(text, None, None)


@pytest.mark.parametrize("change", [lambda v: v[[0] * len(v)], lambda v: v[:0], lambda v: v[None]])
def test_a_part_whose_values_are_no_categories_is_named(tmp_path, change):
    table = pd.DataFrame(
        {"label": ["a", "b", "a"], "score": [0.1, 0.2, 0.3]}, index=pd.Index(list("xyz"), name="barcode")
    )
    path = tmp_path / part_name(0)
    write_part(path, Part(np.arange(3), np.zeros((3, 2), np.float32), table))
    assert read_part(path).table["label"].tolist() == ["a", "b", "a"]
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **arrays | {"values_0": change(arrays["values_0"])})
    with pytest.raises(CorruptFile, match="not one value for each|has the type"):
        read_part(path)
