"""A gene map is a table of two columns: what it may look like, and which line of it is wrong."""

import pytest

from scgraft.errors import QueryError
from scgraft.query.gene_map import read_gene_map


@pytest.mark.parametrize(
    "text",
    [
        "a,A\nb,B\n",
        "a\tA\nb\tB",
        "\ufeffa,A\nb,B\n",  # as Excel saves it
        "a , A\n\n b,B \n\n",
        "a,A\nb,B\na,A\n",  # the same said twice
        'a,A\n"b","B"\n',
    ],
)
def test_commas_or_tabs_with_or_without_blanks(tmp_path, text):
    (tmp_path / "map").write_text(text, encoding="utf-8")
    assert read_gene_map(tmp_path / "map") == {"a": "A", "b": "B"}


def test_a_comma_is_no_separator_where_the_first_line_has_a_tab(tmp_path):
    (tmp_path / "map").write_text("HLA,1\tA\nb\tB,2\n")
    assert read_gene_map(tmp_path / "map") == {"HLA,1": "A", "b": "B,2"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,A\n\nb,B,C\n", "Line 3 of the gene map .* has 3 columns; two are expected"),
        ("a\n", "Line 1 .* has 1 columns"),
        ("a,A\nb,B\na,B\n", "names two genes of the reference for 'a'"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path, text, said):
    (tmp_path / "map").write_text(text)
    with pytest.raises(QueryError, match=said):
        read_gene_map(tmp_path / "map")


def test_what_is_no_text_or_not_there_is_named(tmp_path):
    (tmp_path / "map").write_bytes(b"\xff\xfe\x00a")
    for path in (tmp_path / "map", tmp_path / "none"):
        with pytest.raises(QueryError, match="cannot be read as text"):
            read_gene_map(path)
