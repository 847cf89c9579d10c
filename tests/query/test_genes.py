"""Matching of genes: ids before names, nothing by chance, and every spelling that software leaves behind."""

from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from case_files import case, hub_reference, plain_query
from scgraft.errors import GenesNotFound
from scgraft.query.align import align
from scgraft.query.genes import TOLD, _contradicts, expression_rows, match_genes
from scgraft.query.identifiers import kind_of_names

N = 60
IDS = np.array([f"ENSG{i:011d}" for i in range(N)])
SYMBOLS = np.array([f"HLA-{chr(65 + i % 26)}{i}" for i in range(N)])


def matched(reference, query, **options):
    """Reference gene of each column, -1 where it has none."""
    found = match_genes(reference, query, **options)
    out = np.full(len(next(iter(query.values()))), -1)
    out[found.column] = found.gene
    return out, found


@given(st.integers(0, 2**31))
def test_ids_beat_symbols_wherever_both_sides_have_them(seed):
    order = np.random.default_rng(seed).permutation(N)
    reference = {"var_names": SYMBOLS, "var['ensembl_id']": IDS}
    out, found = matched(reference, {"var_names": SYMBOLS[order], "var['gene_ids']": IDS})
    assert np.array_equal(out, np.arange(N)) and found.matched_by == {"var['gene_ids']": N}


