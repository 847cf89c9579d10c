"""What the page unpacks is what was packed."""

import base64
import zlib

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from scgraft.results.columns import MISSING, column_of, flag_column, level_column, number_column, pack, text_column


def unpacked(heading: dict, packed: str, table: str, name: str) -> list:
    """The obvious version of what the page's script does."""
    everything = zlib.decompress(base64.b64decode(packed))
    column = next(c for c in heading[table] if c["name"] == name)
    part = everything[column["start"] : column["end"]]
    if column["kind"] == "text":
        import json

        return json.loads(part)
    codes = np.frombuffer(part, "u1" if column["kind"] == "flag" else "<u2")
    if column["kind"] == "flag":
        return (codes == 1).tolist()
    if column["kind"] == "level":
        return [column["names"][code] for code in codes]
    step = (column["high"] - column["low"]) / (MISSING - 1)
    return np.where(codes == MISSING, np.nan, column["low"] + codes * step).tolist()


# A lone surrogate has no UTF-8, and a trailing NUL no place in a numpy string; files hold neither.
words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@given(st.lists(st.tuples(words, st.floats(-1e6, 1e6) | st.just(float("nan")), st.booleans()), max_size=30))
def test_columns_survive_the_way_into_the_page(rows):
    text, numbers, flags = ([row[i] for row in rows] for i in range(3))
    columns = [
        text_column("t", text),
        level_column("l", np.array(text, dtype=str)),
        number_column("n", np.array(numbers, dtype=float)),
        flag_column("f", np.array(flags, dtype=bool)),
    ]
    heading, packed = pack({"query": columns, "reference": columns})
    for table in ("query", "reference"):
        assert unpacked(heading, packed, table, "t") == text
        assert unpacked(heading, packed, table, "l") == text
        assert unpacked(heading, packed, table, "f") == flags
        finite = [v for v in numbers if np.isfinite(v)]
        width = (max(finite) - min(finite)) if finite else 0
        back = np.array(unpacked(heading, packed, table, "n"))
        assert np.array_equal(np.isnan(back), np.isnan(numbers))
        assert np.allclose(back, numbers, rtol=1e-9, atol=width / MISSING + 1e-9, equal_nan=True)


def test_levels_keep_the_order_that_is_given():
    column = level_column("l", np.array(["b", "a"]), names=["b", "c", "a"])
    assert column.names == ("b", "c", "a") and list(np.frombuffer(column.data, "<u2")) == [0, 2]


def test_the_kind_fits_the_text():
    def kind(values):
        return column_of("c", pd.Series(values), "", "").kind

    assert kind(["True", "False"]) == "flag"
    assert kind(["0.5", "", "1e-3"]) == "number"
    assert kind(["0", "1", "10"]) == "level"  # numbers of clusters are names
    assert kind(["a", "1"]) == "level" and kind(["", ""]) == "level"
    assert kind([f"cell {i}" for i in range(70_000)]) == "text"
