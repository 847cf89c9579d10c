"""The embedded reference and query: the main job without a network."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np

from scgraft.files.h5ad import read_h5ad
from scgraft.labels.explain import explain
from scgraft.mapping.load import load_reference
from scgraft.mapping.map import map_query
from scgraft.results.folder import check_free, write
from scgraft.values.mapping import MappedQuery

LABELS = "bulk_labels"


def run_demo(out: Path, *, force: bool = False, echo: Callable[[str], object] = print) -> MappedQuery:
    """Map the embedded query onto the embedded reference and write the results.

    The cells are scanpy's packaged ``pbmc68k_reduced`` (Zheng et al. 2017); the reference was trained by scvi-tools on
    10x GEM wells 1-6, the query is wells 7 and 8, whose labels are known and used for the accuracy only.

    Parameters
    ----------
    out
        Folder to write.
    force
        Replace it if it exists.
    echo
        Called with each line.

    Raises
    ------
    OutputExists
        The folder exists and `force` is off.
    """
    check_free(out, force=force)
    with as_file(files("scgraft") / "_demo") as folder:
        reference = load_reference(folder / "reference")
        adata = read_h5ad(folder / "query.h5ad")
    truth = adata.obs[LABELS].astype(str).to_numpy()
    del adata.obs[LABELS]
    assert reference.latent is not None
    echo(
        f"Reference: {len(reference.latent.cells)} PBMC of {len(reference.schema.batches)} wells, SCVI, counts removed."
    )
    echo(f"Query: {adata.n_obs} PBMC of wells 7 and 8, which the reference has never seen; their labels are hidden.")
    mapped = map_query(reference, adata, batch_key="well")
    record, result = mapped.graft.record, mapped.labels[LABELS]
    if record.trained:
        echo(
            f"Trained {record.n_parameters} new numbers for 2 new batches in {record.seconds:.1f} s; the reference is unchanged."
        )
    else:
        echo(record.reason)
    adata.obs["true_label"] = truth
    write(mapped, adata, out, reference=reference, force=force)
    right = result.label == truth
    echo(
        f"Labels: {right.mean():.1%} of the cells have their known label; {result.unknown.mean():.1%} are marked unknown."
    )
    echo(f"Among the cells not marked unknown: {right[~result.unknown].mean():.1%}.")
    for label in np.unique(truth):
        own = truth == label
        echo(f"  {label:32s} {own.sum():4d} cells  {right[own].mean():6.1%} right")
    code = np.array([result.classes.index(label) for label in truth])
    for alpha in (0.2, 0.1, 0.05):
        sets = result.included(alpha)
        covered = sets[np.arange(len(code)), code].mean()
        echo(
            f"Prediction sets at {1 - alpha:.0%}: {covered:.1%} hold the known label, {sets.sum(axis=1).mean():.2f} labels each."
        )
    assert mapped.verdict is not None
    echo(f"Verdict: {mapped.verdict.light}. {mapped.verdict.sentence}")
    for measure in mapped.verdict.measures:
        echo(f"  {measure.light:6s} {measure.sentence}")
    echo(f"Why? {explain(reference, mapped, str(adata.obs_names[0]), adata=adata).sentence}")
    size = sum(path.stat().st_size for path in (out / "graft").iterdir())
    echo(f"Graft: {size / 1e3:.1f} kB. Files in {out}: report.html (open it), mapped.h5ad, labels.csv, summary.json.")
    return mapped
