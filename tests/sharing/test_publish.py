"""Publishing against a loopback server that speaks the Hub's protocol, and loading grafts from it."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import anndata
import h5py
import numpy as np
import pytest
from anndata.io import write_elem
from click.testing import CliRunner
from scipy.sparse import csr_matrix

from hub_server import HubServer, Repo
from scgraft import errors
from scgraft.cli.main import main
from scgraft.errors import HoldsCounts, IncompleteRepository
from scgraft.graft.fit import fit
from scgraft.graft.store import save_graft
from scgraft.mapping.load import load_reference
from scgraft.query.align import align
from scgraft.sharing.export import export_scvi
from scgraft.sharing.load import load_base, load_graft
from scgraft.sharing.publish import push, stored_counts
from scgraft.testing import tiny_query, write_hub_folder
from scgraft.testing.tiny_model import TinyConfig
from scgraft.testing.tiny_scpoli import write_scpoli_folder
from scgraft.values.graft import FitConfig
from tiny_totalvi import write_totalvi_folder

CONFIG = TinyConfig(minified="latent_posterior_parameters", encode_covariates=True)
ATLAS = "org/atlas"

# The client reads its settings when it is imported, so it is a process of its own. It runs the lines that it is given, and
# answers with their values or errors.
CLIENT = """
import json, os, sys
import scgraft
for question in sys.stdin:
    os.environ["HF_TOKEN"], lines = json.loads(question)
    answers = []
    for line in lines:
        try:
            answers.append({"value": str(eval(line))})
        except Exception as error:
            answers.append({"error": type(error).__name__, "text": str(error)})
    print(json.dumps(answers), flush=True)
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A reference folder and a graft of it."""
    root = tmp_path_factory.mktemp("files")
    reference = load_reference(write_hub_folder(root / "reference", CONFIG))
    query = align(reference, tiny_query(CONFIG, batches=("s1",)), batch_key="batch")
    graft = fit(reference, query, FitConfig(epochs=0, start="random", device="cpu", force=True))
    save_graft(graft, root / "graft")
    return root


@pytest.fixture(scope="module")
def hub(files, tmp_path_factory):
    with HubServer() as server:
        repo = Repo()
        repo.commit({p.name: p.read_bytes() for p in (files / "reference").iterdir()})
        server.repos[ATLAS] = repo
        clean = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
        process = subprocess.Popen(
            [sys.executable, "-c", CLIENT], env=clean | server.environment(tmp_path_factory.mktemp("home")),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        server.client = process
        yield server
        process.stdin.close()
        process.wait(timeout=30)
        process.stdout.close()


def ask(hub, *lines, token="writer"):
    hub.client.stdin.write(json.dumps([token, lines]) + "\n")
    hub.client.stdin.flush()
    return json.loads(hub.client.stdout.readline())


def test_a_graft_goes_round_by_way_of_the_hub(hub, files):
    atlas = hub.repos[ATLAS].order[0]
    graft = files / "graft"
    pushed, again, loaded, tagged, base, map_ = ask(
        hub,
        f"scgraft.push({str(graft)!r}, 'lab/graft', private=True, tags=['v1'], base='{ATLAS}', license='cc0-1.0')",
        f"scgraft.push({str(graft)!r}, 'lab/graft', base='{ATLAS}', license='cc0-1.0').commit",
        "scgraft.load_graft('lab/graft')",
        "scgraft.load_graft('lab/graft@v1').base",
        "scgraft.load_base(scgraft.load_graft('lab/graft', revision='v1'))",
        "scgraft.load_graft('lab/graft', reference=scgraft.load_reference('org/atlas')).batches",
    )
    repo = hub.repos["lab/graft"]
    assert repo.private and repo.tags == {"v1"} and len(repo.order) == 2  # made, then one commit with everything
    assert set(repo.commits[repo.order[1]]) == {".gitattributes", "README.md", "graft.json", "graft.safetensors"}
    assert repo.order[1] in pushed["value"] and "tag v1" in pushed["value"]
    assert again["value"] == repo.order[1], again  # the same files make no new commit
    text = repo.commits[repo.order[1]]["README.md"].decode()
    assert f"base_model: {ATLAS}" in text and atlas in text and "license: cc0-1.0" in text
    assert "s1" in loaded["value"] and f"repo='{ATLAS}', revision='{atlas}'" in tagged["value"]
    assert f"Reference SCVI {ATLAS}@{atlas[:12]}" in base["value"] and map_["value"] == "('s1',)"


def test_a_reference_goes_round_and_counts_only_when_asked_for(hub, files, tmp_path):
    counts = write_hub_folder(tmp_path / "counts", replace(CONFIG, minified=None))
    push_line = "scgraft.push({0!r}, {1!r}{2}).created"
    made, refused, allowed, loaded = ask(
        hub,
        push_line.format(str(files / "reference"), "lab/atlas", ""),
        push_line.format(str(counts), "lab/counts", ""),
        push_line.format(str(counts), "lab/counts", ", counts=True"),
        "scgraft.load_reference('lab/atlas')",
    )
    assert made["value"] == "True" and allowed["value"] == "True"
    assert refused["error"] == "HoldsCounts" and "X" in refused["text"] and "minify" in refused["text"]
    assert "60 cells (stored posterior)" in loaded["value"]
    original = (files / "reference" / "model.pt").read_bytes()
    repo = hub.repos["lab/atlas"]
    assert repo.commits[repo.refs["main"]]["model.pt"] == original and len(repo.order) == 2


def test_a_mudata_repository_goes_round_and_its_counts_only_when_asked_for(hub, tmp_path):
    bare, counts = (write_totalvi_folder(tmp_path / name, mudata=True) for name in ("bare", "counts"))
    with h5py.File(bare / "mdata.h5mu", "r+") as file:  # as scvi-tools minifies it: the modalities without a count
        for part in file["mod"].values():
            del part["X"]
            write_elem(part, "X", csr_matrix((len(part["obs/_index"]), len(part["var/_index"]))))
    for folder in (bare, counts):
        (folder / "README.md").write_text("---\nlicense: cc0-1.0\n---\n")
        (folder / "_scvi_required_metadata.json").write_text('{"model_cls_name": "TOTALVI", "scvi_version": "1.4.2"}')
    push_line = "scgraft.push({0!r}, {1!r}{2}).created"
    made, refused, allowed, loaded = ask(
        hub,
        push_line.format(str(bare), "lab/bare", ""),
        push_line.format(str(counts), "lab/cite", ""),
        push_line.format(str(counts), "lab/cite", ", counts=True"),
        "len(scgraft.load_reference('lab/cite').latent.cells)",
    )
    assert made["value"] == "True" and allowed["value"] == "True" and loaded["value"] == "60"
    assert (
        refused["error"] == "HoldsCounts"
        and "mdata.h5mu holds counts in mod['prot'].X, mod['rna'].X" in refused["text"]
    )
    repo = hub.repos["lab/cite"]
    assert "mdata.h5mu" in repo.commits[repo.refs["main"]] and "lab/bare" in hub.repos


def test_a_commit_conflict_writes_nothing(hub, files):
    hub.repos["lab/busy"] = Repo()
    first = hub.repos["lab/busy"].commit({"README.md": b"mine"})
    hub.commit_before = ("lab/busy", {"README.md": b"a colleague's"})
    line = f"scgraft.push({str(files / 'graft')!r}, 'lab/busy', base='{ATLAS}'{{}}).created"
    conflict, stale, fine = ask(hub, line.format(""), line.format(f", parent='{first}'"), line.format(""))
    assert conflict["error"] == "CommitConflict" and "nothing was written" in conflict["text"]
    assert stale["error"] == "CommitConflict" and fine["value"] == "False"
    repo = hub.repos["lab/busy"]
    assert len(repo.order) == 3 and repo.commits[repo.order[1]] == {"README.md": b"a colleague's"}


def test_refused_tokens(hub, files):
    line = f"scgraft.push({str(files / 'graft')!r}, {{!r}}, base='{ATLAS}')"
    hub.repos["lab/theirs"] = Repo()
    hub.repos["lab/theirs"].commit({"README.md": b"card"})
    for token, repo, kind, words in (
        ("expired", "lab/theirs", "InvalidToken", "Make"),
        ("reader", "lab/theirs", "NoWriteAccess", "HF_TOKEN"),
        ("reader", "lab/new", "NoWriteAccess", "HF_TOKEN"),
        ("", "lab/new", "NoWriteAccess", "HF_TOKEN"),
    ):
        (answer,) = ask(hub, line.format(repo), token=token)
        assert answer["error"] == kind and words in answer["text"], (token, repo, answer)
    assert "lab/new" not in hub.repos and len(hub.repos["lab/theirs"].order) == 1


def test_connections_that_break(hub, files):
    line = f"scgraft.push({str(files / 'graft')!r}, 'lab/far', base='{ATLAS}')"
    hub.objects.clear()
    hub.drop_uploads = 1  # a large file, once: the client sends it again
    hub.drop_commits = 1  # then the commit itself: nothing is made
    (broken,) = ask(hub, line)
    assert broken["error"] == "HubUnreachable" and "push again" in broken["text"]
    assert hub.drop_uploads == 0 and len(hub.repos["lab/far"].order) == 1
    hub.drop_answers = 1  # the commit is made, its answer is lost
    lost, again = ask(hub, line, line + ".commit")
    assert lost["error"] == "HubUnreachable"
    assert again["value"] == hub.repos["lab/far"].order[1] and len(hub.repos["lab/far"].order) == 2


def test_a_wrong_base_and_a_repository_without_a_graft(hub, files, tmp_path):
    other = write_hub_folder(tmp_path / "other", replace(CONFIG, seed=5))
    hub.repos["org/other"] = Repo()
    hub.repos["org/other"].commit({p.name: p.read_bytes() for p in other.iterdir()})
    wrong, absent, missing = ask(
        hub,
        f"scgraft.push({str(files / 'graft')!r}, 'lab/graft', base='org/other', dry_run=True)",
        f"scgraft.load_graft('{ATLAS}')",
        "scgraft.load_graft('lab/absent')",
    )
    assert wrong["error"] == "BaseMismatch" and "has a model with sha256" in wrong["text"]
    assert absent["error"] == "IncompleteRepository" and missing["error"] == "RepositoryNotFound"


def published(files):
    graft = load_graft(files / "graft")
    return replace(graft, base=replace(graft.base, repo=ATLAS, revision="a" * 40))


def test_a_dry_run_lists_everything_and_asks_nobody(files, monkeypatch):
    import socket

    def refuse(*args):
        raise AssertionError("a network call")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    plan = push(published(files), "lab/graft", dry_run=True, tags=["v1"])
    assert [name for name, _ in plan.files] == ["README.md", "graft.json", "graft.safetensors"]
    assert plan.commit is None and "a dry run" in str(plan) and all(size > 0 for _, size in plan.files)
    reference = push(files / "reference", "lab/atlas", dry_run=True)
    assert {name for name, _ in reference.files} == {p.name for p in (files / "reference").iterdir()}


def test_what_is_not_sound_is_not_pushed(files, tmp_path):
    with pytest.raises(errors.UnpublishedBase, match="which nobody else has"):
        push(files / "graft", "lab/graft", dry_run=True)
    with pytest.raises(errors.RepositoryNotFound, match="not the name of a repository"):
        push(published(files), "nonsense", dry_run=True)
    with pytest.raises(errors.IncompleteRepository, match="is not a folder"):
        push(tmp_path / "absent", "lab/graft", dry_run=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(errors.IncompleteRepository):
        push(tmp_path / "empty", "lab/graft", dry_run=True)
    save_graft(published(files), tmp_path / "cut")
    (tmp_path / "cut/graft.safetensors").write_bytes(b"x")
    with pytest.raises(errors.CorruptGraft):
        push(tmp_path / "cut", "lab/graft", dry_run=True)
    bare = write_hub_folder(tmp_path / "bare", CONFIG)
    (bare / "README.md").unlink()
    with pytest.raises(errors.IncompleteRepository, match="lacks README.md"):
        push(bare, "lab/atlas", dry_run=True)
    (bare / "model.pt").write_bytes(b"not a model")
    with pytest.raises(errors.CorruptFile):
        push(bare, "lab/atlas", dry_run=True)


def test_counts_are_found_wherever_they_are(tmp_path):
    rng = np.random.default_rng(0)
    counts = rng.poisson(1.0, (5, 4)).astype(np.float32)
    empty = np.zeros_like(counts)

    def found(**places):
        adata = anndata.AnnData(places.get("X", empty), layers=places.get("layers"))
        if "raw" in places:
            adata.raw = anndata.AnnData(places["raw"])
        adata.write_h5ad(tmp_path / "x.h5ad")
        return stored_counts(tmp_path / "x.h5ad")

    assert found() == [] and found(X=csr_matrix(empty)) == []
    assert found(X=counts) == ["X"] and found(X=csr_matrix(counts)) == ["X"]
    assert found(layers={"counts": csr_matrix(counts), "none": empty}) == ["layers['counts']"]
    assert found(raw=counts) == ["raw.X"]


def test_proteins_in_obsm_are_counts_too(tmp_path):
    folder = write_totalvi_folder(tmp_path / "cite")
    adata = anndata.read_h5ad(folder / "adata.h5ad")
    adata.X = csr_matrix(adata.shape, dtype=np.float32)
    adata.write_h5ad(folder / "adata.h5ad")
    (key,) = adata.obsm
    with pytest.raises(HoldsCounts, match=rf"holds counts in obsm\['{key}'\]"):
        push(folder, "lab/cite", dry_run=True)


def test_a_folder_of_scarches_needs_no_metadata_of_scvi_tools(tmp_path):
    folder = write_scpoli_folder(tmp_path / "scpoli", cells=False)
    with pytest.raises(IncompleteRepository, match="lacks README.md, which"):
        push(folder, "lab/scpoli", dry_run=True)
    written = export_scvi(load_reference(folder), None, tmp_path / "out")
    assert [name for name, _ in push(written, "lab/scpoli", dry_run=True).files] == [
        "README.md", "attr.pkl", "model_params.pt", "var_names.csv",
    ]  # fmt: skip


def test_an_export_can_be_pushed_as_it_is(files, tmp_path):
    reference = load_reference(files / "reference")
    folder = export_scvi(reference, load_graft(files / "graft"), tmp_path / "out")
    assert {name for name, _ in push(folder, "lab/wide", dry_run=True).files} >= {"model.pt", "adata.h5ad", "README.md"}


def test_load_base_of_a_folder(files, tmp_path):
    graft = load_graft(files / "graft")
    assert load_base(graft).base.sha256 == graft.base.sha256
    with pytest.raises(errors.UnpublishedBase, match="is not here"):
        load_base(replace(graft, base=replace(graft.base, repo=str(tmp_path / "gone"))))
    with pytest.raises(errors.BaseMismatch):
        load_base(replace(graft, base=replace(graft.base, sha256="0" * 64)))
    with pytest.raises(errors.RevisionNotFound):
        load_graft(files / "graft", revision="v1")


def test_command_push(files, tmp_path):
    save_graft(published(files), tmp_path / "graft")
    summary = {"batches": ["s1"], "alignment": {"cells_per_batch": {"s1": 40}}, "summary": {"cells": 40}}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    done = CliRunner().invoke(main, ["push", str(tmp_path / "graft"), "--repo", "lab/graft", "--dry-run"])
    assert done.exit_code == 0 and "graft.safetensors" in done.output, done.output
    local = CliRunner().invoke(main, ["push", str(files / "graft"), "--repo", "lab/graft", "--dry-run"])
    assert local.exit_code == 6 and "UnpublishedBase" in local.output
    counts = write_hub_folder(tmp_path / "counts", replace(CONFIG, minified=None))
    refused = CliRunner().invoke(main, ["push", str(counts), "--repo", "lab/counts", "--dry-run"])
    assert refused.exit_code == 10
    allowed = CliRunner().invoke(main, ["push", str(counts), "--repo", "lab/counts", "--dry-run", "--with-counts"])
    assert allowed.exit_code == 0
