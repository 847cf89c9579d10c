"""The commands about what is kept on this machine."""

from __future__ import annotations

import click

from scgraft.cli.text import say


@click.group("cache")
def cache_group() -> None:
    """List or remove what is kept of references: calibrations, maps and indices, made anew where they are missing."""


@cache_group.command("list")
def cache_list_command() -> None:
    """Say what is kept, the last used first."""
    from datetime import datetime

    from scgraft.files.cache import LIMIT, cache_root, kept

    entries = kept()
    for entry in entries:
        say(f"{entry.path.name}  {entry.size / 1e6:8.1f} MB  used {datetime.fromtimestamp(entry.used):%Y-%m-%d %H:%M}")
    total = sum(entry.size for entry in entries) / 1e6
    say(f"{len(entries)} references, {total:.1f} MB (at most {LIMIT / 1e6:.0f}), in {cache_root()}")


@cache_group.command("clear")
def cache_clear_command() -> None:
    """Remove all of it."""
    from scgraft.files.cache import cache_root, clear

    say(f"{clear() / 1e6:.1f} MB removed from {cache_root()}")


COMMANDS: dict[str, click.Command] = {"cache": cache_group}
