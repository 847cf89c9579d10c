"""The commands that help to choose a reference: what there is, what fits, and fetching it; each around one public function."""

from __future__ import annotations

import json
from pathlib import Path

import click

from scgraft.cli.options import DEVICE, Device, Size
from scgraft.cli.text import say


@click.command("references")
@click.argument("words", nargs=-1)
@click.option(
    "--limit", default=50, show_default=True, type=click.IntRange(1), help="Number of repositories to list at most."
)
@click.option("--offline", is_flag=True, help="List what is in this machine's cache, without asking the hub.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def references_command(words: tuple[str, ...], limit: int, offline: bool, as_json: bool) -> None:
    """List scvi-hub repositories whose name or tags contain all WORDS: scgraft references lung human."""
    from dataclasses import asdict

    from scgraft.cards.catalogue import references
    from scgraft.values.choice import facts

    found = references(words, limit=limit, offline=offline)
    if as_json:
        say(json.dumps({"note": found.note, "references": [asdict(entry) for entry in found]}, indent=2))
        return
    width = max((len(entry.repo) for entry in found), default=0)
    for entry in found:
        say(f"{entry.repo:{width}s}  {facts(entry)}")
    say(found.sentence)


@click.command("match")
@click.argument("query", type=click.Path(exists=True, path_type=Path))
@click.argument("more", nargs=-1, metavar="")
@click.option("--references", "sources", multiple=True, metavar="A B C", help="Hub repositories (org/name) or folders.")
@click.option("--search", "words", help="Try the references of the hub with these words: 'lung human'.")
@click.option(
    "--limit", default=5, show_default=True, type=click.IntRange(1), help="Number of references to try at most."
)
@click.option("--batch-key", help="obs column of the query's batches.")
@click.option("--labels", help="Label column of the references; default: each registry's.")
@click.option("--layer", help="Where the counts are ('X', 'raw' or a layer); default: they are looked for.")
@click.option("--seed", default=0, show_default=True, help="Seed of everything random.")
@click.option("--device", type=Device(), default="auto", show_default=True, help=DEVICE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_context
def match_command(
    ctx: click.Context,
    query: Path,
    more: tuple[str, ...],
    sources: tuple[str, ...],
    words: str | None,
    limit: int,
    batch_key: str | None,
    labels: str | None,
    layer: str | None,
    seed: int,
    device: str,
    as_json: bool,
) -> None:
    """Rank references by how well they fit QUERY, tried on 1,000 of its cells.

    The exit code is 0, or 11 where none fits.
    """
    from dataclasses import asdict

    from scgraft.cards.catalogue import references
    from scgraft.mapping.match import match
    from scgraft.query.read import read_query

    if more and not sources:
        raise click.UsageError(f"Name the references after --references: --references {' '.join(more)}.")
    chosen = [*sources, *more]
    if words is not None:
        chosen += [entry.repo for entry in references(words, limit=50) if entry.surgery != "refused"][:limit]
    if not chosen:
        raise click.UsageError(
            "No reference to try: name some with --references, or other words for --search "
            "(`scgraft references` lists what there is)."
        )
    adata = read_query(query, backed=True)
    found = match(
        chosen,
        adata,
        batch_key=batch_key,
        labels=labels,
        layer=layer,
        seed=seed,
        device=device,
        progress=False if ctx.obj else None,
    )
    if as_json:
        document = {"sentence": found.sentence, "best": found.best and found.best.source}
        say(json.dumps(document | {"references": [asdict(entry) for entry in found]}, indent=2))
    else:
        say(found.sentence)
        for i, entry in enumerate(found, start=1):
            say(f"{i}. {entry.source}{'' if entry.fits else ' (does not fit)'}")
            say(f"   {entry.sentence}")
            for group in entry.missing[:5] if entry.fits else ():
                say(f"   - {group}")
    ctx.exit(0 if found.best is not None else 11)


@click.command("pull")
@click.argument("source")
@click.option("--revision", help="Branch, tag or commit of the repository.")
@click.option("--out", type=click.Path(path_type=Path), help="Copy the files into this folder, to carry it elsewhere.")
@click.option("--force", is_flag=True, help="Replace OUT if it exists.")
def pull_command(source: str, revision: str | None, out: Path | None, force: bool) -> None:
    """Download the reference SOURCE (org/name) and check it, for machines without network.

    Without --out it stays in the cache of huggingface_hub (HF_HOME), which can be copied; with HF_HUB_OFFLINE=1 everything works
    from there by the repository's name. With --out the folder is the reference.
    """
    import shutil

    from scgraft.files.atomic import new_folder
    from scgraft.mapping.load import load_reference
    from scgraft.reference.hub import fetch
    from scgraft.results.folder import check_free

    if out is not None:
        check_free(out, force=force)
    reference = load_reference(source, revision)
    bundle = fetch(source, reference.base.revision if reference.base.revision != "local" else None)
    where = bundle.folder
    if out is not None:
        with new_folder(out, force=force) as new:
            shutil.copytree(bundle.folder, new, dirs_exist_ok=True)  # a snapshot's links become files
        where = out
    say(f"{reference.base.family} {source} at {reference.base.revision} in {where}")


@click.command("app")
@click.option("--references", "sources", multiple=True, metavar="A", help="Repository or folder to offer (repeatable).")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to bind to; 0.0.0.0 for everywhere.")
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Port of the page; default: the first free one from 7860 on."
)
@click.option("--max-size", type=Size(), help="Largest upload (500M); default: 2G.")
@click.option("--no-browser", is_flag=True, help="Do not open a browser.")
def app_command(sources: tuple[str, ...], host: str, port: int | None, max_size: int | None, no_browser: bool) -> None:
    """Serve a web page for people who do not code: drop a file, choose a reference, map, take the results home."""
    from scgraft.app.page import MOST_BYTES, serve

    serve(sources, host=host, port=port, max_bytes=max_size or MOST_BYTES, open_browser=not no_browser)


COMMANDS: dict[str, click.Command] = {
    "references": references_command,
    "match": match_command,
    "pull": pull_command,
    "app": app_command,
}
