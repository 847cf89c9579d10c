"""The commands about sharing and composing; each a few lines around one public function."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from scgraft.cli.cards import card_group
from scgraft.cli.explain import explain_command
from scgraft.cli.text import say
from scgraft.errors import NoLabels, OutputExists

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

OUT = click.Path(path_type=Path)


@click.command("merge")
@click.argument("grafts", nargs=-1, required=True)
@click.option("--out", required=True, type=OUT, help="Folder of the merged graft.")
@click.option("--reference", "source", help="Hub repository or folder to check the grafts against.")
@click.option("--rename", "names", multiple=True, metavar="N:OLD=NEW", help="New batch name in the N-th graft.")
@click.option("--covariate", help="Covariate whose levels --rename names; default: batches.")
@click.option("--force", is_flag=True, help="Replace OUT if it exists.")
def merge_command(
    grafts: tuple[str, ...],
    out: Path,
    source: str | None,
    names: tuple[str, ...],
    covariate: str | None,
    force: bool,
) -> None:
    """Join GRAFTS that were made for one reference, without any count."""
    from scgraft.graft.merge import merge_grafts, rename_levels
    from scgraft.graft.store import save_graft
    from scgraft.mapping.load import load_reference
    from scgraft.results.folder import check_free
    from scgraft.sharing.load import load_graft

    check_free(out, force=force)
    renamed = _renamings(names, len(grafts))
    reference = None if source is None else load_reference(source)
    loaded = [load_graft(graft) for graft in grafts]
    if covariate is not None:
        for i, pairs in renamed.items():
            loaded[i] = rename_levels(loaded[i], pairs, covariate=f"covariate:{covariate.removeprefix('covariate:')}")
        renamed = {}
    merged = merge_grafts(loaded, rename=renamed, reference=reference)
    save_graft(merged, out, force=force)
    say(f"{len(merged.batches)} batches of {len(grafts)} grafts ({', '.join(merged.batches[:6])}) in {out}")


def _renamings(names: tuple[str, ...], n: int) -> dict[int, dict[str, str]]:
    """``("2:s1=s1 of lab B",)`` -> ``{1: {"s1": "s1 of lab B"}}``; people count from one."""
    found: dict[int, dict[str, str]] = {}
    for text in names:
        position, _, pair = text.partition(":")
        old, equals, new = pair.partition("=")
        if not position.isdigit() or not 1 <= int(position) <= n or not (old and equals and new):
            raise click.BadParameter(
                f"{text!r} is not N:OLD=NEW with N from 1 to {n}, for example '2:sample1=sample1 of lab B'.",
                param_hint="--rename",
            )
        found.setdefault(int(position) - 1, {})[old] = new
    return found


@click.command("join")
@click.argument("queries", nargs=-1, required=True, metavar="NAME=FILE...")
@click.option("--reference", "source", required=True, help="Hub repository (org/name) or folder.")
@click.option("--revision", help="Branch, tag or commit of a hub repository.")
@click.option("--out", required=True, type=OUT, help="The .h5ad file to write.")
@click.option("--force", is_flag=True, help="Replace OUT if it exists.")
def join_command(queries: tuple[str, ...], source: str, revision: str | None, out: Path, force: bool) -> None:
    """Put a reference's cells and mapped queries (mapped.h5ad; X is not needed) into one file without any count."""
    from scgraft.files.atomic import new_file
    from scgraft.files.write_h5 import write_h5ad
    from scgraft.mapping.load import load_reference
    from scgraft.query.read import read_query
    from scgraft.sharing.join import join

    if out.exists() and not force:
        raise OutputExists(f"{out} exists already. Choose another --out, or use --force to replace it.")
    named = [text.partition("=") for text in queries]
    if wrong := [name for name, equals, path in named if not (name and equals and path)]:
        raise click.BadParameter(f"{wrong[0]!r} is not NAME=FILE, for example 'lab_b=b/mapped.h5ad'.")
    reference = load_reference(source, revision)
    joint = join(reference, {name: read_query(path) for name, _, path in named})
    with new_file(out, force=force) as new:
        write_h5ad(joint, new, compression="gzip")
    say(f"{joint.n_obs} cells ({', '.join(joint.obs['source'].cat.categories)}) in {out}")


