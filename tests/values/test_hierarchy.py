"""A label that is called "unknown", and no label at all."""

import numpy as np

from scgraft.values.colours import COLOURS, SILENT, palette, shapes
from scgraft.values.hierarchy import NO_LABEL, UNKNOWN, name_sets, no_label

SETS = np.array([[True, False], [False, True], [False, False], [True, True]])
MATRIX = np.array([[0.8, 0.2], [0.1, 0.9], [0.5, 0.5], [0.4, 0.6]])


def test_a_class_that_is_called_unknown_is_told_from_no_class():
    assert name_sets(SETS, MATRIX, ("B cell", "T cell"), {}).tolist() == [
        "B cell",
        "T cell",
        UNKNOWN,
        "T cell | B cell",
    ]
    found = name_sets(SETS, MATRIX, ("B cell", UNKNOWN), {}).tolist()
    assert found == ["B cell", UNKNOWN, NO_LABEL, "unknown | B cell"] and NO_LABEL != UNKNOWN
    assert no_label(("unknown ", "Unknown")) == UNKNOWN


def test_a_class_that_is_called_unknown_has_a_colour_of_its_own():
    both = palette(["a", UNKNOWN, "b", NO_LABEL])
    assert both[NO_LABEL] == SILENT and both[UNKNOWN] in COLOURS and len(set(both.values())) == 4
    assert palette(["a", "b"])[UNKNOWN] == SILENT
    assert set(shapes(["a"])) == {"a", UNKNOWN}
