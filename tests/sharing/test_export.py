"""What scvi-tools itself makes of an exported folder, and what this package reads back from it.

Set SCGRAFT_ORACLE to a Python interpreter with scvi-tools 1.4 to run the first half.
"""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given, settings

from scgraft import errors
from scgraft.cards.lint import lint_card
from scgraft.cards.reading import parse_card
from scgraft.cli.main import main
from scgraft.expression.cells import query_cells, reference_cells
from scgraft.expression.decode import normalized_expression
from scgraft.graft.embed import embed
from scgraft.graft.fit import fit
from scgraft.graft.store import save_graft
from scgraft.labels.votes import classify
from scgraft.mapping.load import load_reference
from scgraft.model.families import family_of
from scgraft.model.slots import split
from scgraft.query.align import align
from scgraft.sharing.export import export_scvi, widened_weights
from scgraft.testing import configs, tiny_query, write_hub_folder
from scgraft.testing.tiny_model import TinyConfig
from scgraft.values.graft import FitConfig
from scgraft.values.names import BATCH
from shared_files import SHARED
from tiny import pair

# Columns that no other level has, without a fit: what is tested is where they go.
QUICK = FitConfig(epochs=0, start="random", device="cpu", force=True)
MINI = "latent_posterior_parameters"
COVARIATES = {"donor": ("d0", "d1"), "chemistry": ("v2", "v3")}
CASES = {
    "scvi": TinyConfig(minified=MINI),
    "covariates": TinyConfig(minified=MINI, encode_covariates=True, covariates=COVARIATES, continuous=("age",), n_layers=2),
    "one batch": TinyConfig(minified=MINI, encode_covariates=True, batches=("b0",)),
    "no batch key": TinyConfig(minified=MINI, encode_covariates=True, batches=None),
    "whole numbers": TinyConfig(minified=MINI, encode_covariates=True, batches=(0, 1, 5)),
    "embedding": TinyConfig(minified=MINI, encode_covariates=True, batch_representation="embedding"),
    "gene-batch": TinyConfig(minified=MINI, dispersion="gene-batch", use_layer_norm="both", use_batch_norm="none"),
    "gene-cell": TinyConfig(minified=MINI, dispersion="gene-cell", gene_likelihood="nb"),
    "gene-label": TinyConfig(minified=MINI, dispersion="gene-label"),
    "size factor": TinyConfig(minified=MINI, size_factor=True, layer="counts"),
    "logistic normal": TinyConfig(minified=MINI, latent_distribution="ln"),
    "normal": TinyConfig(minified=MINI, gene_likelihood="normal", deeply_inject_covariates=False, n_layers=2),
    "poisson": TinyConfig(minified=None, gene_likelihood="poisson", layer="counts", labels=()),
    "library": TinyConfig(minified=None, encode_covariates=True, use_observed_lib_size=False),
    "scanvi": TinyConfig(model="SCANVI", minified=MINI, encode_covariates=True),
    "scanvi linear": TinyConfig(model="SCANVI", minified=MINI, linear_classifier=True, all_labeled=True),
    "scanvi 1.2.1": TinyConfig(model="SCANVI", minified=MINI, key_style="1.2.1", scvi_version="1.2.1"),
    "scvi 1.0.4": TinyConfig(minified=MINI, key_style="old", scvi_version="1.0.4", encode_covariates=True),
}  # fmt: skip
SAVED = (
    "golden_old/scvi_default_minified__1.0.4", "golden_old/scanvi_default__1.0.4", "golden_old/scanvi_default__1.1.6",
    "golden/scanvi_minified__1.2.1", "golden/scvi_covs__1.2.1", "golden/seed0__1.2.1", "golden/seed1__1.2.1",
    "hub/cells/lung-lines-scanvi",
)  # fmt: skip


def counts_for_scvi(adata, reference, levels_key):
    """A query as scvi-tools wants it: every registered column under its registered name."""
    schema, adata = reference.schema, adata.copy()
    names = adata.obs["batch"].astype(str)
    whole = all(str(b).isdigit() for b in (*schema.batches, *names)) and schema.batch_key is not None
    adata.obs[levels_key] = names.astype(int) if whole else names
    if schema.labels_key is not None:
        adata.obs[schema.labels_key] = schema.labels[0] if schema.unlabeled is None else schema.unlabeled
    if schema.layer is not None:
        adata.layers[schema.layer] = adata.X
    return adata


def write_case(folder: Path, config: TinyConfig):
    reference = load_reference(write_hub_folder(folder / "reference", config))
    batches = ("7", "8") if config.batches == (0, 1, 5) else ("new 1", "new 2")
    covariates = {"donor": ("d0", "d9")} if config.covariates else None
    adata = tiny_query(config, n_cells=24, batches=batches, covariates=covariates)
    query = align(reference, adata, batch_key="batch", drop_empty=True)
    graft = fit(reference, query, QUICK)
    labels = None if config.dispersion != "gene-label" else adata.obs["cell_type"].astype(str).tolist()
    with_cells = not reference.hyper.models_library
    export_scvi(reference, graft, folder / "export", query=query if with_cells else None, query_labels=labels)
    key = reference.schema.batch_key or "scgraft_batch"
    counts_for_scvi(adata, reference, key).write_h5ad(folder / "counts.h5ad")
    return reference, graft, query


