"""A mapping on disk: mapped.h5ad, labels.csv, graft/, summary.json; all of it or nothing."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from scgraft import __version__
from scgraft.errors import OutputExists
from scgraft.pipeline import annotate
from scgraft.store import save_graft
from scgraft.values import MappedQuery

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


def check_free(out: Path, *, force: bool) -> None:
    """Refuse an output folder that exists, before any work is done."""
    if out.exists() and not force:
        raise OutputExists(f"{out} exists already. Choose another --out, or use --force to replace it.")
    if out.is_file():
        raise OutputExists(f"{out} is a file; --out names a folder. Choose another name.")


def labels_table(mapped: MappedQuery) -> pd.DataFrame:
    """One row for each cell, keyed by barcode: label, probability, runner-up, distance and unknown of each column."""
    import pandas as pd

    table = pd.DataFrame(index=pd.Index(mapped.latent.cells, name="barcode"))
    for key, result in mapped.labels.items():
        table[key] = result.label
        table[f"{key}_probability"] = result.probability
        table[f"{key}_runner_up"] = result.runner_up
        table[f"{key}_distance"] = result.distance
        table[f"{key}_unknown"] = result.unknown
    return table


def write_mapping(mapped: MappedQuery, adata: AnnData, out: Path, *, force: bool = False) -> Path:
    """Write the results of a mapping into a folder, atomically.

    Parameters
    ----------
    mapped
        From :func:`scgraft.map_query`.
    adata
        The query, in memory; it is annotated in place.
    out
        Folder to write; it appears when it is complete.
    force
        Replace a folder that exists.

    Raises
    ------
    OutputExists
        The folder exists and `force` is off.
    """
    check_free(out, force=force)
    out.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        annotate(adata, mapped)
        adata.write_h5ad(new / "mapped.h5ad", compression="gzip", compression_opts=1)
        labels_table(mapped).to_csv(new / "labels.csv", float_format="%.6g")
        save_graft(mapped.graft, new / "graft")
        (new / "summary.json").write_text(json.dumps(summary_of(mapped), indent=2) + "\n", encoding="utf-8")
        new.chmod(0o755)
        if out.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{out.name}.old.", dir=out.parent))
            out.rename(old / out.name)
            new.rename(out)
            shutil.rmtree(old)
        else:
            new.rename(out)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return out


def summary_of(mapped: MappedQuery) -> dict[str, object]:
    """What is written to summary.json."""
    return {
        "scgraft": __version__,
        "base": asdict(mapped.base),
        "quality": dict(mapped.quality),
        "alignment": asdict(mapped.alignment),
        "record": asdict(mapped.graft.record),
        "batches": list(mapped.graft.batches),
    }
