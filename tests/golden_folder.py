"""What the golden tests of families with files of their own share: a folder's reference, its numbers, its cells, an unfitted graft."""

import numpy as np

from scgraft.graft.start import start_rows
from scgraft.mapping.load import load_reference
from scgraft.model.families import family_of
from scgraft.reference.stored_cells import read_cells
from scgraft.values.graft import FitConfig, FitRecord, Graft


def load(folder):
    """The reference of a folder, and the numbers that its own library gave."""
    with np.load(folder / "golden.npz") as file:
        golden = {name: file[name] for name in file.files}
    return load_reference(folder), golden


def cells_in(folder, *stems):
    """Cells of the first file of these names that is there, as MuData or AnnData."""
    return read_cells(
        next(
            folder / f"{stem}.{end}"
            for stem in stems
            for end in ("h5mu", "h5ad")
            if (folder / f"{stem}.{end}").exists()
        )
    )


def untrained(reference, query):
    """A graft of the query's new levels, whose rows are random: no known cell may see them."""
    slots = family_of(reference.base.family).slots(reference.hyper, reference.schema, reference.weights)
    levels = {name: names for name, names in query.alignment.new_levels.items() if names}
    rows = start_rows(reference.weights, slots, {k: len(v) for k, v in levels.items()}, start="random")
    return Graft(reference.base, levels, rows, FitRecord(FitConfig(), False, "by hand"))