@pytest.fixture(scope="module")
def oracle(tmp_path_factory):
    """Every case exported and opened by scvi-tools, in one process."""
    interpreter = os.environ.get("SCGRAFT_ORACLE")
    if not interpreter:
        pytest.skip("needs SCGRAFT_ORACLE, the path of a Python interpreter with scvi-tools 1.4")
    root = tmp_path_factory.mktemp("export")
    made = {name: (root / name, write_case(root / name, config)) for name, config in CASES.items()}
    for name in SAVED:
        if (SHARED / name).exists():
            reference = load_reference(SHARED / name)
            folder = root / name.replace("/", " ")
            export_scvi(reference, None, folder / "export")
            made[name] = (folder, (reference, None, None))
    script = Path(__file__).parents[1] / "scvi_oracle.py"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [interpreter, str(script), *(str(folder) for folder, _ in made.values())],
        env=environment, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return made


def answer(oracle, name):
    folder, case = oracle[name]
    if not (folder / "oracle.npz").exists():
        pytest.fail((folder / "oracle.txt").read_text())
    with np.load(folder / "oracle.npz") as file:
        return {key: file[key] for key in file.files}, case


def close(found, expected, tolerance=1e-5):
    expected = np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    assert np.allclose(found, expected, rtol=tolerance, atol=tolerance * max(expected.std(), np.abs(expected).mean()))


@pytest.mark.parametrize("name", CASES)
def test_scvi_tools_agrees_on_an_extended_model(oracle, name):
    found, (reference, graft, query) = answer(oracle, name)
    own = embed(reference, query, graft, device="cpu")
    log_normal = reference.hyper.latent_distribution == "ln"
    if not log_normal:  # scvi-tools gives a Monte Carlo mean there
        close(own.mean, found["counts_latent"])
    close(own.variance, found["counts_variance"])
    if reference.base.family == "SCANVI":
        close(classify(reference, own, device="cpu"), found["counts_predict"])
    if reference.hyper.models_library:
        assert "latent" not in found
        return
    parts = [(reference_cells(reference), None), (query_cells(reference, query, graft, device="cpu"), graft)]
    assert found["minified"] == MINI
    close(np.concatenate([p.latent.mean for p, _ in parts]), found["latent"], 1e-6)
    close(np.concatenate([p.latent.variance for p, _ in parts]), found["variance"], 1e-6)
    scale = [normalized_expression(reference, p, g, device="cpu") for p, g in parts]
    close(np.concatenate(scale), found["scale"])
    last = (*reference.schema.batches, *graft.batches)[-1]
    moved = [normalized_expression(reference, p, graft, batch=last, device="cpu") for p, _ in parts]
    close(np.concatenate(moved), found["scale_last_batch"])
    if reference.base.family == "SCANVI":
        latents = [classify(reference, p.latent, device="cpu") for p, _ in parts]
        close(np.concatenate(latents), found["predict"])


@pytest.mark.parametrize("name", CASES)
def test_a_hub_model_opens(oracle, name):
    found, (reference, _, query) = answer(oracle, name)
    if "hub_cells" not in found:
        if reference.hyper.models_library:
            pytest.skip("this model's cells cannot be minified, so there are none to open")
        pytest.skip("the interpreter of SCGRAFT_ORACLE lacks what scvi.hub needs: huggingface_hub and requests")
    assert found["hub_cells"] == len(reference.latent.cells) + len(query.cells)


@pytest.mark.parametrize("name", SAVED)
def test_a_model_of_any_version_comes_out_loadable(oracle, name):
    if name not in oracle:
        pytest.skip(f"needs shared/{name}, which is not beside this checkout")
    found, (reference, _, _) = answer(oracle, name)
    close(reference.latent.mean, found["latent"], 1e-6)
    cells = reference_cells(reference)
    close(normalized_expression(reference, cells, device="cpu"), found["scale"])
    if reference.base.family == "SCANVI":
        close(classify(reference, cells.latent, device="cpu"), found["predict"])


