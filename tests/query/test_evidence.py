"""What counts cannot be, in numbers that can be worked out by hand."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix, vstack

from scgraft.errors import BatchColumn, CovariateMissing, QueryError
from scgraft.query.evidence import excess_of_ones, too_even
from scgraft.query.genes import _unique
from scgraft.query.identifiers import species_of
from scgraft.query.judge import NAMED, UNNAMED, passed_over
from scgraft.query.levels import batch_codes, code_obs, combine
from scgraft.query.places import joined, joined_var
from scgraft.query.regions import match_regions
from scgraft.query.tables import _sparse_rows
from scgraft.values.reference import Schema


def gene(ratio, n=200, mean=4.0):
    """Values of a gene with a mean, and a variance of so many times it."""
    apart = np.sqrt(ratio * mean)
    return np.where(np.arange(n) % 2 == 0, mean - apart, mean + apart)


def test_genes_that_vary_less_than_a_poisson_variable_by_five_standard_errors():
    """Of 200 cells the ratio of variance and mean has the standard error sqrt(2 / 200) = .1: the limit is a half."""
    made = csr_matrix(np.stack([gene(0.49), gene(0.51), gene(0.1), gene(1.0)], axis=1))
    assert too_even(made) == (2, 0.5)
    # Of 800 cells the limit is three quarters.
    more = csr_matrix(np.stack([gene(0.74, 800), gene(0.76, 800)], axis=1))
    assert too_even(more) == (1, 0.5)


def test_rare_genes_and_few_cells_tell_nothing():
    rare = csr_matrix(np.stack([gene(0.1, mean=0.49), gene(0.1, mean=0.51)], axis=1))
    assert too_even(rare) == (1, 1.0) and too_even(rare[:, :1]) == (0, 0.0)
    assert too_even(csr_matrix(gene(0.1)[:10, None])) == (0, 0.0)


def test_the_excess_of_ones_is_over_what_so_many_zeros_allow():
    values = np.zeros((50, 2))
    values[:30, 0], values[:10, 1], values[10:12, 1] = 1, 1, 3
    absent = np.array([(20 + 1) / 52, (38 + 1) / 52])
    most = (-50 * absent * np.log(absent)).sum()
    assert excess_of_ones(csr_matrix(values)) == pytest.approx((40 - most) / np.sqrt(most))


def test_rows_of_several_matrices_are_joined_and_let_go():
    rng = np.random.default_rng(0)
    parts = [csr_matrix(rng.poisson(1, (n, 5)).astype(np.float32)) for n in (3, 1, 0, 4)]
    expected, given = vstack(parts).toarray(), list(parts)
    made = joined(given)
    assert given == [] and np.array_equal(made.toarray(), expected) and made.indices.dtype == np.int32
    assert joined([parts[0]]) is parts[0]


SCHEMA = Schema(np.array(["g"]), "batch", ("r0", "query"), "type", ("a", "b"), None)
OBS = pd.DataFrame({"batch": ["r0", " new ", "new"], "type": ["b", "x", "a"]}, index=["c0", "c1", "c2"])


def test_batches_are_coded_after_those_of_the_reference():
    codes, levels, said = batch_codes(OBS, SCHEMA, "batch")
    assert codes.tolist() == [0, 2, 2] and levels["batch"] == ("r0", "query", "new")
    assert len(said) == 1 and "Blanks around the names" in said[0] and "' new '" in said[0]
    found = code_obs(OBS, SCHEMA, "batch")
    assert found.cells_per_batch == {"r0": 1, "new": 2} and found.label_codes.tolist() == [1, -1, 0]


def test_without_a_batch_column_the_query_is_one_new_batch_of_a_name_that_is_free():
    codes, levels, (said,) = batch_codes(OBS, SCHEMA, None)
    assert codes.tolist() == [2, 2, 2] and levels["batch"] == ("r0", "query", "query_2")
    assert "one new batch, 'query_2'" in said and "obs['batch']" in said
    assert "obs['batch']" not in batch_codes(OBS[["type"]], SCHEMA, None)[2][0]


@pytest.mark.parametrize(("obs", "has"), [(OBS, "it has batch, type"), (OBS[[]], "it has none")])
def test_a_batch_column_that_is_not_there_is_named_with_those_that_are(obs, has):
    with pytest.raises(BatchColumn, match=rf"no column obs\['sample'\]; {has}"):
        batch_codes(obs, SCHEMA, "sample")


@pytest.mark.parametrize("value", [None, "", "nan", " NA "])
def test_a_cell_without_a_batch_is_named(value):
    obs = OBS.assign(batch=["r0", value, "new"])
    with pytest.raises(BatchColumn, match="missing .* for 1 cells, e.g. c1"):
        batch_codes(obs, SCHEMA, "batch")


def test_numbers_that_are_none_are_named():
    schema = Schema(np.array(["g"]), "batch", ("r0",), continuous=("age",), size_factor_key="size")
    right = OBS.assign(age=[1, 2, 3], size=[0.5, 1, 2])
    found = code_obs(right, schema, "batch")
    assert found.continuous.tolist() == [[1], [2], [3]] and found.size_factor.tolist() == [0.5, 1, 2]
    for change, error, said in (
        ({"age": ["x", "y", "z"]}, QueryError, "must hold numbers"),
        ({"age": [1, np.inf, 2]}, QueryError, "NaN or infinite values, e.g. for c1"),
        ({"size": [1, 0, -1]}, QueryError, "must be positive; 2 are not"),
    ):
        with pytest.raises(error, match=said):
            code_obs(right.assign(**change), schema, "batch")
    for column in ("age", "size"):
        with pytest.raises(CovariateMissing, match=column):
            code_obs(right.drop(columns=column), schema, "batch")


@pytest.mark.parametrize(("n", "human", "mouse"), [(9, None, None), (10, "human", "mouse")])
def test_ten_names_tell_a_species(n, human, mouse):
    assert species_of([f"GENE{i}" for i in range(n)]) == human
    assert species_of([f"Gene{i}" for i in range(n)]) == mouse


def test_seven_in_ten_names_of_one_kind_are_not_enough():
    assert species_of([f"GENE{i}" for i in range(7)] + [f"1abc{i}x" for i in range(9)] + ["abc", "abd", "abe"]) is None
    assert species_of([f"GENE{i}" for i in range(8)] + ["abc", "abd"]) == "human"
    ids = [f"ENSG{i:011d}" for i in range(5)] + [f"ENSMUSG{i:011d}" for i in range(5)]
    assert species_of(ids) is None and species_of([*ids, "ENSMUSG00000000099"]) == "mouse"


@pytest.mark.parametrize("shape", [(9, 2), (2, 9), (0, 3), (4, 4)])
def test_a_dense_table_is_read_in_runs_of_its_rows(shape):
    values = np.random.default_rng(0).poisson(1, shape)
    made = _sparse_rows(values, step=4)
    assert made.shape == shape and np.array_equal(made.toarray(), values)


def test_a_name_that_two_genes_share_answers_for_none():
    assert _unique(["b", "a", "a", "", "c"]) == {"b": 0, "c": 4}


def test_regions_are_counted_by_how_they_were_found():
    """Once each, however many columns there are; the others are missing."""
    own = np.array(["chr1:1-2", "chr1:3-4", "chr2:1-2", "chr2:5-6"])
    made = match_regions(own, np.array(["chr1_3_4", "chr1:1-2", "GENE", "chr1-3-4", "chr2:1-2"]))
    assert made.column.tolist() == [0, 1, 3, 4] and made.gene.tolist() == [1, 0, 1, 2]
    assert made.matched_by == {"var_names": 2, "regions in another spelling": 1}
    assert made.missing == ("chr2:5-6",) and made.summed == {"chr1:3-4": ("chr1_3_4", "chr1-3-4")}


def test_what_var_says_of_raw_s_genes_is_joined_but_for_columns_that_raw_has_or_that_stand_twice():
    raw = pd.DataFrame({"symbol": ["a", "b", "c"]}, index=["g0", "g1", "g2"])
    var = pd.DataFrame(
        [["x", "s", 1, 2], ["y", "t", 3, 4]], columns=["symbol", "name", "twice", "twice"], index=["g2", "g0"]
    )
    made = joined_var(raw, var)
    assert list(made.columns) == ["symbol", "name"] and made["symbol"].tolist() == ["a", "b", "c"]
    assert made["name"].fillna("").tolist() == ["t", "", "s"]
    assert joined_var(raw, pd.concat([var, var])) is raw


def test_it_is_said_why_a_likelier_place_was_passed_over():
    def place(source, weight, kind):
        return SimpleNamespace(place=SimpleNamespace(source=source), weight=weight, kind=kind)

    best, named = place("raw.X", 0.9, UNNAMED), place("X", 0.5, NAMED)
    (said,) = passed_over(best, [named])
    assert said == (
        "The counts of raw.X were taken, not those of X: they have 90% of what the reference looks at, those 50%."
    )
    assert not list(passed_over(best, [place("X", 0.5, UNNAMED)]))
    assert not list(passed_over(best, [place("X", 0.895, NAMED)]))  # as good
    assert not list(passed_over(place("X", 0.9, UNNAMED), [named]))


def test_combinations_of_covariates_are_coded_and_new_ones_come_last():
    """As scArches names them; a combination that the reference knows keeps its code."""
    pair = SimpleNamespace(key="pair", levels=("r_x", "r_y"), of=("batch", "covariate:site"))
    schema = SimpleNamespace(levels={"batch": 0, "covariate:site": 0, "covariate:pair": 0}, categorical=(pair,))
    levels = {"batch": ("r", "new"), "covariate:site": ("x", "y"), "covariate:pair": ("r_x", "r_y")}
    codes = np.array([[0, 1, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0]], np.int32)
    made, found = combine(codes, levels, schema)
    assert found["covariate:pair"] == ("r_x", "r_y", "new_x", "new_y") and levels["covariate:pair"] == ("r_x", "r_y")
    assert made.tolist() == [[0, 1, 1], [1, 1, 3], [1, 0, 2], [0, 0, 0]] and not codes[:, 2].any()
