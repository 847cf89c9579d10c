"""What is being done, how far it is, and how long it still takes: a bar where somebody looks, lines in the log elsewhere.

A step that takes longer than a second shows a bar (tqdm) on a terminal and in a notebook, and nothing in a pipe or a log file;
``TQDM_DISABLE=1``, tqdm's own convention, turns all bars off. The logger ``scgraft`` says when each step begins (level INFO),
how far it is every ten seconds, and how long it took.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

LOG = logging.getLogger("scgraft")
WAIT = 1.0  # seconds before a bar appears: what is faster needs none
SAID_EVERY = 10.0  # seconds between lines of the log
Advance = Callable[[int], object]

_shown: ContextVar[bool | None] = ContextVar("scgraft_progress_shown", default=None)
_within: ContextVar[bool] = ContextVar("scgraft_progress_within", default=False)


@contextmanager
def showing(shown: bool | None) -> Iterator[None]:
    """Within, bars are shown (True) or not (False); None leaves it as it is, at first where somebody looks."""
    token = _shown.set(_shown.get() if shown is None else shown)
    try:
        yield
    finally:
        _shown.reset(token)


def is_shown() -> bool:
    """Whether a bar that begins now would be shown."""
    wanted = _shown.get()
    if wanted is not None:
        return wanted
    if os.environ.get("TQDM_DISABLE", "") not in ("", "0"):
        return False
    return _in_notebook() or (sys.stderr is not None and sys.stderr.isatty())


@contextmanager
def step(what: str, total: int | None = None, unit: str = "step") -> Iterator[Advance]:
    """One step of the work; what it gives is called with the units that were done since the last call.

    Parameters
    ----------
    what
        What is being done, as a user says it.
    total, unit
        How many units there are, and what they are; without a total there is no time that is left.

    Notes
    -----
    Of steps within a step only the outermost has a bar; the others are in the log at level DEBUG.
    """
    level = logging.DEBUG if _within.get() else logging.INFO
    token = _within.set(True)
    began = time.monotonic()
    LOG.log(level, "%s%s", what, "" if total is None else f" ({total:,} {unit}{'s' if total != 1 else ''})")
    bar = _bar(what, total, unit) if level == logging.INFO and is_shown() else None
    done, said = 0, began

    def advance(n: int) -> None:
        nonlocal done, said
        done += n
        if bar is not None:
            bar(n)
        now = time.monotonic()
        if total is not None and done and now - said > SAID_EVERY:
            said, left = now, (now - began) / done * (total - done)
            LOG.log(level, "%s: %s of %s, about %.0f s left", what, f"{done:,}", f"{total:,}", left)

    try:
        yield advance
    finally:
        _within.reset(token)
        if bar is not None:
            bar(None)
        if time.monotonic() - began > WAIT:
            LOG.log(level, "%s: %.1f s", what, time.monotonic() - began)


def _bar(what: str, total: int | None, unit: str) -> Callable[[int | None], object]:
    """A bar, moved by a number of units and closed by None."""
    from tqdm.auto import tqdm

    # Without a total nothing moves that would make the bar appear later.
    form = None if total is not None else "{desc} ..."
    wait = WAIT if total is not None else 0
    bar = tqdm(
        total=total, desc=what, unit=f" {unit}s", unit_scale=total is not None and total > 10_000, leave=False, delay=wait,
        bar_format=form, dynamic_ncols=True, disable=False,
    )  # fmt: skip
    return lambda n: bar.close() if n is None else bar.update(n)


def _in_notebook() -> bool:
    """Whether a Jupyter kernel runs this; IPython is asked only where somebody else imported it."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and "IPKernelApp" in shell.config
