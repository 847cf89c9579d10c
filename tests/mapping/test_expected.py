"""What a mapping in parts promises to take, before it starts."""

import re

import numpy as np
import pytest
from click.testing import CliRunner

import scgraft
from scgraft.cli.main import main
from scgraft.mapping import expected as module
from scgraft.mapping.expected import expected, used_memory
from scgraft.mapping.stream import open_query
from scgraft.testing import TinyConfig, tiny_query, write_hub_folder
from scgraft.values.quality import Finding
from scgraft.values.query import AlignOptions

CONFIG = TinyConfig(encode_covariates=True, minified="latent_posterior_parameters", n_cells=80)
OPTIONS = AlignOptions(batch_key="batch")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SCGRAFT_CACHE", str(tmp_path / "cache"))
    write_hub_folder(tmp_path / "reference", CONFIG)
    return tmp_path


def file_of(reference, folder, n):
    tiny_query(CONFIG, n_cells=n).write_h5ad(folder / f"{n}.h5ad")
    return open_query(reference, folder / f"{n}.h5ad", OPTIONS)


def test_time_grows_with_the_cells_and_memory_only_to_the_sample(folder, monkeypatch):
    reference = scgraft.load_reference(folder / "reference")
    given = {"seconds": 10.0, "of_calibration": 4.0}
    monkeypatch.setattr(module, "seconds", lambda work: (work(), 0.5)[1])
    monkeypatch.setattr(module, "resources", lambda *args, device: Finding("resources", "ok", "", "", given))
    monkeypatch.setattr(module, "used_memory", lambda: 1000.0)
    monkeypatch.setattr(module, "SAMPLE", 50)
    monkeypatch.setattr(module, "CELLS", 40)
    for n, looked_up in ((30, 0.5 / 80), (200, 0.5 / 80)):
        file = file_of(reference, folder, n)
        density = tiny_query(CONFIG, n_cells=n).X.nnz / n
        bare, judged = (expected(reference, file, OPTIONS, calibrated=which) for which in (False, True))
        assert np.isclose(bare.seconds, 10 + n * (2 * 0.5 / n + looked_up))
        assert np.isclose(judged.seconds, 10 + n * (2 * 0.5 / n + 2 * looked_up))
        assert judged.of_calibration == 4
        held = density * max(module.SAMPLE_BYTES * min(n, 50), module.RUN_BYTES * min(n, 40))
        assert np.isclose(bare.memory, 1000 + held, rtol=1e-3)


def test_the_first_calibration_is_in_it_and_then_no_more(folder):
    reference = scgraft.load_reference(folder / "reference")
    file = file_of(reference, folder, 60)
    before = expected(reference, file, OPTIONS, calibrated=True)
    assert 0 < before.of_calibration < before.seconds
    assert "for the calibration of the reference" in before.sentence
    assert expected(reference, file, OPTIONS, calibrated=False).of_calibration == 0
    scgraft.map_query(reference, tiny_query(CONFIG, n_cells=60), batch_key="batch")
    after = expected(reference, file, OPTIONS, calibrated=True)
    assert after.of_calibration == 0 and "calibration" not in after.sentence


def test_the_command_says_it_before_it_starts(folder):
    tiny_query(CONFIG, n_cells=60).write_h5ad(folder / "query.h5ad")
    line = [
        "map",
        str(folder / "query.h5ad"),
        "--reference",
        str(folder / "reference"),
        "--batch-key",
        "batch",
        "--memory",
        "1K",
    ]
    found = CliRunner().invoke(main, [*line, "--out", str(folder / "out"), "--no-report", "--max-steps", "2"])
    assert found.exit_code == 0, found.output
    said = found.output.index("Expect about ")
    assert said < found.output.index("cells are read to check them")
    text = " ".join(found.output[said:].split())
    assert re.match(r"Expect about [\d.]+ \w+ on this machine and a peak of \d+\.\d GB of memory", text), text


def test_memory_that_is_used_is_what_the_system_says():
    before = used_memory()
    held = np.ones(100_000_000 // 8)
    assert 0.9 * held.nbytes < used_memory() - before < 1.5 * held.nbytes
