"""``scgraft explain``: why cells of a finished mapping have their labels."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scgraft.cli.options import DEVICE, Device
from scgraft.cli.text import say
from scgraft.errors import CorruptFile, QueryError

if TYPE_CHECKING:
    from anndata import AnnData

    from scgraft.values.calibration import Calibration
    from scgraft.values.mapping import MappedQuery
    from scgraft.values.reference import Reference


@click.command("explain")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("cells", nargs=-1, required=True, metavar="CELL...")
@click.option("--reference", "source", help="Hub repository or folder; default: the one that FOLDER names.")
@click.option(
    "--query",
    type=click.Path(exists=True, path_type=Path),
    help="The query that was mapped, if mapped.h5ad has no counts.",
)
@click.option("--labels", help="Label column; default: the first.")
@click.option("--alpha", default=0.1, show_default=True, type=float, help="Error rate of the prediction set.")
@click.option(
    "--neighbours",
    default=5,
    show_default=True,
    type=click.IntRange(1),
    help="Number of nearest reference cells to list.",
)
@click.option("--device", type=Device(), default="auto", show_default=True, help=DEVICE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def explain_command(
    folder: Path,
    cells: tuple[str, ...],
    source: str | None,
    query: Path | None,
    labels: str | None,
    alpha: float,
    neighbours: int,
    device: str,
    as_json: bool,
) -> None:
    """Say why CELLs of the mapping in FOLDER have their labels: neighbours, votes, prediction set, novelty, genes.

    The cells are mapped again by the graft and the calibration in FOLDER, which gives what the mapping gave.
    """
    from scgraft.labels.explain import explain

    reference, adata, mapped = again(folder, source, query, device)
    found = [explain(reference, mapped, cell, labels=labels, adata=adata, k=neighbours, alpha=alpha) for cell in cells]
    say(json.dumps([asdict(one) for one in found], indent=2) if as_json else "\n\n".join(map(str, found)))


def again(folder: Path, source: str | None, query: Path | None, device: str) -> tuple[Reference, AnnData, MappedQuery]:
    """The mapping of a folder, made again from what the folder holds, with its reference and its query.

    Raises
    ------
    QueryError
        The folder keeps no counts, and no query was given.
    """
    from scgraft.calibration.store import load_calibration
    from scgraft.graft.store import load_graft
    from scgraft.mapping.load import load_reference
    from scgraft.mapping.map import map_query
    from scgraft.query.read import read_query
    from scgraft.results.stored import label_keys, read_summary
    from scgraft.values.graft import FitConfig

    summary = read_summary(folder)
    base, options = summary["base"], summary["alignment"]["options"]
    local = base["revision"] == "local"
    reference = load_reference(source or base["repo"], None if local or source else base["revision"], device=device)
    adata = read_query(query or folder / "mapped.h5ad")
    if query is None and adata.X is None and not adata.layers and adata.raw is None:
        raise QueryError(f"{folder / 'mapped.h5ad'} holds no counts. Name the file that was mapped with --query.")
    calibration: dict[str, Calibration] | None
    try:
        calibration = load_calibration(folder / "calibration", reference=reference)
    except CorruptFile:
        if (folder / "calibration").exists():
            raise
        calibration = None  # a mapping without one
    keys = [key for key in label_keys(folder) if reference.obs is not None and key in reference.obs]
    mapped = map_query(
        reference,
        adata,
        labels=keys or None,
        method=summary["summary"].get("label_method", {}).get("name"),
        config=FitConfig(device=device),
        graft=load_graft(folder / "graft", reference=reference),
        calibration=calibration,
        batch_key=options["batch_key"],
        layer=options["layer"],
        drop_empty=options["drop_empty"],
        min_found=options["min_found"],
        gene_map=options["gene_map"],
    )
    return reference, adata, mapped
