"""Hostile AnnData files of every kind, as a reference with counts and as a query: a named error, at once, nothing read."""

import shutil

import pytest

from fuzz.pool import Reader
from hostile_h5ad import KINDS, harm, members, write_secret
from scgraft.testing import tiny_query, write_hub_folder
from scgraft.testing.tiny_model import TinyConfig

CONFIG = TinyConfig(minified=None)


@pytest.fixture(scope="module")
def child(tmp_path_factory):
    home = tmp_path_factory.mktemp("hostile")
    write_hub_folder(home / "reference", CONFIG)
    write_hub_folder(home / "minified", TinyConfig(minified="latent_posterior_parameters"))
    (home / "query").mkdir()
    tiny_query(CONFIG, n_cells=30, batches=("a", "b")).write_h5ad(home / "query" / "adata.h5ad")
    (home / "secret").mkdir()
    secret = write_secret(home / "secret")
    sound = {"reference": home / "reference" / "adata.h5ad", "query": home / "query" / "adata.h5ad"}
    sound |= {
        "backed query": sound["query"],
        "query in runs": sound["query"],
        "minified": home / "minified" / "adata.h5ad",
    }
    with Reader(sound, secret.parent) as reader:
        yield reader, secret, home


def damaged(child, reader, kind, name):
    """What comes of a member, read in a folder of its own."""
    made, secret, home = child
    source = made.sound[reader].parent
    folder = home / "case"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    return made.read(reader, harm(folder / "adata.h5ad", kind, name, secret))


@pytest.mark.parametrize(
    ("kind", "name"), list(members("leads out", "no tree", "too large", "broken sparse", "not AnnData"))
)
def test_a_reference_with_counts_is_refused_by_name(child, kind, name):
    outcome = damaged(child, "reference", kind, name)
    assert outcome.outside == ()
    # What is not read does no harm; cells whose counts cannot be followed are left out, and latent_source says so.
    unread = name.startswith(("uns of", "unknown encoding", "unknown version", "codes are negative"))
    left_out = "index" in name and kind == "broken sparse"
    assert outcome.kind == "named" or ((unread or left_out) and outcome.kind in ("fine", "different")), outcome
    if kind == "leads out":
        assert outcome.error.startswith("UnsafeFile"), outcome


@pytest.mark.parametrize("reader", ["query", "backed query", "query in runs"])
@pytest.mark.parametrize(("kind", "name"), list(members("leads out", "broken sparse")))
def test_a_query_is_refused_by_name(child, reader, kind, name):
    outcome = damaged(child, reader, kind, name)
    assert outcome.outside == ()
    assert outcome.kind == "named" or (reader == "backed query" and "index" in name), outcome


@pytest.mark.parametrize("name", KINDS["bad map"])
def test_a_map_that_cannot_be_drawn_is_left_out(child, name):
    outcome = damaged(child, "minified", "bad map", name)
    assert (outcome.kind, outcome.outside) == ("different", ()), outcome
