"""``scgraft explain`` says of a cell of a finished mapping what ``scgraft.explain`` says."""

import json

import pandas as pd
import pytest
from click.testing import CliRunner

import scgraft
from scgraft.cli.main import main
from scgraft.testing import TinyConfig, tiny_query, write_hub_folder

CONFIG = TinyConfig(encode_covariates=True, minified="latent_posterior_parameters")


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explained")
    write_hub_folder(folder / "reference", CONFIG)
    tiny_query(CONFIG, n_cells=40).write_h5ad(folder / "query.h5ad")
    for out, more in (("out", ()), ("bare", ("--without-counts", "--no-calibration", "--no-report"))):
        done = run("-q", "map", folder / "query.h5ad", "--reference", folder / "reference", "--batch-key", "batch",
                   "--out", folder / out, "--max-steps", 5, "--learning-rate", 0.01, *more)  # fmt: skip
        assert done.exit_code == 0, done.output
    return folder


def run(*args):
    return CliRunner().invoke(main, [str(a) for a in args])


def test_the_explanation_is_that_of_the_mapping(mapped):
    done = run("explain", mapped / "out", "query3", "query7", "--json")
    assert done.exit_code == 0, done.output
    table = pd.read_csv(mapped / "out" / "labels.csv", index_col="barcode")
    (key,) = [name.removesuffix("_probability") for name in table if name.endswith("_probability")]
    for said in json.loads(done.output):
        row = table.loc[said["cell"]]
        assert said["label"] == row[f"{key}_call"] and said["probability"] == pytest.approx(
            row[f"{key}_probability"], rel=1e-4
        )
        assert said["novelty"] == pytest.approx(row["novelty"], rel=1e-4)
        assert len(said["neighbours"]) == 5 and said["genes"]


def test_it_is_text_for_a_person(mapped):
    done = run("explain", mapped / "out", "query0", "--neighbours", 2)
    assert done.exit_code == 0 and done.output.startswith("query0: ") and "genes" in done.output


def test_a_mapping_without_counts_asks_for_the_query(mapped):
    done = run("explain", mapped / "bare", "query0")
    assert done.exit_code == 3 and "--query" in done.output
    done = run("explain", mapped / "bare", "query0", "--query", mapped / "query.h5ad")
    assert done.exit_code == 0, done.output


def test_an_unknown_cell_and_a_folder_that_is_no_mapping_are_named(mapped, tmp_path):
    assert run("explain", mapped / "out", "nobody").exit_code == 3
    done = run("explain", tmp_path, "query0")
    assert done.exit_code == 5 and "scgraft map" in done.output


def test_a_level_of_a_covariate_is_renamed(tmp_path):
    config = TinyConfig(encode_covariates=True, covariates={"chemistry": ("v1", "v2")})
    reference = scgraft.load_reference(write_hub_folder(tmp_path / "reference", config))
    adata = tiny_query(config, n_cells=20, covariates={"chemistry": ("v3",)})
    query = scgraft.align(reference, adata, batch_key="batch")
    scgraft.save_graft(scgraft.fit(reference, query, scgraft.FitConfig(epochs=0)), tmp_path / "graft")
    done = run("merge", tmp_path / "graft", "--rename", "1:v3=v3 of lab B", "--covariate", "chemistry", "--out",
               tmp_path / "merged")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert scgraft.load_graft(tmp_path / "merged").levels["covariate:chemistry"] == ("v3 of lab B",)
