"""What a mapping in parts will take, told before it starts: from rates that are measured on the first cells of the file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from scgraft.calibration.condition import condition_of
from scgraft.calibration.hold_out import choose_folds, hold_out
from scgraft.mapping.freeze import CELLS, SAMPLE, pieces
from scgraft.mapping.resources import NOTHING, Measured, duration, resources, seconds
from scgraft.mapping.stream import read_run
from scgraft.query.cell_file import BLOCK, CellFile
from scgraft.query.kept import BYTES as KEPT_BYTES
from scgraft.reference.cells import missing_columns
from scgraft.values.graft import FitConfig
from scgraft.values.query import AlignOptions, Query
from scgraft.values.reference import Reference

LOOKED_UP = 500  # cells whose neighbours are looked up to see how long that takes; chosen by eye, not measured
# Bytes for each stored count: of the sample while it is put together and fitted, and later of a run of cells while the next one is read.
# Measured on 40,000 and 16,384 cells of 540 counts each (docs/any-size.md).
SAMPLE_BYTES, RUN_BYTES = 18, 32
AGAIN = 0.1  # of the time that reading takes, to read counts that were kept: measured on the same cells
LIBRARIES = 450_000_000  # bytes with all that is imported, where the system does not say what is used


@dataclass(frozen=True)
class Expected:
    """What a mapping takes.

    Parameters
    ----------
    seconds, of_calibration
        On this machine, and those of them for the first calibration.
    memory
        Peak, in bytes.
    disk
        Bytes that counts are kept in until the mapping is complete.
    """

    seconds: float
    of_calibration: float
    memory: float
    disk: float = 0.0

    @property
    def sentence(self) -> str:
        """The same for the user."""
        said = (
            f"Expect about {duration(self.seconds)} on this machine and a peak of {self.memory / 1e9:.1f} GB of memory"
        )
        if self.of_calibration:
            said += f"; {duration(self.of_calibration)} of it for the calibration of the reference, which is made once and kept"
        if self.disk:
            said += f"; until it is complete, counts are kept in {self.disk / 1e9:.1f} GB on the disk"
        return f"{said}."


def expected(
    reference: Reference, file: CellFile, options: AlignOptions, *, calibrated: bool, device: str = "auto"
) -> Expected:
    """What mapping all cells of a file takes, from its first 1,024; `calibrated` with the calibration of labels and novelty."""
    few, n, kept, file = list[Query](), file.n_cells, file.kept, replace(file, kept=None)
    rows = slice(0, min(BLOCK, next(pieces(n)).stop))
    reading = seconds(lambda: few.append(read_run(reference, file, rows, options))) / rows.stop
    query = few[0]
    judged = (
        calibrated and reference.latent is not None and reference.obs is not None and not missing_columns(reference)
    )
    measured = _measured(reference, query, device) if judged else NOTHING
    of_sample: Any = resources(reference, query, min(n, SAMPLE), measured, device=device).values
    looking = 0.0
    if reference.latent is not None:
        index, points = reference.latent.index, reference.latent.mean[:LOOKED_UP]
        index.near(points[:1])  # what is made once for all cells is not counted for each
        looking = seconds(lambda: index.near(points)) / len(points)
    lookups = 2 if judged else 1
    spent = of_sample["seconds"] + n * ((2 if kept is None else 1 + AGAIN) * reading + lookups * looking)
    density = query.counts.nnz / max(len(query.cells), 1)
    held = density * max(SAMPLE_BYTES * min(n, SAMPLE), RUN_BYTES * min(n, CELLS))
    return Expected(
        spent, of_sample["of_calibration"], used_memory() + held, 0.0 if kept is None else KEPT_BYTES * density * n
    )


def _measured(reference: Reference, query: Query, device: str) -> Measured:
    """How long a held-out fold takes, and with it the judgement of a cell, which does the same on other cells."""
    plan, condition = choose_folds(reference, 0), condition_of(reference, query)
    if not plan:
        return NOTHING
    (batches, members), zero = plan[0], FitConfig(epochs=0, device=device)
    sizes = list[int]()

    def fold() -> None:
        sizes.append(len(hold_out(reference, batches, members, seed=0, config=zero, condition=condition).index))

    spent = seconds(fold)
    return Measured(condition, spent, spent / max(sizes[0], 1))


def used_memory() -> float:
    """Bytes of memory that this process has now."""
    try:
        with open("/proc/self/status", encoding="ascii") as lines:
            found = {line.split(":")[0]: line.split()[1:2] for line in lines}
        return 1024.0 * int(found["VmRSS"][0])
    except (OSError, KeyError, ValueError, IndexError):
        return LIBRARIES
