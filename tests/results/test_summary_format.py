"""A summary of any format is read as one of the present format; one of the future is named."""

import json

import pytest

from scgraft.errors import CorruptFile, FormatTooNew
from scgraft.results.summary_format import SUMMARY_FORMAT, parse_summary

NEW = {"scgraft": "0.2", "format": SUMMARY_FORMAT, "summary": {"cells": 3}, "verdict": {"light": "green"}}


def written(path, document):
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def test_the_first_format_becomes_the_present_one(tmp_path):
    old = {"scgraft": "0.1", "quality": {"cells": 3}, "verdict": {"light": "green"}}
    assert parse_summary(written(tmp_path / "summary.json", old)) == NEW | {"scgraft": "0.1"}
    assert parse_summary(written(tmp_path / "summary.json", NEW)) == NEW


def test_a_newer_format_is_named(tmp_path):
    with pytest.raises(FormatTooNew, match=r"format 99, written by scgraft 7.0; this version reads formats up to 2"):
        parse_summary(written(tmp_path / "summary.json", NEW | {"format": 99, "scgraft": "7.0"}))


@pytest.mark.parametrize("document", ["", "[]", "{", NEW | {"format": "2"}, NEW | {"format": True}])
def test_what_is_no_summary_is_named(tmp_path, document):
    with pytest.raises(CorruptFile, match="summary.json"):
        parse_summary(written(tmp_path / "summary.json", document))
