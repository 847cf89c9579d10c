"""The list of references, against a loopback server that speaks the Hub's protocol, and from the cache without it."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from hub_server import HubServer, Repo
from scgraft.cards.card import Card
from scgraft.cards.catalogue import from_card
from scgraft.cards.reading import parse_card
from scgraft.testing import write_hub_folder
from scgraft.testing.tiny_model import TinyConfig
from shared_files import shared

CONFIG = TinyConfig(minified="latent_posterior_parameters", encode_covariates=True)
PROGRAM = "import json, sys, scgraft; from scgraft.cli.main import run; run()"


def card(*tags, library="scvi-tools", more=""):
    lines = ["---", f"library_name: {library}", "license: mit", "tags:", *(f"- {tag}" for tag in tags), "---", more]
    return "\n".join(lines).encode()


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with HubServer() as server:
        own = write_hub_folder(tmp_path_factory.mktemp("atlas") / "atlas", CONFIG)
        files = {path.name: path.read_bytes() for path in own.iterdir()}
        server.repos["org/human-lung-atlas"] = Repo()
        server.repos["org/human-lung-atlas"].commit(
            files | {"README.md": files["README.md"].replace(b"tags:", b"tags:\n- tissue:lung", 1)}
        )
        for name, content in {
            "org/mouse-gut": card("model_cls_name:SCVI", "tissue:gut"),
            "org/spots": card("model_cls_name:CondSCVI", "tissue:lung"),
            "org/words": card("lung", library="transformers"),
            "org/no-facts": card(more="Human cells, and mouse cells too."),
        }.items():
            server.repos[name] = Repo(gated=name == "org/mouse-gut")
            server.repos[name].commit({"README.md": content})
        yield server


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


def scgraft(hub, home, *arguments, **extra):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    made = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], env=clean | hub.environment(home, **extra),
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return made.returncode, made.stdout, made.stderr


def test_the_hub_is_listed_and_what_was_pulled_is_listed_without_it(hub, home):
    code, out, err = scgraft(hub, home, "references", "--offline")
    assert code == 4 and "the cache holds no reference" in err
    code, out, err = scgraft(hub, home, "references", "--json")
    assert code == 0, err
    found = {entry["repo"]: entry for entry in json.loads(out)["references"]}
    assert set(found) == {
        "org/human-lung-atlas",
        "org/mouse-gut",
        "org/spots",
        "org/no-facts",
    }  # not the other library's
    atlas = found["org/human-lung-atlas"]
    expected = {"family": "SCVI", "tissue": "lung", "species": "human", "cells": 60, "genes": 30, "batches": 2}
    assert expected.items() <= atlas.items() and atlas["surgery"] == "fit" and atlas["size"] > 10_000
    assert atlas["revision"] == hub.repos["org/human-lung-atlas"].refs["main"] and not atlas["downloaded"]
    assert found["org/spots"]["surgery"] == "refused" and found["org/mouse-gut"]["gated"]
    assert found["org/no-facts"]["species"] is None and found["org/no-facts"]["licence"] == "mit"
    assert not any("model.pt" in line for line in hub.log)  # no model was downloaded for the list

    code, out, _ = scgraft(hub, home, "references", "LUNG", "human")
    assert code == 0 and "org/human-lung-atlas" in out and "org/spots" not in out and "1 reference. " in out
    code, out, _ = scgraft(hub, home, "references", "zebrafish")
    assert code == 0 and out.startswith("0 references. ") and "other words" in out
    code, out, err = scgraft(hub, home, "pull", "org/human-lung-atlas", "--out", str(home / "carried"))
    assert code == 0 and atlas["revision"] in out, err
    assert (home / "carried" / "model.pt").is_file() and not (home / "carried" / "model.pt").is_symlink()
    for arguments, extra in (
        (["--offline"], {}),
        ([], {"HF_HUB_OFFLINE": "1"}),
        ([], {"HF_ENDPOINT": "http://127.0.0.1:9"}),
    ):
        asked = len(hub.log)
        code, out, err = scgraft(hub, home, "references", *arguments, **extra)
        assert code == 0 and "org/human-lung-atlas" in out and "downloaded" in out and "in the cache" in out, err
        alone = next(line for line in out.splitlines() if line.startswith("org/spots"))
        assert "MB" not in alone and "downloaded" not in alone  # its card alone is here: the size would be the card's
        assert len(hub.log) == asked
    code, out, _ = scgraft(hub, home, "describe", "org/human-lung-atlas", HF_HUB_OFFLINE="1")
    assert code == 0 and "SCVI model org/human-lung-atlas" in out


@pytest.mark.parametrize(
    ("header", "parameters", "surgery"),
    [
        ({"tags": ["model_cls_name:SCVI"]}, {"n_latent": 10, "encode_covariates": True}, "fit"),
        ({"tags": ["model_cls_name:SCVI"]}, {"n_latent": 10}, "projection"),
        ({"tags": ["model_cls_name:SCVI"]}, {}, "unknown"),
        ({"tags": ["model_cls_name:RESOLVI"]}, {"n_latent": 10}, "refused"),
        ({"tags": "model_cls_name:SCVI"}, {}, "unknown"),
        ({}, {}, "unknown"),
    ],
)
def test_surgery_as_the_card_has_it(header, parameters, surgery):
    assert from_card(Card(header=header, parameters=parameters), "a/b", None).surgery == surgery


def test_a_stranger_s_card_never_fails():
    odd = Card(header={"license": ["a"], "tags": [1, None, "tissue:"]}, setup={"labels_key": ["x"]}, statistics={})
    found = from_card(odd, "a/b", None)
    assert found.licence is None and found.cells is None
    assert from_card(replace(odd, description="Homo sapiens. " * 9), "a/b", None).species == "human"


def test_cards_of_scvi_tools_itself():
    folder = shared("hub", "cells", "pbmc-10x-scanvi")
    found = from_card(parse_card((folder / "README.md").read_text()), "hub/pbmc", None)
    assert (found.family, found.cells, found.genes, found.batches, found.surgery) == ("SCANVI", 3503, 2000, 2, "fit")
    assert found.label_key == "cell_type" and found.licence == "cc-by-4.0" and found.modality == "rna"
