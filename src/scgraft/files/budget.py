"""What reading a file, or all files of a reference, may cost: steps, bytes and seconds, in proportion to what they hold."""

from __future__ import annotations

import time
from pathlib import Path

from scgraft.errors import CorruptFile

# A model is read into storages and copied into tensors, twice its size; the rest is room for what is no tensor.
GROWTH, ROOM = 4, 128 << 20
# Cells are compressed. Files of the hub, with counts or without, take 0.2 to 6 times their size in memory; deflate's most is 1000.
PACKED_GROWTH = 100
# scvi-tools' largest models (a label of each of some million cells in their attributes) stay below a tenth of it.
MOST_STEPS = 50_000_000
# Of the processor, for files of 100 MB and less in all; the real ones take less than one.
SECONDS, BYTES_PER_SECOND = 10.0, 50 << 20


class Budget:
    """Counts down while files are read, all of a reference out of one, and ends the reading where nothing is left.

    Parameters
    ----------
    size
        Bytes of the files whose content is as large in memory: models, cards, tables of text.
    name
        Of the file, or of the first of them, for the error.
    packed
        Bytes of the files whose content is compressed: cells, arrays.

    Notes
    -----
    Small files can ask for a lot: a million names of one long text, a list that is copied again and again, numbers whose
    hashes collide. None of it is an error in itself, so it is what it costs that is bounded.
    """

    def __init__(self, size: int, name: str, *, packed: int = 0) -> None:
        self.steps = MOST_STEPS
        self._bytes = GROWTH * size + PACKED_GROWTH * packed + ROOM
        self._until = time.thread_time() + SECONDS + (size + packed) / BYTES_PER_SECOND
        self._name = name

    def spend(self, n_bytes: int, name: str = "") -> None:
        """Pay for memory before it is taken; `name` is what takes it, the budget's own where it is not given."""
        self._bytes -= n_bytes
        if self._bytes < 0:
            raise CorruptFile(
                f"{name or self._name} would need far more memory than its size explains (it repeats or expands its own content). "
                "It is damaged, or was made to fill the memory; nothing of it is used."
            )

    def go_on(self, steps: int = 0) -> None:
        """Pay for steps that were taken, and look at the clock."""
        self.steps -= steps
        if self.steps < 0 or time.thread_time() > self._until:
            raise CorruptFile(
                f"{self._name} takes far longer to read than a model of its size. It is damaged, or was made to keep a "
                "program busy; nothing of it is used."
            )


def stored_bytes(path: Path | None) -> int:
    """Bytes of a file, or of all files in a folder; 0 of what is not there."""
    if path is None or not path.exists():
        return 0
    files = path.rglob("*") if path.is_dir() else (path,)
    return sum(file.stat().st_size for file in files if file.is_file())
