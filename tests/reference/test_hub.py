"""Fetching a repository from a server that speaks the Hub's protocol."""

import json
import os
import subprocess
import sys

import pytest

import scgraft
from hub_server import HubServer, Repo
from scgraft import errors
from scgraft.query.read import read_query
from scgraft.reference.hub import fetch
from scgraft.testing import write_hub_folder
from scgraft.testing.tiny_model import TinyConfig
from tiny_totalvi import NAMES, draw, write_h5mu, write_totalvi_folder

NAME = "org/atlas"
ONE = {"model.pt": b"one" * 1000, "README.md": b"card one", "adata.h5ad": b"cells", "other.bin": b"not needed"}
TWO = ONE | {"model.pt": b"two" * 1000, "README.md": b"card two"}

# The client reads its settings when it is imported, so each scenario is a process of its own: it runs the steps given
# and prints, for each, the files found or the error.
CLIENT = """
import json, os, sys
from scgraft.query.read import read_query
from scgraft.reference.hub import fetch
for revision in json.loads(sys.argv[2]):
    try:
        b = fetch(sys.argv[1], revision)
        card = b.card.read_text() if b.card else None
        model = b.model.read_bytes()
        print(json.dumps({"revision": b.revision, "card": card, "model": model[:3].decode(), "size": len(model),
                          "files": sorted(os.listdir(b.folder))}))
    except Exception as e:
        print(json.dumps({"error": type(e).__name__, "text": str(e)}))
"""


def client(environment, *revisions, name=NAME):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, name, json.dumps(revisions or [None])],
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def hub():
    with HubServer() as server:
        repo = Repo()
        first = repo.commit(ONE)
        repo.refs["v1"] = first
        repo.tags.add("v1")
        repo.commit(TWO)
        server.repos[NAME] = repo
        yield server


def test_branch_tag_and_commit_are_pinned_and_consistent(hub, tmp_path):
    first, second = hub.repos[NAME].order
    answers = client(hub.environment(tmp_path), None, "main", "v1", first)
    assert [a["revision"] for a in answers] == [second, second, first, first]
    assert [(a["card"], a["model"]) for a in answers] == [("card two", "two")] * 2 + [("card one", "one")] * 2
    assert answers[0]["files"] == ["README.md", "adata.h5ad", "model.pt"]
    assert not any("other.bin" in line for line in hub.log)


def test_offline_uses_the_cache_without_a_request(hub, tmp_path):
    first = hub.repos[NAME].order[0]
    client(hub.environment(tmp_path), None, first)
    hub.log.clear()
    answers = client(hub.environment(tmp_path, HF_HUB_OFFLINE="1"), None, first, "never seen")
    assert [a.get("card") for a in answers[:2]] == ["card two", "card one"]
    assert answers[2]["error"] == "HubUnreachable" and "HF_HUB_OFFLINE is set" in answers[2]["text"]
    assert hub.log == []


def test_no_server(hub, tmp_path):
    environment = hub.environment(tmp_path)
    client(environment)
    hub.stop()
    cached, absent = client(environment)[0], client(environment, name="org/other")[0]
    assert cached["card"] == "card two"
    assert absent["error"] == "HubUnreachable" and "pass the folder" in absent["text"]


def test_a_server_that_is_unwell(hub, tmp_path):
    hub.down = True
    assert client(hub.environment(tmp_path))[0]["error"] == "HubUnreachable"


