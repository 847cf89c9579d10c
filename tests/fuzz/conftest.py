"""Sound files of every kind, made once, and the child process that reads damaged copies of them."""

import shutil

import pytest

from fuzz.mutate import CALIBRATION, TARGETS
from fuzz.pool import Reader
from hostile_h5ad import write_secret
from scgraft.mapping.frozen_store import save_frozen
from scgraft.mapping.load import load_reference
from scgraft.mapping.map import learn, map_query
from scgraft.query.align import align
from scgraft.results.folder import write
from scgraft.results.parts import part_name, part_of, write_part
from scgraft.testing import tiny_query, write_hub_folder
from scgraft.testing.tiny_model import TinyConfig
from scgraft.values.graft import FitConfig

MINIFIED = TinyConfig(minified="latent_posterior_parameters", encode_covariates=True)
# Names that a stranger gave: a formula, colours, a title, a cursor, a line that turns.
NAMES = ("=HYPERLINK(1)", "\x1b[31mred", "\x1b]0;t\x07", "a\rb", "\u202eabc", "+1+1", "-x", "@x", "<script>", "'=1")


@pytest.fixture(scope="session")
def sound(tmp_path_factory):
    """Folders with sound files, by reader; `out` is the mapping of a query with a stranger's names."""
    home = tmp_path_factory.mktemp("sound")
    write_hub_folder(home / "reference", TinyConfig(minified=None))
    write_hub_folder(home / "minified", MINIFIED)
    query = tiny_query(MINIFIED, n_cells=40, batches=("=a", "\x1b[2Jb"))
    query.obs_names = [*NAMES, *query.obs_names[len(NAMES) :]]
    (home / "query").mkdir()
    query.write_h5ad(home / "query" / "adata.h5ad")
    reference = load_reference(home / "minified")
    mapped = map_query(reference, query, batch_key="batch")
    write(mapped, query, home / "out", reference=reference, page=True)
    (home / "calibration").mkdir()
    shutil.copy(next((home / "out" / "calibration").glob("*.npz")), home / "calibration" / CALIBRATION)
    shutil.copytree(home / "out" / "graft", home / "graft")
    (home / "report").mkdir()
    for name in ("summary.json", "labels.csv", "map.npz"):
        shutil.copy(home / "out" / name, home / "report" / name)
    frozen = learn(
        reference, align(reference, query, batch_key="batch"), labels="auto", config=FitConfig(), graft=mapped.graft,
        calibration=mapped.calibration,
    )[1]  # fmt: skip
    save_frozen(frozen, home / "frozen")
    (home / "part").mkdir()
    write_part(home / "part" / part_name(0), part_of(slice(0, 40), mapped.latent.cells, mapped, None))
    (home / "secret").mkdir()
    write_secret(home / "secret")
    return home


@pytest.fixture(scope="session")
def child(sound):
    """A reader of damaged files that knows the sound ones."""
    files = {reader: sound / reader / name for reader, name, _ in TARGETS.values()}
    with Reader(files, sound / "secret") as reader:
        yield reader
