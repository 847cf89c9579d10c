"""The chain, the files and the command line, on tiny references and on the embedded one."""

import json
import socket
from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import scgraft
from scgraft.cli.main import main
from scgraft.errors import CorruptFile, IncompleteRepository, QueryError, UnsupportedModel
from scgraft.mapping.load import load_reference
from scgraft.model.families import family_of
from scgraft.reference.describe import describe
from scgraft.testing import tiny_query, write_hub_folder
from scgraft.testing.tiny_model import TinyConfig
from shared_files import golden_folders, shared

CONFIG = TinyConfig(encode_covariates=True, minified="latent_posterior_parameters")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    write_hub_folder(folder / "reference", CONFIG)
    tiny_query(CONFIG, n_cells=60, batches=("new 1", "new 2")).write_h5ad(folder / "query.h5ad")
    return folder


def run(*args):
    return CliRunner().invoke(main, [str(a) for a in args])


def test_a_folder_needs_no_network(files, monkeypatch):
    def refuse(*args):
        raise AssertionError("a network call")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    reference = load_reference(files / "reference")
    assert reference.base.revision == "local" and reference.latent_source == "stored posterior"
    assert "Reference SCVI" in repr(reference)


def test_a_reference_with_counts_is_encoded(tmp_path):
    counts = load_reference(write_hub_folder(tmp_path / "a", replace(CONFIG, minified=None)))
    stored = load_reference(write_hub_folder(tmp_path / "b", CONFIG))
    assert counts.latent_source == "encoded from the stored counts"
    assert np.allclose(counts.latent.mean, stored.latent.mean, atol=1e-4)
    assert np.allclose(counts.library, stored.library)


def test_map_query_and_annotate(files):
    reference = load_reference(files / "reference")
    adata = anndata.read_h5ad(files / "query.h5ad")
    mapped = scgraft.map_query(reference, adata, batch_key="batch", config=scgraft.FitConfig(max_steps=20))
    key = reference.schema.labels_key
    assert mapped.latent.mean.shape == (60, CONFIG.n_latent) and list(mapped.labels) == [key]
    assert "X_scgraft" not in adata.obsm
    shuffled = adata[::-1].copy()
    scgraft.annotate(shuffled, mapped)
    assert np.array_equal(shuffled.obsm["X_scgraft"][::-1], mapped.latent.mean)
    assert shuffled.obs[f"scgraft_{key}_call"].astype(str).tolist()[::-1] == mapped.labels[key].label.tolist()
    assert {f"scgraft_{key}_probability", f"scgraft_{key}_unknown"} <= set(shuffled.obs)
    assert shuffled.uns["scgraft"]["base"]["sha256"] == reference.base.sha256
    with pytest.raises(QueryError, match="are not in this AnnData"):
        scgraft.annotate(adata[:5].copy(), mapped)


def test_labels_can_be_left_out(files):
    reference = load_reference(files / "reference")
    adata = anndata.read_h5ad(files / "query.h5ad")
    mapped = scgraft.map_query(reference, adata, labels=None, config=scgraft.FitConfig(epochs=0))
    assert not mapped.labels and mapped.graft.batches == ("query",)


def test_command_map_writes_everything_and_a_graft_re_applies(files, tmp_path):
    base = ("map", files / "query.h5ad", "--reference", files / "reference", "--batch-key", "batch")
    first = run(*base, "--out", tmp_path / "one", "--epochs", 3)
    assert first.exit_code == 0, first.output
    files_written = {"mapped.h5ad", "labels.csv", "graft", "summary.json", "calibration", "map.npz", "report.html"}
    assert {p.name for p in (tmp_path / "one").iterdir()} == files_written
    assert sum(p.stat().st_size for p in (tmp_path / "one/graft").iterdir()) < 8000
    table = pd.read_csv(tmp_path / "one/labels.csv", index_col="barcode")
    mapped = anndata.read_h5ad(tmp_path / "one/mapped.h5ad")
    assert table.index.tolist() == mapped.obs_names.tolist()
    summary = json.loads((tmp_path / "one/summary.json").read_text())
    assert summary["record"]["trained"] and summary["batches"] == ["new 1", "new 2"]
    again = run(*base, "--out", tmp_path / "two", "--graft", tmp_path / "one/graft")
    assert again.exit_code == 0, again.output
    assert (tmp_path / "one/labels.csv").read_bytes() == (tmp_path / "two/labels.csv").read_bytes()
    assert run(*base, "--out", tmp_path / "two").exit_code == 7
    assert run(*base, "--out", tmp_path / "two", "--force", "--epochs", 0, "--no-labels").exit_code == 0
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["one", "two"]


