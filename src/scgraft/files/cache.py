"""Where what is made once is kept for the next run."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """``$SCGRAFT_CACHE``, or ``scgraft`` in ``$XDG_CACHE_HOME`` or ``~/.cache``.

    A user without a home (in a container, on a node of a cluster) gets a place in which no file can be made: nothing is kept,
    and everything is made anew. Python would take a folder called "~" in the working directory.
    """
    if given := os.environ.get("SCGRAFT_CACHE"):
        return Path(given)
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "scgraft"
    home = Path(os.path.expanduser("~"))
    return (home if home.is_absolute() else Path(os.devnull)) / ".cache" / "scgraft"