@settings(max_examples=15)
@given(config=configs())
def test_an_exported_folder_reads_back_as_the_widened_reference(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "out"
    reference, query = pair(config)
    graft = fit(reference, query, QUICK)
    export_scvi(reference, graft, folder)
    again = load_reference(folder)
    slots = family_of(reference.base.family).slots(reference.hyper, reference.schema, reference.weights)
    base, rows = split(again.weights, slots, {name: len(new) for name, new in graft.levels.items()})
    assert all(np.array_equal(base[key], reference.weights[key]) for key in reference.weights)
    assert all(np.array_equal(rows[name], graft.rows[name]) for name in graft.rows)
    assert again.schema.levels == {
        name: (*known, *graft.levels.get(name, ())) for name, known in reference.schema.levels.items()
    }
    assert again.hyper == reference.hyper and again.schema.labels == reference.schema.labels
    minified = family_of(reference.base.family).scvi_options.minified is not None
    assert (again.latent is not None) == (minified and not reference.hyper.models_library)
    if again.latent is not None:
        assert np.array_equal(again.latent.mean, reference.latent.mean)
        assert np.array_equal(again.library, reference.library)
    own, other = embed(reference, query, graft, device="cpu"), embed(again, query, device="cpu")
    assert np.allclose(own.mean, other.mean, atol=1e-5)


CONFIG = TinyConfig(minified=MINI, encode_covariates=True)


def exported(tmp_path, config=CONFIG, **options):
    reference = load_reference(write_hub_folder(tmp_path / "reference", config))
    query = align(reference, tiny_query(config, batches=("new",)), batch_key="batch")
    graft = fit(reference, query, QUICK)
    return reference, query, graft, export_scvi(reference, graft, tmp_path / "out", **options)


def test_only_what_was_asked_for_is_written_and_all_or_nothing(tmp_path):
    reference, query, graft, folder = exported(tmp_path, cells=False)
    assert {p.name for p in folder.iterdir()} == {"model.pt", "README.md", "_scvi_required_metadata.json"}
    with pytest.raises(errors.OutputExists):
        export_scvi(reference, graft, folder)
    export_scvi(reference, graft, folder, query=query, force=True)
    adata = anndata.read_h5ad(folder / "adata.h5ad")
    assert adata.X.nnz == 0 and adata.obs["scgraft_source"].value_counts().to_dict() == {"reference": 60, "query": 40}
    assert set(adata.obs.loc[adata.obs["scgraft_source"] == "query", "cell_type"]) == {"unlabeled"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "reference"]


def test_a_model_without_graft_keeps_its_registry(tmp_path):
    reference = load_reference(write_hub_folder(tmp_path / "reference", replace(CONFIG, batches=(0, 1, 5))))
    again = load_reference(export_scvi(reference, None, tmp_path / "out"))
    mapping = again.registry["field_registries"]["batch"]["state_registry"]["categorical_mapping"]
    assert mapping.tolist() == [0, 1, 5] and again.schema.levels == reference.schema.levels
    assert widened_weights(reference, None).keys() == again.weights.keys()
    assert again.obs["batch"].astype(int).tolist() == reference.obs["batch"].tolist()
    assert np.array_equal(again.attributes["train_indices_"], reference.attributes["train_indices_"])
    card = parse_card(again.card)
    assert str(tmp_path) not in again.card and "in the folder reference" in card.description
    assert reference.base.sha256 in card.description and card.header["license"] == "cc0-1.0"
    assert not [finding for finding in lint_card(again) if finding.severity == "error"]


def test_what_cannot_be_exported(tmp_path):
    by_label = replace(CONFIG, dispersion="gene-label")
    reference, query, graft, _ = exported(tmp_path, by_label)
    with pytest.raises(errors.QueryError, match="Give query_labels"):
        export_scvi(reference, graft, tmp_path / "a", query=query)
    with pytest.raises(errors.QueryError, match="'alien', which are not classes"):
        export_scvi(reference, graft, tmp_path / "a", query=query, query_labels=["alien"] * 40)
    with pytest.raises(errors.UnsupportedModel, match="cells is off"):
        export_scvi(reference, graft, tmp_path / "a", query=query, cells=False)
    with pytest.raises(errors.BaseMismatch):
        export_scvi(reference, replace(graft, base=replace(graft.base, sha256="0")), tmp_path / "a")
    other = replace(reference, base=replace(reference.base, family="CondSCVI"))
    with pytest.raises(errors.UnsupportedModel, match="CondSCVI"):
        export_scvi(other, None, tmp_path / "a")
    lost = replace(reference, obs=pd.DataFrame(index=reference.obs.index))
    with pytest.raises(errors.CorruptFile, match="no column obs"):
        export_scvi(lost, graft, tmp_path / "a")
    assert not (tmp_path / "a").exists() and BATCH in graft.levels


def test_command_export(tmp_path):
    reference, _, graft, _ = exported(tmp_path)
    save_graft(graft, tmp_path / "graft")
    tiny_query(CONFIG, batches=("new",)).write_h5ad(tmp_path / "query.h5ad")

    def run(*args):
        return CliRunner().invoke(main, ["export", *map(str, args), "--reference", str(tmp_path / "reference")])

    done = run(tmp_path / "graft", "--out", tmp_path / "a", "--query", tmp_path / "query.h5ad", "--batch-key", "batch")
    assert done.exit_code == 0, done.output
    assert load_reference(tmp_path / "a").schema.batches == ("b0", "b1", "new")
    assert len(load_reference(tmp_path / "a").latent.cells) == 100
    assert run("--out", tmp_path / "a").exit_code == 7
    assert run("--out", tmp_path / "a", "--force", "--no-cells").exit_code == 0
    assert not (tmp_path / "a/adata.h5ad").exists()
    assert load_reference(tmp_path / "a").schema.levels == reference.schema.levels
