"""Parts made by the workers of a real cluster: the bytes of a single run, whatever is killed."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import anndata
import numpy as np
import pytest

import scgraft
from scgraft.errors import BadOption, ClusterError, NotCounts
from scgraft.mapping import cluster as on_cluster
from scgraft.mapping import freeze, lazy, map, stream
from scgraft.mapping.load import load_reference
from scgraft.results import stream as results
from scgraft.results.stream import Job, map_in_parts, parts_folder
from scgraft.testing import tiny_query, write_hub_folder
from scgraft.testing.tiny_model import TinyConfig
from scgraft.values.graft import FitConfig
from scgraft.values.query import AlignOptions

distributed = pytest.importorskip("distributed", reason="dask.distributed is not installed (the extra scgraft[dask])")

CONFIG = TinyConfig(encode_covariates=True, minified="latent_posterior_parameters", n_cells=120, n_genes=40)
FIT = FitConfig(max_steps=5, device="cpu")
N = 230
SMALL = str(Path(__file__).with_name("small_worker.py"))
# dask says that its own ports are taken, and more, in ways that differ between versions.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for module in (map, stream):
        monkeypatch.setattr(module, "SAMPLE", 60)
    monkeypatch.setattr(freeze, "CELLS", 20)


@pytest.fixture(scope="module")
def cluster():
    """Two workers, each a process, which are started again when they end."""
    import dask

    quick = {"distributed.comm.timeouts.connect": "5s", "distributed.scheduler.allowed-failures": 20}
    with warnings.catch_warnings(), dask.config.set(quick):
        warnings.simplefilter("ignore")
        options = {"dashboard_address": None, "threads_per_worker": 1, "processes": True, "preload": [SMALL]}
        with distributed.LocalCluster(n_workers=2, **options) as made:
            yield made


@pytest.fixture
def client(cluster):
    with distributed.Client(cluster) as made:
        made.wait_for_workers(2, timeout=120)
        yield made


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cluster")
    reference = load_reference(write_hub_folder(folder / "reference", CONFIG))
    adata = tiny_query(CONFIG, n_cells=N, batches=("new 1", "new 2"))
    adata.write_h5ad(folder / "query.h5ad")
    with pytest.MonkeyPatch.context() as patch:
        for module in (map, stream):
            patch.setattr(module, "SAMPLE", 60)
        patch.setattr(freeze, "CELLS", 20)
        map_in_parts(reference, job(folder), folder / "single", say=quiet)
        whole = scgraft.map_query(reference, adata, batch_key="batch", config=FIT)
    return folder, reference, whole


def job(folder):
    return Job(folder / "query.h5ad", AlignOptions(batch_key="batch"), config=FIT, page=False)


def quiet(line):
    pass


def bytes_of(folder):
    return {name: (folder / name).read_bytes() for name in ("labels.csv.gz", "mapped.h5ad")}


def kill_after(part, pid):
    """Kill a process when a part is there."""

    def watch():
        end = time.monotonic() + 300
        while not part.exists() and time.monotonic() < end:
            time.sleep(0.005)
        os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def test_workers_make_the_bytes_of_a_single_run_and_each_part_once(files, client, tmp_path, monkeypatch):
    folder, reference, _ = files
    listed, real = [], results.Parts.list_part
    monkeypatch.setattr(results.Parts, "list_part", lambda self, i, d: (listed.append(i), real(self, i, d)))
    said = []
    map_in_parts(reference, job(folder), tmp_path / "out", say=said.append, client=client)
    assert bytes_of(tmp_path / "out") == bytes_of(folder / "single")
    assert sorted(listed) == list(range(12)) and any("2 workers" in line for line in said)


def test_a_worker_killed_in_the_middle_costs_its_running_part(files, client, tmp_path):
    """SCGRAFT_KILLS=10 for more moments."""
    folder, reference, _ = files
    rng = random.Random(1)
    for i in range(int(os.environ.get("SCGRAFT_KILLS", "1"))):
        out = tmp_path / f"out {i}"
        client.wait_for_workers(2, timeout=120)
        pids = client.run(os.getpid)
        thread = kill_after(parts_folder(out) / f"{rng.randrange(2, 8):05d}.npz", rng.choice(sorted(pids.values())))
        map_in_parts(reference, job(folder), out, say=quiet, client=client)
        thread.join()
        assert bytes_of(out) == bytes_of(folder / "single")
        assert not set(client.run(os.getpid).values()) >= set(pids.values())


def test_map_query_on_a_cluster_is_map_query_here(files, client, monkeypatch):
    folder, reference, whole = files
    monkeypatch.setattr(lazy, "map_file", None)  # nothing is mapped here
    cells = [anndata.read_h5ad(folder / "query.h5ad", backed="r")]
    if pytest.importorskip("xarray"):
        cells.append(anndata.experimental.read_lazy(folder / "query.h5ad"))
    for adata in cells:
        made = scgraft.map_query(reference, adata, batch_key="batch", config=FIT, client=client)
        assert np.array_equal(made.latent.mean, whole.latent.mean) and made.to_frame().equals(whole.to_frame())
    with pytest.raises(BadOption, match="read_lazy"):
        scgraft.map_query(reference, adata.to_memory(), batch_key="batch", config=FIT, client=client)


def test_an_error_of_the_query_is_that_of_a_single_run(files, client, tmp_path):
    folder, reference, _ = files
    adata = anndata.read_h5ad(folder / "query.h5ad")
    counts = adata.X.tolil()
    counts[200, 3] = -1
    adata.X = counts.tocsr()
    (tmp_path / "in").mkdir()
    adata.write_h5ad(tmp_path / "in/query.h5ad")
    with pytest.raises(NotCounts, match="cell"):
        map_in_parts(reference, job(tmp_path / "in"), tmp_path / "out", say=quiet, client=client)


def test_workers_of_another_version_are_refused(files, client, tmp_path, monkeypatch):
    folder, reference, _ = files
    monkeypatch.setattr(on_cluster, "__version__", "99.0")
    with pytest.raises(ClusterError, match="99.0"):
        map_in_parts(reference, job(folder), tmp_path / "out", say=quiet, client=client)


def test_a_scheduler_that_goes_away_leaves_its_parts(files, tmp_path):
    folder, reference, _ = files
    line = [sys.executable, str(Path(__file__).with_name("small_cluster.py")), SMALL]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            client = on_cluster.connect(process.stdout.readline().strip())
            kill_after(parts_folder(tmp_path / "out") / "00003.npz", process.pid)
            with pytest.raises(ClusterError, match="run the same again"):
                map_in_parts(reference, job(folder), tmp_path / "out", say=quiet, client=client)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(TimeoutError, OSError):
            client.close(timeout=2)
    done = json.loads((parts_folder(tmp_path / "out") / "parts.json").read_text())
    assert 1 <= len(done) < 12
    said = []
    map_in_parts(reference, job(folder), tmp_path / "out", say=said.append)
    assert any(f"Going on: {len(done)} parts" in text for text in said)
    assert bytes_of(tmp_path / "out") == bytes_of(folder / "single")


def test_no_scheduler_is_a_named_error(monkeypatch):
    import dask

    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(ClusterError, match="no scheduler"),
    ):
        on_cluster.connect("tcp://127.0.0.1:1")