def test_missing_private_gated_and_bad_tokens(hub, tmp_path):
    hub.repos["org/private"] = Repo(private=True)
    hub.repos["org/private"].commit(ONE)
    hub.repos["org/gated"] = Repo(gated=True)
    hub.repos["org/gated"].commit(ONE)
    plain = hub.environment(tmp_path)
    reader = hub.environment(tmp_path, HF_TOKEN="reader")

    def error(environment, name, revision=None):
        answer = client(environment, revision, name=name)[0]
        return answer.get("error"), answer.get("text", "")

    kind, text = error(plain, "org/private")
    assert kind == "RepositoryNotFound" and "HF_TOKEN" in text
    assert error(reader, "org/private")[0] is None
    assert error(reader, "org/absent")[0] == "RepositoryNotFound"
    kind, text = error(reader, "org/gated")
    assert kind == "GatedRepository" and "accept" in text
    kind, text = error(hub.environment(tmp_path, HF_TOKEN="expired"), NAME)
    assert kind == "InvalidToken" and "Make a new one" in text
    kind, text = error(plain, NAME, "v9")
    assert kind == "RevisionNotFound" and "'v9'" in text


def test_a_repository_without_a_model(hub, tmp_path):
    hub.repos["org/empty"] = Repo()
    hub.repos["org/empty"].commit({"README.md": b"card"})
    answer = client(hub.environment(tmp_path), name="org/empty")[0]
    assert answer["error"] == "IncompleteRepository" and "README.md" in answer["text"]


def test_a_transfer_that_breaks_in_the_middle_is_completed(hub, tmp_path):
    hub.repos["org/big"] = Repo()
    hub.repos["org/big"].commit({"model.pt": bytes(range(256)) * 4000})
    hub.break_after, hub.breaks_left = 300_000, 2
    answer = client(hub.environment(tmp_path), name="org/big")[0]
    assert answer["size"] == 1_024_000 and hub.breaks_left == 0


def test_a_transfer_that_never_completes_leaves_nothing_that_looks_complete(hub, tmp_path):
    hub.repos["org/big"] = Repo()
    hub.repos["org/big"].commit({"model.pt": bytes(range(256)) * 4000})
    hub.break_after, hub.breaks_left = 0, 10**6
    environment = hub.environment(tmp_path)
    assert client(environment, name="org/big")[0]["error"] == "HubUnreachable"
    hub.breaks_left = 0
    assert client(environment, name="org/big")[0]["size"] == 1_024_000


def test_a_hostile_listing_writes_nothing_outside(hub, tmp_path):
    hub.hostile_names = ["../../../../evil/model.pt", "..\\..\\model.pt"]
    answer = client(hub.environment(tmp_path / "home"))[0]
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and p.read_bytes() == b"evil"], answer