def test_exit_codes(files, tmp_path):
    query, reference, out = files / "query.h5ad", files / "reference", ("--out", tmp_path / "out")

    def code(*args):
        result = run(*args)
        return result.exit_code, result.output

    assert code("map", query)[0] == 2
    status, text = code("map", query, "--reference", reference, "--batch-key", "absent", *out)
    assert status == 3 and "BatchColumn" in text and "it has" in text
    assert code("describe", "no such folder")[0] == 4
    (tmp_path / "broken").mkdir()
    assert code("describe", tmp_path / "broken")[0] == 4
    (tmp_path / "broken/model.pt").write_bytes(b"PK not a zip")
    assert code("describe", tmp_path / "broken")[0] == 5
    assert code("map", query, "--reference", reference, *out, "--graft", tmp_path / "broken")[0] == 6
    status, text = code("map", query, "--reference", reference, *out, "--labels", "absent")
    assert status == 8 and "cells have" in text
    assert not (tmp_path / "out").exists()


def test_labels_of_one_batch_are_named(files):
    reference = load_reference(files / "reference")
    key, batch = reference.schema.labels_key, reference.schema.batch_key
    first = (reference.obs[batch] == reference.obs[batch].iloc[0]).to_numpy()
    label = np.where(np.arange(len(first)) % 2 == 0, "everywhere", np.where(first, "rare", "everywhere"))
    changed = replace(reference, obs=reference.obs.assign(**{key: label}))
    found = describe(changed)
    assert found.labels.in_one_batch == ("rare",) and "in one batch only: rare" in str(found)
    alone = replace(changed, obs=changed.obs.assign(**{batch: "one"}))
    assert describe(alone).labels.in_one_batch == ()
    silent = replace(changed, schema=replace(changed.schema, unlabeled="rare"))
    assert describe(silent).labels.in_one_batch == ()


def test_describe_says_what_surgery_can_do(files):
    text = run("describe", files / "reference").output
    assert "a new batch adds 32 numbers; training moves the latent" in text
    assert text == f"{describe(load_reference(files / 'reference'))}\n"
    facts = json.loads(run("describe", files / "reference", "--json").output)
    assert facts == json.loads(json.dumps(describe(load_reference(files / "reference")).to_dict()))
    assert facts["surgery"]["can_move_latent"] and facts["surgery"]["numbers_per_new_batch"] == 32


@pytest.mark.parametrize("version", ["1.2.1", "1.4.2"])
def test_the_two_seed_cards(version):
    plain = describe(load_reference(shared("golden", f"seed0__{version}")))
    assert not plain.surgery.can_move_latent and plain.cells == 400 and plain.genes.number == 100
    full = describe(load_reference(shared("golden_big", f"seed1_full__{version}")))
    assert full.surgery.numbers_per_new_batch == 768 and len(full.labels.classes) == 12


@pytest.mark.parametrize("folder", golden_folders("scvi", "scanvi", "seed0", "seed1"), ids=lambda f: f.name)
def test_every_golden_query_maps(folder):
    reference = load_reference(folder)
    adata = anndata.read_h5ad(folder / "query.h5ad")
    batch_key = reference.schema.batch_key if reference.schema.batch_key in adata.obs else None
    mapped = scgraft.map_query(
        reference, adata, batch_key=batch_key, labels=None, drop_empty=True, config=scgraft.FitConfig(max_steps=2)
    )
    assert np.isfinite(mapped.latent.mean).all()


def test_a_class_that_cannot_be_mapped_onto_is_named_with_those_that_can():
    with pytest.raises(UnsupportedModel, match=r"class 'SysVI' .*supported are .*MULTIVI, .*SCANVI, SCVI"):
        family_of("SysVI")


@pytest.mark.parametrize("option", [{"var_activation": "a function"}, {"new_option": 3}, {"gene_likelihood": "gamma"}])
def test_unknown_options_are_named(option, files):
    from scgraft.model.options import read_hyper

    reference = load_reference(files / "reference")
    with pytest.raises(UnsupportedModel, match=next(iter(option))):
        read_hyper(option, reference.weights, reference.schema, model="SCVI")


def test_files_that_contradict_one_another(files, tmp_path):
    import shutil

    folder = tmp_path / "mixed"
    shutil.copytree(files / "reference", folder)
    other = write_hub_folder(tmp_path / "other", replace(CONFIG, n_latent=7))
    shutil.copy(other / "adata.h5ad", folder / "adata.h5ad")
    with pytest.raises(CorruptFile, match="do not belong together"):
        load_reference(folder)
    (folder / "model.pt").unlink()
    with pytest.raises(IncompleteRepository, match="holds no model.pt"):
        load_reference(folder)


def test_demo(tmp_path):
    result = run("demo", "--out", tmp_path / "demo")
    assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path / "demo/labels.csv", index_col="barcode")
    truth = anndata.read_h5ad(tmp_path / "demo/mapped.h5ad").obs["true_label"].astype(str)
    assert (table["bulk_labels"] == truth).mean() > 0.7
