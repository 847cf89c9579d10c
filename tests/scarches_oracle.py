"""Runs with an interpreter that has scArches: opens exported scPoli folders and writes what scArches makes of them.

``python scarches_oracle.py FOLDER...``: each folder holds ``export/`` and ``counts.h5ad``; ``oracle.npz`` is written.
"""

import sys
import traceback
import warnings
from pathlib import Path

import anndata
import numpy as np

warnings.filterwarnings("ignore")


def main(folder: Path) -> None:
    from scarches.models.scpoli import scPoli

    cells = anndata.read_h5ad(folder / "counts.h5ad")
    cells.X = np.asarray(cells.X.toarray() if hasattr(cells.X, "toarray") else cells.X, dtype=np.float32)
    for key in cells.obs:
        cells.obs[key] = cells.obs[key].astype(str).astype(object)
    model = scPoli.load(str(folder / "export"), cells)
    if model.cell_type_keys_:
        model.classify(cells)
    scPoli.load_query_data(cells, str(folder / "export"), labeled_indices=[])  # and further surgery on it
    np.savez(folder / "oracle.npz", counts_latent=model.get_latent(cells, mean=True))


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        try:
            main(Path(argument))
        except Exception:  # noqa: BLE001  the test shows the reason of each folder on its own
            Path(argument, "oracle.txt").write_text(traceback.format_exc())