DECOYS = {
    "lengths": lambda rng: rng.permutation(np.arange(500, 500 + N)).astype(str),
    "floats": lambda rng: rng.random(N).round(6).astype(str),
    "places": lambda rng: np.array([f"chr{1 + i % 22}:{p}-{p + 9}" for i, p in enumerate(rng.permutation(N))]),
    "symbols of other genes": lambda rng: rng.permutation(SYMBOLS),
    "ids of other genes as text": lambda rng: np.array([f"L{i}" for i in rng.permutation(N)]),
}


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.sampled_from(sorted(DECOYS)), st.integers(0, N // 2))
def test_a_column_that_is_no_name_matches_nothing(seed, decoy, missing):
    """Also where the reference has the same column, and where some genes wait for a match."""
    rng = np.random.default_rng(seed)
    column, names = DECOYS[decoy](rng), SYMBOLS.copy()
    names[:missing] = [f"novel{i}" for i in range(missing)]
    reference = {"var_names": SYMBOLS, "var['x']": rng.permutation(column)}
    out, found = matched(reference, {"var_names": names, "var['x']": column})
    assert np.array_equal(out, np.where(np.arange(N) < missing, -1, np.arange(N))) and not found.summed


SPELLINGS = {
    "GRCh38_": lambda n: f"GRCh38_{n}",
    "hg19_": lambda n: f"hg19_{n}",
    "GRCh38______": lambda n: f"GRCh38______{n}",
    "blanks": lambda n: f" {n} ",
    "quotes": lambda n: f'"{n}"',
    "joined": lambda n: f"{IDS[list(SYMBOLS).index(n)]}_{n}",
    "joined the other way": lambda n: f"{n}|{IDS[list(SYMBOLS).index(n)]}.3",
    "genome and joined": lambda n: f"GRCh38_{IDS[list(SYMBOLS).index(n)]}_{n}",
    "R": lambda n: n.replace("-", "."),
    "underscores": lambda n: n.replace("-", "_"),
    "lower case": str.lower,
    "R in lower case": lambda n: n.replace("-", ".").lower(),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("reference", [{"var_names": SYMBOLS}, {"var_names": SYMBOLS, "var['ensembl_id']": IDS}])
def test_every_spelling_is_read(spelling, reference):
    out, found = matched(reference, {"var_names": np.array([SPELLINGS[spelling](n) for n in SYMBOLS])})
    assert np.array_equal(out, np.arange(N))
    assert all(way.startswith("var_names ") for way in found.matched_by)  # and it is said


def test_ids_of_the_copy_on_y_are_the_gene_once():
    names = np.array([*IDS[:-1], f"{IDS[-1]}_PAR_Y", f"{IDS[0]}.4_PAR_Y"])
    out, _ = matched({"var_names": IDS}, {"var_names": names})
    assert out.tolist() == [*range(N), -1]


def test_a_barnyard_keeps_the_species_of_the_reference():
    human = np.array([f"GENE{chr(65 + i % 26)}{i}" for i in range(N)])
    mixed = np.array([f"GRCh38_{n}" for n in human] + [f"mm10___{n.capitalize()}" for n in human])
    out, found = matched({"var_names": human}, {"var_names": mixed})
    assert out.tolist() == [*range(N), *[-1] * N] and len(found.other_species) == N
    with pytest.raises(GenesNotFound, match="look like mouse"):
        match_genes({"var_names": human}, {"var_names": mixed[N:]})


def test_names_of_different_ids_are_not_summed():
    names, ids = np.array([*SYMBOLS, "copy"]), np.array([*IDS, "ENSG99999999999"])
    column = np.array([*SYMBOLS, SYMBOLS[0]])
    names[0] = "first"
    out, found = matched({"var_names": SYMBOLS}, {"var_names": names, "var['ids']": ids, "var['symbol']": column})
    assert out[0] == out[-1] == -1 and found.ambiguous == {SYMBOLS[0]: ("first", "copy")}
    one = {"var_names": names, "var['ids']": np.array([*IDS, IDS[0]]), "var['symbol']": column}
    out, found = matched({"var_names": SYMBOLS}, one)
    assert out[0] == out[-1] == 0 and found.summed == {SYMBOLS[0]: ("first", "copy")}


@pytest.mark.parametrize(
    ("kinds", "genes"),
    [
        (["Gene Expression", "Antibody Capture", "Peaks"], [True, False, False]),
        (["gene expression", "CRISPR Guide Capture", "Multiplexing Capture"], [True, False, False]),
        (["protein_coding", "lncRNA", "protein_coding"], [True, True, True]),
        (["RNA", "Protein", "ADT"], [True, False, False]),
        ([None, "Antibody Capture", "x"], [True, False, True]),
    ],
)
def test_rows_that_are_no_genes_are_set_aside(kinds, genes):
    assert expression_rows(pd.DataFrame({"feature_types": kinds})).tolist() == genes
    assert expression_rows(pd.DataFrame({"other": kinds})).all()


def test_what_a_name_is():
    assert kind_of_names(IDS) == "ids" and kind_of_names(SYMBOLS) == "symbols"
    for column in (["1e5", "2.5", "7"], ["chr1:5-9", "chrX:1-2", "chr2:3-4"], ["", "nan", ""], ["a"] * 9):
        assert kind_of_names(np.array(column)) is None


def test_antibodies_peaks_and_numbers_of_real_files():
    reference = hub_reference("lung-lines-scvi")
    gene = reference.schema.genes.tolist().index("KRT18")
    plain = align(reference, plain_query("lung-lines-scvi"), batch_key="batch")
    found = align(reference, anndata.read_h5ad(case("antibody_first")), batch_key="batch")
    assert found.counts[:5, gene].toarray().ravel().tolist() == [15, 25, 8, 24, 85]
    assert found.alignment.set_aside == ("KRT18",) and "set aside: KRT18" in " ".join(found.alignment.messages)
    assert (found.counts != plain.counts).nnz == 0
    numbers = anndata.read_h5ad(case("numbers_as_column"))
    var = reference.var.assign(feature_length=np.arange(500, 500 + len(reference.var)).astype(str))
    for own in (reference, replace(reference, var=var)):
        found = align(own, numbers, batch_key="batch")
        assert (found.counts != plain.counts).nnz == 0 and not any("length" in w for w in found.alignment.matched_by)


def test_a_genome_before_real_names():
    reference = hub_reference("pbmc-10x-scanvi")
    found = align(reference, anndata.read_h5ad(case("genome_prefix")), batch_key="batch")
    expected = align(reference, plain_query("pbmc-10x-scanvi")[found.cells], batch_key="batch")
    assert (found.counts != expected.counts).nnz == 0
    assert found.alignment.matched_by == {"var_names without the genome GRCh38": 2000}


def test_an_id_behind_a_genome_is_still_an_id():
    """So its version may be left out, as for an id that stands alone."""
    names = np.array([f"GRCh38_{gene}.{1 + i % 9}" for i, gene in enumerate(IDS)])
    out, _ = matched({"var_names": IDS}, {"var_names": names})
    assert np.array_equal(out, np.arange(N))


def test_a_column_is_contradicted_from_the_first_gene_on():
    """Exactly as many genes as are asked for, one of them the reference's first, on either side."""
    owner = np.arange(TOLD)
    assert _contradicts(owner, np.roll(owner, 1))
    assert not _contradicts(owner, owner)
    assert not _contradicts(owner[1:], np.roll(owner[1:], 1))  # one gene too few tells nothing
    unknown = np.full(5, -1)
    assert not _contradicts(np.append(owner[1:], unknown), np.append(np.roll(owner[1:], 1), unknown))