def test_upload_commit_tag_and_conflict(hub, tmp_path):
    script = """
import sys
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError
from scgraft.query.read import read_query
from scgraft.reference.hub import fetch
api = HfApi()
api.create_repo("org/new", private=True)
add = lambda text: [CommitOperationAdd("model.pt", text), CommitOperationAdd("README.md", b"---\\nlicense: mit\\n---\\n")]
first = api.create_commit("org/new", add(b"one"), commit_message="first").oid
api.create_tag("org/new", tag="v1")
api.create_commit("org/new", add(b"two"), commit_message="second", parent_commit=first)
try:
    api.create_commit("org/new", add(b"three"), commit_message="third", parent_commit=first)
except HfHubHTTPError as error:
    print(error.response.status_code)
print(fetch("org/new", "v1").model.read_bytes().decode(), fetch("org/new").model.read_bytes().decode())
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment | hub.environment(tmp_path, HF_TOKEN="writer"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.split() == ["412", "one", "two"], done.stderr


def test_a_real_reference_loads_through_the_hub(hub, tmp_path):
    folder = write_hub_folder(tmp_path / "folder", TinyConfig())
    hub.repos["org/tiny"] = Repo()
    commit = hub.repos["org/tiny"].commit({p.name: p.read_bytes() for p in folder.iterdir()})
    script = "import scgraft; r = scgraft.load_reference('org/tiny'); print(r.base.revision, len(r.latent.cells))"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment | hub.environment(tmp_path / "home"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.split() == [commit, "60"], done.stderr


def test_what_is_neither_a_folder_nor_a_name(tmp_path):
    for source in ("nonsense", "/no/such/folder", "a/b/c", "../up", tmp_path / "absent"):
        with pytest.raises(errors.RepositoryNotFound, match="neither a folder nor the name"):
            fetch(source)
    with pytest.raises(errors.RevisionNotFound, match="has no revisions"):
        fetch(tmp_path, "main")


def test_a_prefix_is_found_and_two_models_are_not_guessed(tmp_path):
    (tmp_path / "lung_model.pt").write_bytes(b"x")
    assert fetch(tmp_path).model.name == "lung_model.pt"
    (tmp_path / "heart_model.pt").write_bytes(b"x")
    with pytest.raises(errors.IncompleteRepository, match="several models"):
        fetch(tmp_path)


def test_the_cells_and_the_card_follow_the_prefix_of_the_model(tmp_path):
    for name in ("run1_model.pt", "run1_adata.h5ad", "adata.h5ad", "README.md"):
        (tmp_path / name).write_bytes(b"x")
    bundle = fetch(tmp_path)
    assert (bundle.adata.name, bundle.card.name) == ("run1_adata.h5ad", "README.md")


def test_what_lies_on_this_machine_is_not_asked_of_the_hub(tmp_path, monkeypatch):
    (tmp_path / "models" / "lung").mkdir(parents=True)
    (tmp_path / "models" / "lung" / "model.pt").write_bytes(b"x")
    (tmp_path / "models" / "lung.zip").write_bytes(b"PK")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("scgraft.reference.hub.download", None)
    with pytest.raises(errors.RepositoryNotFound, match="is a file.*folder that holds model.pt"):
        fetch("models/lung.zip")
    with pytest.raises(errors.RepositoryNotFound, match="no folder models/lugn; models holds lung"):
        fetch("models/lugn")
    with pytest.raises(errors.IncompleteRepository, match="folders lung do"):
        fetch("models")


def test_a_mudata_repository_is_fetched_read_and_mapped_onto(tmp_path):
    folder = write_totalvi_folder(tmp_path / "made", mudata=True)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert "mdata.h5mu" in files and "adata.h5ad" not in files
    write_h5mu(draw(30, ("q0",)), tmp_path / "query.h5mu")
    code = """
import json, sys
import scgraft
from scgraft.query.read import read_query
reference = scgraft.load_reference("org/cite")
query = scgraft.align(reference, read_query(sys.argv[1]), batch_key="batch")
graft = scgraft.fit(reference, query, scgraft.FitConfig(max_steps=2, device="cpu"))
latent = scgraft.embed(reference, query, graft, device="cpu")
print(json.dumps({"revision": reference.base.revision, "cells": len(reference.latent.cells), "file": reference.adata_path.name,
                  "proteins": list(reference.schema.block("proteins").features), "base": graft.base.revision,
                  "latent": latent.mean[0].tolist()}))
"""
    with HubServer() as server:
        server.repos["org/cite"] = Repo()
        commit = server.repos["org/cite"].commit(files)
        answers = []
        for more in ({}, {"HF_HUB_OFFLINE": "1"}):  # the second time from the cache
            clean = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
            done = subprocess.run(
                [sys.executable, "-c", code, str(tmp_path / "query.h5mu")], capture_output=True, text=True, timeout=120,
                check=False, env=clean | server.environment(tmp_path, **more),
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            answers.append(json.loads(done.stdout.splitlines()[-1]))
    assert answers[0] == answers[1]
    found = answers[0]
    assert found["revision"] == found["base"] == commit and found["file"] == "mdata.h5mu"
    assert found["cells"] == 60 and found["proteins"] == NAMES
    local = scgraft.load_reference(folder)
    query = scgraft.align(local, read_query(tmp_path / "query.h5mu"), batch_key="batch")
    latent = scgraft.embed(
        local, query, scgraft.fit(local, query, scgraft.FitConfig(max_steps=2, device="cpu")), device="cpu"
    )
    assert latent.mean[0].tolist() == found["latent"]
