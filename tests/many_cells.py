"""A page of very many cells: random scores, thirty types in as many clouds, eight genes, barcodes of sixteen letters."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd

from scgraft.results.page import ReportData


def many_cells(data: ReportData, n: int) -> ReportData:
    """What a page shows, with `n` query cells and 50,000 of the reference in place of its own."""
    rng, types, shown = np.random.default_rng(0), [f"type {i}" for i in range(30)], 50_000
    cells = data.cells.iloc[rng.integers(len(data.cells), size=n)].copy()
    letters = rng.choice(np.array(list("ACGT")), (n, 16))
    cells.index = pd.Index([f"{''.join(row)}-1" for row in letters], name="barcode")
    of_query, of_reference = rng.integers(30, size=n), rng.integers(30, size=shown)
    cells["bulk_labels"] = np.array(types)[of_query]
    for name in ("bulk_labels_probability", "novelty", "map_distance"):
        cells[name] = rng.random(n).round(6).astype(str)
    middle = 6 * rng.standard_normal((30, 2))
    points = {
        "reference": middle[of_reference] + rng.standard_normal((shown, 2)), "query": middle[of_query] + rng.standard_normal((n, 2)),
        "tray": np.zeros(n, bool), "batch": rng.choice(["a", "b"], n), "source": np.array("a map"),
        "types": np.array(json.dumps({"bulk_labels": types})), "types_0": of_reference,
        "genes": np.array(json.dumps([f"gene {i}" for i in range(8)])),
    }  # fmt: skip
    for i in range(8):
        points[f"gene_{i}_query"] = rng.gamma(1, 1, n) * (rng.random(n) < 0.5)
        points[f"gene_{i}_reference"] = rng.gamma(2, 1, shown)
    return replace(data, cells=cells, points=points)
