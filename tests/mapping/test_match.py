"""Which reference fits: ranks, reasons and forecasts."""

import json

import anndata
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import scgraft
from scgraft import errors
from scgraft.cli.main import main
from scgraft.mapping.match import expected_accuracy, match
from scgraft.testing import tiny_query, write_hub_folder
from scgraft.testing.tiny_model import TinyConfig
from shared_files import shared

RIGHT = TinyConfig(minified=None, encode_covariates=True, n_cells=240)
WRONG = TinyConfig(minified=None, encode_covariates=True, n_cells=240, seed=7)  # the same genes, other types


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    root = tmp_path_factory.mktemp("references")
    write_hub_folder(root / "right", RIGHT)
    write_hub_folder(root / "wrong", WRONG)
    tiny_query(RIGHT, n_cells=200).write_h5ad(root / "query.h5ad")
    return root


def test_the_right_types_come_first_and_what_cannot_be_tried_last_with_its_reason(home, caplog):
    query = anndata.read_h5ad(home / "query.h5ad")
    before = query.copy()
    caplog.set_level("INFO", logger="scgraft")
    found = match(
        [home / "wrong", home / "nowhere", home / "right"],
        query,
        batch_key="batch",
        labels="cell_type",
    )
    assert [entry.source for entry in found] == [str(home / name) for name in ("right", "wrong", "nowhere")]
    right, wrong, nowhere = found
    assert found.best is right and right.fits and "fits best" in found.sentence
    assert not wrong.fits and wrong.unknown > 0.5 > right.unknown
    assert "RepositoryNotFound" in nowhere.sentence and not nowhere.fits
    assert [f"Trying {home / 'wrong'}" in line for line in caplog.messages].count(True) == 1
    assert list(found.to_frame().index) == [entry.source for entry in found]
    assert np.array_equal(query.X.toarray() if hasattr(query.X, "toarray") else query.X, before.X.toarray() if hasattr(before.X, "toarray") else before.X) and query.obs.equals(before.obs)  # fmt: skip


def test_none_fits_is_an_answer(home):
    query = anndata.read_h5ad(home / "query.h5ad")
    found = match([scgraft.load_reference(home / "wrong")], query, batch_key="batch")
    assert found.best is None and "does not fit these cells" in found.sentence
    assert "does not fit" in repr(found) and "does not fit" in found._repr_html_()


def test_on_the_command_line(home):
    run = CliRunner().invoke
    names = [str(home / "wrong"), str(home / "right")]
    asked = ["match", str(home / "query.h5ad"), "--references", *names, "--batch-key", "batch", "--labels", "cell_type"]
    done = run(main, [*asked, "--json"])
    assert done.exit_code == 0 and json.loads(done.output)["best"] == names[1]
    assert run(main, ["match", str(home / "query.h5ad"), "--references", names[0]]).exit_code == 11
    assert run(main, ["match", str(home / "query.h5ad")]).exit_code == 2
    assert "--references" in run(main, ["match", str(home / "query.h5ad"), names[0]]).output


def test_no_reference_is_named(home):
    with pytest.raises(errors.BadOption, match="No reference"):
        match([], anndata.read_h5ad(home / "query.h5ad"))


@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_the_forecast_is_the_held_out_accuracy_where_the_votes_are_as_sure(seed, unknown):
    rng = np.random.default_rng(seed)
    share = rng.uniform(0.3, 1, 400)
    folds = [(share, rng.uniform(size=400) < share) for _ in range(3)]
    expected, error = expected_accuracy(share, folds, unknown)
    # Isotonic regression keeps the mean (Barlow et al. 1972).
    assert abs(expected - np.mean([right.mean() for _, right in folds]) * (1 - unknown)) < 1e-9
    others = [np.mean([folds[j][1].mean() for j in range(3) if j != i]) - folds[i][1].mean() for i in range(3)]
    assert abs(error - np.sqrt(np.mean(np.square(others)))) < 1e-9


def test_no_forecast_without_held_out_cells():
    assert np.isnan(expected_accuracy(np.ones(3), [], 0.0)).all()
    expected, error = expected_accuracy(np.ones(3), [(np.ones(4), np.array([True, True, True, False]))], 0.0)
    assert expected == pytest.approx(0.75) and np.isnan(error)


@pytest.mark.parametrize(
    ("query", "right"),
    [
        ("data/pancreas_baron_human.h5ad", "pancreas-segerstolpe-scvi"),
        ("data/pig_airway_cf.h5ad", None),  # another tissue of another species
    ],
)
def test_tissues_of_real_cells(query, right):
    adata = anndata.read_h5ad(shared(*query.split("/")))
    names = ["lung-lines-scanvi", "pbmc-10x-scanvi", "pancreas-segerstolpe-scvi"]
    folders = [shared("hub", "cells", name) for name in names]
    found = match(folders, adata, batch_key="batch", labels="cell_type")
    assert (found.best and found.best.source.split("/")[-1]) == right, found
    assert sum(entry.fits for entry in found) == (right is not None)
