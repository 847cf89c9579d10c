"""Which weight the found features have, of genes alone and of genes beside regions; what is too little is refused."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from scgraft.errors import GenesNotFound
from scgraft.query.features import (
    OTHER_PEAKS,
    found_genes,
    gene_finder,
    gene_weight,
    kind_messages,
    match_query,
    reference_names,
    require_features,
)
from scgraft.query.genes import GeneMatch
from scgraft.query.places import Place
from scgraft.testing.tiny_model import TinyConfig
from tiny import reference_of

CONFIG = TinyConfig(n_genes=6)
SYMBOLS = ["CD3D", "CD8A", "MS4A1", "LYZ", "NKG7", "PPBP"]
REGIONS = ["chr1:10-20", "chr1:30-40", "chr2:10-20", "chr2:90-99"]


@pytest.fixture(scope="module")
def genes():
    reference = reference_of(CONFIG)
    return replace(reference, schema=replace(reference.schema, genes=np.array(SYMBOLS)), var=None)


def both(share=(0.5, 0.5)):
    """What of a reference of six genes and four regions these functions ask, with equal weights of all in a kind."""
    names = np.array([*SYMBOLS, *REGIONS])
    base = SimpleNamespace(family="MULTIVI", repo="org/name")
    schema = SimpleNamespace(genes=names, n_regions=4, kinds={"genes": slice(0, 6), "regions": slice(6, 10)}, blocks=())
    return SimpleNamespace(schema=schema, base=base, weights={}, var=None, hyper=None)


def match_of(*found):
    at = np.array(found, np.int64)
    return GeneMatch(np.arange(len(at)), at, {}, (), {})


def test_the_weight_of_a_gene_is_the_norm_of_its_column_in_the_first_layer(genes):
    from scgraft.model.families import family_of

    key = family_of(genes.base.family).encoder_weight
    first = genes.weights[key][:, :6].astype(float)
    expected = np.sqrt((first**2).sum(axis=0))
    assert np.allclose(gene_weight(genes), expected / expected.sum())
    # Columns of batches beside the genes have no part in it.
    wide = replace(
        genes, weights={**genes.weights, key: np.hstack([genes.weights[key][:, :6], np.full((len(first), 3), 9)])}
    )
    assert np.allclose(gene_weight(wide), gene_weight(genes))
    nothing = replace(genes, weights={**genes.weights, key: np.zeros_like(genes.weights[key])})
    assert not gene_weight(nothing).any()


def test_genes_and_regions_have_half_of_the_weight_each():
    assert np.allclose(gene_weight(both()), [1 / 12] * 6 + [1 / 8] * 4)


def test_the_share_is_of_the_weight_and_a_gene_that_is_summed_counts_once(genes):
    weight = gene_weight(genes)
    found = found_genes(genes, match_of(0, 3, 3), np.ones(3, bool), np.array(["a", "b", "c"]))
    assert found.share == pytest.approx(weight[[0, 3]].sum()) and found.lacking == ()
    assert found.shares == {"genes": pytest.approx(weight[[0, 3]].sum())}


def test_of_two_kinds_the_share_is_the_mean_of_those_that_the_query_has():
    names = np.array(["CD3D", "CD8A", "LYZ", "chr1:10-20"])
    found = found_genes(both(), match_of(0, 1, 3, 6), np.ones(4, bool), names)
    assert found.shares == {"genes": pytest.approx(0.5), "regions": pytest.approx(0.25)}
    assert found.share == pytest.approx(0.375) and found.lacking == ()
    alone = found_genes(both(), match_of(0, 1, 3), np.ones(3, bool), names[:3])
    assert alone.lacking == ("regions",) and alone.share == pytest.approx(0.5)
    others = found_genes(both(), match_of(6), np.ones(1, bool), names[3:])
    assert others.lacking == ("genes",) and others.share == pytest.approx(0.25)
    none = found_genes(both(), match_of(), np.zeros(1, bool), np.array(["CD3D"]))
    assert none.lacking == ("genes", "regions") and none.share == 0


def test_kinds_are_told_by_their_names_and_matched_by_their_own_rules():
    var = pd.DataFrame(index=["chr1_30_40", "LYZ", "chr9:1-2", "HLA-X"])
    match, usable = match_query(both(), var, np.asarray(var.index), None)
    assert dict(zip(match.column.tolist(), match.gene.tolist(), strict=True)) == {1: 3, 0: 7}
    assert usable.all()


def test_too_few_genes_are_refused_from_the_share_that_was_asked_for(genes):
    weight = gene_weight(genes)
    names = np.array(["x", "y"])
    found = found_genes(genes, match_of(0, 1), np.ones(2, bool), names)
    require_features(genes, found, names, None)
    require_features(genes, found, names, weight[:2].sum() - 1e-6)
    with pytest.raises(GenesNotFound, match="Only 2 of the reference's 6 genes"):
        require_features(genes, found, names, weight[:2].sum() + 1e-6)
    with pytest.raises(GenesNotFound, match="Only 0"):
        require_features(genes, found_genes(genes, match_of(), np.ones(2, bool), names), names, None)


def test_too_few_regions_are_another_set_of_peaks_unless_the_query_has_none():
    regions = np.array([f"chr7:{i}0-{i}5" for i in range(9)])
    names = np.concatenate([SYMBOLS, regions])
    few = found_genes(both(), match_of(*range(6)), np.ones(15, bool), names)
    with pytest.raises(GenesNotFound, match="another set of peaks"):
        require_features(both(), few, names, None)
    with pytest.raises(GenesNotFound, match="another set of peaks"):
        require_features(both(), replace(few, shares={"genes": 1.0, "regions": OTHER_PEAKS - 0.01}), names, None)
    require_features(
        both(), replace(few, match=match_of(*range(7)), shares={"genes": 1.0, "regions": 0.11}), names, None
    )
    with pytest.raises(GenesNotFound, match="another set of peaks"):
        require_features(
            both(), replace(few, match=match_of(*range(7)), shares={"genes": 1.0, "regions": 0.25}), names, 0.3
        )
    alone = found_genes(both(), match_of(0, 1), np.ones(2, bool), np.array(["CD3D", "CD8A"]))
    require_features(both(), alone, np.array(["CD3D", "CD8A"]), 0.3)  # a kind that is not there is not asked for


def test_the_user_is_told_which_kind_is_not_there():
    (said,) = [line for line in kind_messages(both(), ("regions",)) if "has no" in line]
    assert said.startswith("The query has no regions, which the reference takes beside genes")
    assert not [line for line in kind_messages(both(), ()) if "has no" in line]


def test_columns_of_var_that_are_text_name_genes_and_numbers_do_not(genes):
    var = pd.DataFrame(
        {"symbol": list("abcdef"), "n_cells": range(6), "mean": np.ones(6), "mt": [True] * 6,
         "kind": pd.Categorical(["x"] * 6), "flag": pd.array([True, None] * 3, dtype="boolean")},
        index=SYMBOLS,
    )  # fmt: skip
    found = reference_names(replace(genes, var=var))
    assert list(found) == ["var_names", "var['symbol']", "var['kind']"] and found["var['symbol']"].tolist() == list(
        "abcdef"
    )
    # A table of other genes, or in another order, says nothing of the model's.
    for other in (var.iloc[::-1], var.iloc[:5]):
        assert list(reference_names(replace(genes, var=other))) == ["var_names"]


def test_genes_of_x_and_the_layers_are_looked_up_once_and_those_of_raw_apart(genes):
    find = gene_finder(genes, None)
    x, raw = pd.DataFrame(index=SYMBOLS[:2]), pd.DataFrame(index=SYMBOLS[:5])
    first = find(Place("X", None, x))
    assert find(Place("layers['a']", None, x, "a")) is first and len(first.match.gene) == 2
    assert len(find(Place("raw.X", None, raw)).match.gene) == 5 and find(Place("X", None, x)) is first


def test_what_was_found_is_counted_kind_by_kind():
    """One gene, and the first and the last of the regions: each sentence counts its own."""
    names = np.array(["MS4A1", "chr1:10-20", "chr2:90-99"])
    found = found_genes(both(), match_of(2, 6, 9), np.ones(3, bool), names)
    with pytest.raises(GenesNotFound, match="Only 1 of the reference's 6 genes"):
        require_features(both(), found, names, 0.3)
    with pytest.raises(GenesNotFound, match="Only 2 of the reference's 4 regions are among the query's 2"):
        require_features(both(), replace(found, shares={"genes": 1.0, "regions": 0.5}), names, 0.6)
