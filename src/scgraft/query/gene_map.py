"""A table of two columns that says which gene of the reference each gene of the query is."""

from __future__ import annotations

import csv
from pathlib import Path

from scgraft.errors import QueryError


def read_gene_map(path: Path) -> dict[str, str]:
    """Read gene of the query -> gene of the reference, from text with commas or tabs and no header.

    Raises
    ------
    QueryError
        A line has not two columns, a gene of the query occurs twice, or the file is not text.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise QueryError(f"The gene map {path} cannot be read as text: {error}") from error
    found: dict[str, str] = {}
    delimiter = "\t" if any("\t" in line for line in lines[:1]) else ","
    for number, row in enumerate(csv.reader(lines, delimiter=delimiter), 1):
        if not row:
            continue
        if len(row) != 2:
            raise QueryError(
                f"Line {number} of the gene map {path} has {len(row)} columns; two are expected: query gene, reference gene."
            )
        mine, theirs = (cell.strip() for cell in row)
        if found.get(mine, theirs) != theirs:
            raise QueryError(f"The gene map {path} names two genes of the reference for {mine!r}.")
        found[mine] = theirs
    return found