@click.command("export")
@click.argument("graft", required=False)
@click.option("--reference", "source", required=True, help="Hub repository (org/name) or folder.")
@click.option("--revision", help="Branch, tag or commit of a hub repository.")
@click.option("--out", required=True, type=OUT, help="Folder to write.")
@click.option(
    "--query", type=click.Path(exists=True, path_type=Path), help="File of the query, whose cells are written too."
)
@click.option("--batch-key", help="obs column of the query's batches.")
@click.option("--query-labels", help="obs column of the query with its labels, for example scgraft_cell_type_call.")
@click.option("--no-cells", is_flag=True, help="Write the model without any cells.")
@click.option("--force", is_flag=True, help="Replace OUT if it exists.")
def export_command(
    graft: str | None,
    source: str,
    revision: str | None,
    out: Path,
    query: Path | None,
    batch_key: str | None,
    query_labels: str | None,
    no_cells: bool,
    force: bool,
) -> None:
    """Write a folder that stock scvi-tools 1.4 loads: the reference, extended by GRAFT.

    Without GRAFT it is the reference alone in today's format, which repairs models that current scvi-tools cannot open.
    """
    from scgraft.mapping.load import load_reference
    from scgraft.query.align import align
    from scgraft.query.read import read_query
    from scgraft.results.folder import check_free
    from scgraft.sharing.export import export_scvi
    from scgraft.sharing.load import load_graft

    check_free(out, force=force)
    reference = load_reference(source, revision)
    loaded = None if graft is None else load_graft(graft, reference=reference)
    adata = None if query is None else read_query(query)
    aligned = None if adata is None else align(reference, adata, batch_key=batch_key, drop_empty=True)
    given = (
        None if aligned is None or query_labels is None else _column(adata, query_labels).loc[aligned.cells].tolist()
    )
    export_scvi(reference, loaded, out, cells=not no_cells, query=aligned, query_labels=given, force=force)
    say(f"{', '.join(sorted(path.name for path in out.iterdir()))} in {out}")


def _column(adata: AnnData, name: str) -> pd.Series[str]:
    """A column of obs as text, by the cells' names."""
    if name not in adata.obs:
        raise NoLabels(f"The query has no column obs[{name!r}]; it has {', '.join(map(str, adata.obs.columns))}.")
    return adata.obs[name].astype(str).set_axis(adata.obs_names.astype(str))


@click.command("push")
@click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--repo", required=True, help="Repository of the hub, org/name; created when absent.")
@click.option("--private", is_flag=True, help="Create the repository as a private one.")
@click.option("--tag", "tags", multiple=True, help="Git tag for the commit (repeatable).")
@click.option("--message", help="Message of the commit.")
@click.option("--base", help="Where a graft's reference is published, if it was fitted to a local folder.")
@click.option("--base-revision", help="Branch, tag or commit of the base.")
@click.option("--license", "license_name", default="", help="Licence of a graft, for its card.")
@click.option("--description", default="", help="What a graft's cells are, for its card.")
@click.option("--with-counts", is_flag=True, help="Upload raw counts, if the reference's data holds any.")
@click.option("--dry-run", is_flag=True, help="Check everything and list what would be uploaded.")
def push_command(
    source: Path,
    repo: str,
    private: bool,
    tags: tuple[str, ...],
    message: str | None,
    base: str | None,
    base_revision: str | None,
    license_name: str,
    description: str,
    with_counts: bool,
    dry_run: bool,
) -> None:
    """Publish SOURCE, the folder of a graft or of a reference, on the hub in one commit."""
    from scgraft.sharing.publish import push

    pushed = push(
        source,
        repo,
        private=private,
        tags=tags,
        message=message,
        base=base,
        base_revision=base_revision,
        license=license_name,
        description=description,
        counts=with_counts,
        dry_run=dry_run,
    )
    say(str(pushed))


COMMANDS: dict[str, click.Command] = {
    "explain": explain_command,
    "merge": merge_command,
    "join": join_command,
    "export": export_command,
    "push": push_command,
    "card": card_group,
}
