"""A device that is asked for reaches every step that computes with torch: none chooses one for itself."""

import inspect

import pytest
from click.testing import CliRunner

import scgraft
from scgraft.cli.main import main
from scgraft.errors import BadOption
from scgraft.model import build
from scgraft.model.build import pick_device
from scgraft.testing import tiny_query, write_hub_folder
from scgraft.testing.tiny_model import TinyConfig

CPU = {"device": "cpu"}
# Each kind has steps of its own: a model's own classifier on stored posteriors; cells that are encoded from stored counts.
KINDS = {
    "posteriors": TinyConfig(model="SCANVI", encode_covariates=True, minified="latent_posterior_parameters"),
    "counts": TinyConfig(encode_covariates=True),
}


def nobody_chooses(monkeypatch):
    """Whatever asks which devices there are, to choose one, fails from now on."""

    def asked() -> int:
        raise AssertionError("a step chose its device for itself")

    monkeypatch.setattr(build, "cuda_devices", asked)


@pytest.fixture(scope="module", params=KINDS)
def files(request, tmp_path_factory):
    home, config = tmp_path_factory.mktemp(request.param), KINDS[request.param]
    folder, adata = write_hub_folder(home / "reference", config), tiny_query(config, batches=("new 1", "new 2"))
    adata.write_h5ad(home / "query.h5ad")
    return folder, home / "query.h5ad", adata


@pytest.fixture(scope="module")
def called(files, tmp_path_factory):
    """What each public function that takes a device gives on the CPU, where nobody may choose another."""
    folder, _, adata = files
    with pytest.MonkeyPatch.context() as monkeypatch:
        nobody_chooses(monkeypatch)
        monkeypatch.setenv("SCGRAFT_CACHE", str(tmp_path_factory.mktemp("cache")))  # a calibration is made, not found
        reference = scgraft.load_reference(folder, **CPU)
        query = scgraft.align(reference, adata, batch_key="batch")
        config = scgraft.FitConfig(max_steps=2, **CPU)
        graft = scgraft.fit(reference, query, config)
        cells = scgraft.query_cells(reference, query, graft, **CPU)
        latent = scgraft.embed(reference, query, graft, **CPU)
        near = reference.latent.index.near(latent.mean)
        mapped = scgraft.map_query(reference, adata, batch_key="batch", config=config)
        bare = scgraft.map_query(reference, adata, batch_key="batch", graft=graft, calibration=None, config=config)
        types = mapped.labels["cell_type"].label
        with pytest.warns(UserWarning, match="rests on a decoder"):  # the tiny card has no metrics
            compared = scgraft.compare_expression(reference, cells, graft, types, str(types[0]), n_pairs=50, **CPU)
        return {
            "load_reference": reference,
            "fit": graft,
            "embed": latent,
            "map_query": mapped,
            "query_cells": cells,
            "calibrate": scgraft.calibrate(reference, **CPU),
            "transfer_labels": [
                scgraft.transfer_labels(reference, latent, method=name, query=query, near=near, **CPU)
                for name in ("neighbours", "genes", *["classifier"] * (reference.base.family == "SCANVI"))
            ],
            "verdict": scgraft.verdict(reference, adata, bare, **CPU),
            "check": scgraft.check(reference, adata, batch_key="batch", **CPU),
            "match": scgraft.match([folder], adata, batch_key="batch", **CPU),
            "load_base": scgraft.load_base(graft, **CPU),
            "export_scvi": scgraft.export_scvi(
                reference, graft, folder.parent / "exported", query=query if reference.minified else None, **CPU
            ),
            "normalized_expression": scgraft.normalized_expression(reference, cells, graft, **CPU),
            "posterior_predictive": scgraft.posterior_predictive(reference, cells, graft, **CPU),
            "compare_expression": compared,
        }


def test_the_device_reaches_every_step(called):
    """Every public function that takes a device is called; with settings that name it, too."""
    assert called["map_query"].verdict is not None and called["map_query"].novelty is not None
    assert called["match"][0].labels  # it was tried, not refused
    takes = {name for name in scgraft.__all__ if name[0].islower() and "device" in parameters(getattr(scgraft, name))}
    # Of stored posteriors with their counts, and of proteins: tests/expression calls these.
    assert takes - {"evaluate", "proteins"} == set(called) - {"fit", "map_query"}


def parameters(value: object) -> list[str]:
    return list(inspect.signature(value).parameters) if callable(value) else []


def test_one_that_chooses_is_found(files, monkeypatch):
    """The check above can fail: without a device, one is chosen."""
    nobody_chooses(monkeypatch)
    reference = scgraft.load_reference(files[0], **CPU)
    with pytest.raises(AssertionError, match="chose its device"):
        scgraft.check(reference, files[2], batch_key="batch")


@pytest.mark.parametrize("command", ["map", "check", "match", "explain"])
def test_the_command_line_passes_it_on(files, command, tmp_path, monkeypatch):
    nobody_chooses(monkeypatch)
    monkeypatch.setenv("SCGRAFT_CACHE", str(tmp_path / "cache"))
    folder, query, _ = files
    mapping = [
        "map",
        query,
        "--reference",
        folder,
        "--batch-key",
        "batch",
        "--max-steps",
        1,
        "--out",
        tmp_path / "out",
        "--no-report",
    ]
    given = {
        "map": [mapping, [*mapping[:-1], "--memory", 1000, "--force", "--no-report"]],  # in memory, and in parts
        "check": [["check", query, "--reference", folder, "--batch-key", "batch"]],
        "match": [["match", query, "--references", folder, "--batch-key", "batch"]],
        "explain": [mapping, ["explain", tmp_path / "out", "query0", "--reference", folder]],
    }[command]
    for arguments in given:
        done = CliRunner().invoke(main, [*map(str, arguments), "--device", "cpu"])
        assert done.exit_code in (0, 11), (done.output, done.exception)


def test_a_device_that_is_none_is_refused_by_name():
    for wrong in ("gpu", "cuda:x", "", None, 0, "meta"):
        with pytest.raises(BadOption, match="'auto', 'cpu', 'cuda'"):
            pick_device(wrong)
    assert CliRunner().invoke(main, ["check", __file__, "--reference", ".", "--device", "gpu"]).exit_code == 2


@pytest.mark.parametrize(
    ("there", "name", "kind"),
    [
        (0, "auto", "cpu"),
        (1, "auto", "cuda"),
        (0, "cpu", "cpu"),
        (1, "cpu", "cpu"),
        (1, "cuda", "cuda"),
        (2, "cuda:1", "cuda:1"),
    ],
)
def test_a_device_is_what_is_asked_for(monkeypatch, there, name, kind):
    monkeypatch.setattr(build, "cuda_devices", lambda: there)
    assert str(pick_device(name)) == kind


@pytest.mark.parametrize(
    ("there", "name", "said"), [(0, "cuda", "no CUDA devices"), (1, "cuda:1", "1 CUDA device here")]
)
def test_a_device_that_is_not_there_is_refused_before_anything_is_computed(monkeypatch, there, name, said):
    monkeypatch.setattr(build, "cuda_devices", lambda: there)
    with pytest.raises(BadOption, match=said):
        pick_device(name)
    folder, adata = scgraft.testing.example()
    with pytest.raises(BadOption, match=said):
        scgraft.map_query(
            scgraft.load_reference(folder), adata, batch_key="batch", config=scgraft.FitConfig(device=name)
        )
