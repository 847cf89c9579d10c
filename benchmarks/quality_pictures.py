"""Latents before and after a fit, on a UMAP of the reference's cells, for three splits of the quality benchmark.

    python benchmarks/quality_pictures.py --cache /somewhere --out docs/objective.png

The cache is that of ``quality.py``. The UMAP is fitted to the reference alone; query cells are placed into it.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from quality import query_folder, reference_folder
from quality_splits import SPLITS

SHOWN = ("pancreas: 2 donors on 4", "pbmc: far technology", "pbmc: B only")
METHODS = ("mean columns", "scvi-tools, 100 epochs", "scgraft")


def latents(cache: Path, name: str, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Latents of the reference and, by method, of the query; types of both."""
    import anndata

    import scgraft

    split = next(s for s in SPLITS if s.name == name)
    folder = query_folder(cache, split, seed)
    reference = scgraft.load_reference(reference_folder(cache, split, seed) / "SCVI" / "hub")
    adata = anndata.read_h5ad(folder / "query.h5ad")
    query = scgraft.align(reference, adata, batch_key="batch")
    found = {METHODS[1]: np.load(folder / "SCVI" / "scvi-100.npz")["latent"]}
    for method, epochs in ((METHODS[0], 0), (METHODS[2], None)):
        graft = scgraft.fit(reference, query, scgraft.FitConfig(epochs=epochs, labels="cell_type", device="cpu"))
        found[method] = scgraft.embed(reference, query, graft).mean
    types = reference.obs["cell_type"].to_numpy().astype(str), adata.obs["cell_type"].to_numpy().astype(str)
    return reference.latent.mean, found, *types


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    import matplotlib

    matplotlib.use("agg")
    import umap
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(SHOWN), len(METHODS), figsize=(9, 8.6), layout="constrained")
    for i, (row, name) in enumerate(zip(axes, SHOWN, strict=True)):
        reference, found, reference_types, query_types = latents(options.cache, name, options.seed)
        model = umap.UMAP(random_state=0, n_neighbors=15).fit(reference)
        background = model.embedding_
        names = np.unique(np.concatenate([reference_types, query_types]))
        colours = dict(zip(names, pyplot.get_cmap("tab20")(np.linspace(0, 1, len(names))), strict=True))
        for axis, method in zip(row, METHODS, strict=True):
            axis.scatter(*background.T, s=14, c=[colours[t] for t in reference_types], alpha=0.25, linewidths=0)
            placed = model.transform(found[method])
            axis.scatter(*placed.T, s=7, c=[colours[t] for t in query_types], edgecolors="black", linewidths=0.3)
            axis.set(xticks=[], yticks=[], title="" if i else method)
            axis.spines[:].set_visible(False)
        row[0].set_ylabel(name)
        handles = [pyplot.Line2D([], [], marker="o", ls="", ms=4, color=colours[t], label=t) for t in names]
        row[-1].legend(handles=handles, fontsize=6, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.suptitle("Pale: reference cells; outlined: query cells. Colour: true type.", fontsize=9)
    figure.savefig(options.out, dpi=90)


if __name__ == "__main__":
    main()
