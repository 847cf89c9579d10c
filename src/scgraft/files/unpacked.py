"""Text that may be packed by gzip, read in blocks of whole lines, within what its size explains."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scgraft.errors import CorruptFile

BLOCK = 32 << 20  # characters; what is made of a block is a few times as large
LONGEST = 16 << 20  # characters of a line: barcodes of some 800,000 cells, or a count of each of eight million


def blocks_of(path: Path, block: int = BLOCK) -> Iterator[str]:
    """Whole lines of a file, about `block` characters at a time, without a mark of the byte order and with plain line ends.

    Raises
    ------
    CorruptFile
        A line does not end.
    """
    opened: Any = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8-sig") as file:
        kept = ""
        while data := file.read(block):
            lines, end, begun = data.rpartition("\n")
            if end:
                yield kept + lines + end
                kept = begun
            else:
                kept += data
            if len(kept) > LONGEST:
                raise CorruptFile(
                    f"{path.name} has a line of more than {LONGEST:,} characters. It is damaged, or is no table."
                )
        if kept:
            yield kept
