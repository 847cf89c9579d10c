"""A load and a mapping open the files that they were given, and nothing else that is there: every open of the process is looked at."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scgraft.testing import tiny_query, write_hub_folder
from scgraft.testing.tiny_model import TinyConfig

CONFIG = TinyConfig(minified="latent_posterior_parameters")
READ = {"model.pt", "adata.h5ad", "README.md", "_scvi_required_metadata.json"}
# What else a repository, or a folder of results, may hold: JSON, YAML, tables, code and pickles that nobody asked for.
GARBAGE = ("metrics.json", "config.json", "card.yaml", "dvc.yml", "obs.csv", "var_names.csv", "attr.pkl", "scgraft.toml", "setup.py", "x.py", "graft.json")  # fmt: skip
SCRIPT = """
import json, os, sys, warnings
from pathlib import Path
from fuzz.worker import hook, is_outside, opened, touched, watch
import scgraft
from scgraft.query.read import read_query
warnings.simplefilter("ignore")
home, seen = Path(sys.argv[1]), {}
scgraft.load_reference(home / "warm"), read_query(home / "query.h5ad")  # what is imported on the way is not looked at
folders = {name: watch(home / name) for name in ("reference", "secret", "out", ".")  if (home / name).exists()}
sys.addaudithook(hook)
reference = scgraft.load_reference(home / "reference")
described = str(scgraft.describe(reference))
query = read_query(home / "query.h5ad")
mapped = scgraft.map_query(reference, query, batch_key="batch")
if sys.argv[2] == "again":
    scgraft.report(home / "out")
    scgraft.load_graft(home / "out" / "graft", reference=reference)
else:
    scgraft.write(mapped, query, home / "out", reference=reference)
allowed = [name for name in opened if is_outside(name, home)]
print(json.dumps({
    "outside": sorted(set(allowed)), "described": described, "labels": mapped.labels["cell_type"].matrix.sum(0).tolist(),
    "touched": {name: sorted(set(touched(found))) for name, found in folders.items()},
}))
"""
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="inotify is of Linux")


@pytest.fixture
def home(tmp_path):
    for name in ("reference", "warm"):
        write_hub_folder(tmp_path / name, CONFIG)
    tiny_query(CONFIG, n_cells=40, batches=("q",)).write_h5ad(tmp_path / "query.h5ad")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "file").write_text("secret")
    return tmp_path


def run(home, what="first"):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (*Path(__file__).parents[1:2], *sys.path)))}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(home), what],
        env=environment,
        cwd=home / "secret",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def plant(folder):
    for name in GARBAGE:
        (folder / name).write_bytes(b'\x80\x04[{"\xff garbage: *a &a' * 99)


def test_only_what_was_given_is_opened_and_what_lies_beside_changes_nothing(home):
    plain = run(home)
    assert plain["outside"] == []
    assert set(plain["touched"]["reference"]) == READ
    assert plain["touched"]["secret"] == []
    plant(home / "reference")
    plant(home / "out")
    again = run(home, "again")
    assert again["outside"] == []
    assert set(again["touched"]["reference"]) == READ
    assert not set(again["touched"]["out"]) & set(GARBAGE)
    assert {name: again[name] for name in ("described", "labels")} == {
        name: plain[name] for name in ("described", "labels")
    }
