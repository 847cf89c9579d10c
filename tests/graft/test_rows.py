"""A graft's columns are checked against the reference before they are used, whoever made the file."""

from dataclasses import replace

import numpy as np
import pytest

from scgraft.errors import CorruptGraft, GraftError
from scgraft.graft.embed import embed
from scgraft.graft.fit import fit
from scgraft.graft.levels import check_graft
from scgraft.graft.store import load_graft, save_graft
from scgraft.testing.tiny_model import TinyConfig
from scgraft.values.graft import FitConfig
from tiny import pair


@pytest.fixture(scope="module")
def fitted():
    reference, query = pair(TinyConfig(encode_covariates=True, covariates={"donor": ("d0", "d1")}))
    return reference, query, fit(reference, query, FitConfig(epochs=0))


def changed(graft, change):
    rows = {name: row.copy() for name, row in graft.rows.items()}
    name = next(name for name in rows if rows[name].size)
    new = change(rows[name])
    if new is None:
        del rows[name]
    else:
        rows[name] = new
    return replace(graft, rows=rows)


def at(value):
    def change(row):
        row.flat[0] = value
        return row

    return change


DAMAGE = {
    "missing": lambda row: None,
    "NaN": at(np.nan),
    "infinite": at(np.inf),
    "minus infinite": at(-np.inf),
    "float64": lambda row: row.astype(np.float64),
    "whole numbers": lambda row: row.astype(np.int32),
    "half": lambda row: row.astype(np.float16),
    "one level more": lambda row: np.repeat(row, 2, axis=-1),
    "one level less": lambda row: row[..., :1],
    "no level": lambda row: row[..., :0],
    "other units": lambda row: row[:-1],
    "turned": lambda row: np.ascontiguousarray(row.T) if row.shape[0] != row.shape[-1] else row[:0],
    "flat": lambda row: row.ravel(),
    "one number": lambda row: row.ravel()[0],
}


def test_a_fitted_graft_fits(fitted):
    reference, _, graft = fitted
    check_graft(reference, graft)


@pytest.mark.parametrize("name", DAMAGE)
def test_columns_that_do_not_fit_are_refused_before_use(fitted, name):
    reference, query, graft = fitted
    with pytest.raises(CorruptGraft, match="columns"):
        embed(reference, query, changed(graft, DAMAGE[name]))


def test_columns_of_nothing_are_refused(fitted):
    reference, _, graft = fitted
    with pytest.raises(CorruptGraft, match="does not have"):
        check_graft(reference, replace(graft, rows=dict(graft.rows) | {"strange[batch]": np.zeros((2, 2), np.float32)}))
    with pytest.raises(CorruptGraft, match="does not have"):
        check_graft(reference, replace(graft, levels=dict(graft.levels) | {"covariate:strange": ("x",)}))


@pytest.mark.parametrize("name", ["NaN", "infinite", "float64", "half", "whole numbers"])
def test_a_file_with_such_columns_does_not_load(fitted, name, tmp_path):
    with pytest.raises(CorruptGraft, match="finite float32"):
        load_graft(save_graft(changed(fitted[2], DAMAGE[name]), tmp_path / "g"))


@pytest.mark.parametrize("names", [("a", "a"), ("\ud800",)])
def test_names_that_no_file_can_hold_do_not_load(fitted, names, tmp_path):
    with pytest.raises(GraftError, match="twice|is not text"):
        load_graft(save_graft(replace(fitted[2], levels={"batch": names}), tmp_path / "g"))
