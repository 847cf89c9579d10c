"""The format of summary.json: its version, and what older versions become when they are read.

Format 1 (scgraft 0.1) had no version in it, and called the numbers on a mapping "quality". Since format 2 they are "summary", as
:attr:`scgraft.MappedQuery.summary` is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scgraft.errors import CorruptFile, FormatTooNew
from scgraft.files import schema
from scgraft.files.text import visible

SUMMARY = "summary.json"
SUMMARY_FORMAT = 2  # a convention: raised whenever what older versions wrote has to be changed to be read


def parse_summary(path: Path, check: schema.Check = schema.anything) -> dict[str, Any]:
    """A summary of any format as one of the present format, which `check` lets through.

    Raises
    ------
    CorruptFile
        It is no summary, or not what `check` expects.
    FormatTooNew
        A newer version of scgraft wrote it.
    """
    try:
        document = _upgraded(schema.parse(path.read_bytes(), schema.record({}, more=True), SUMMARY), path)
        check(document, SUMMARY)
    except (OSError, schema.Unfit) as error:
        raise CorruptFile(
            f"{path.parent} is not the output of `scgraft map`, or is damaged ({visible(str(error))[:300]})."
        ) from error
    return document


def _upgraded(document: dict[str, Any], path: Path) -> dict[str, Any]:
    version = document.get("format", 1)
    schema.whole(version, f"{SUMMARY}.format")
    if version > SUMMARY_FORMAT:
        raise FormatTooNew(
            f"{path} has format {version}, written by scgraft {visible(str(document.get('scgraft')))[:40]}; this version reads "
            f"formats up to {SUMMARY_FORMAT}. Update scgraft."
        )
    if version < 2 and "quality" in document and "summary" not in document:
        document["summary"] = document.pop("quality")
    if isinstance(document.get("alignment"), dict):  # what was written before a query could lack regions
        document["alignment"] = {"lacking": []} | document["alignment"]
    return document | {"format": SUMMARY_FORMAT}
