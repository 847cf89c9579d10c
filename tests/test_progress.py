"""Progress is shown where somebody looks, said in the log, and silent in pipes."""

import io
import logging
import sys
import time
import types

import pytest

import scgraft
from scgraft import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def a_terminal(monkeypatch):
    """Standard error as a terminal on which bars appear at once; no fixture, as pytest replaces it before each test."""
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setattr(progress, "WAIT", 0.0)
    out = Terminal()
    monkeypatch.setattr(sys, "stderr", out)
    return out


def test_a_terminal_sees_what_is_done_and_the_time_that_is_left(monkeypatch):
    terminal = a_terminal(monkeypatch)
    with progress.step("baking", 3, "loaf") as advance:
        for _ in range(2):
            time.sleep(0.11)  # tqdm draws at most ten times a second
            advance(1)
    shown = terminal.getvalue()
    assert "baking" in shown and "2/3" in shown and "<" in shown.split("2/3")[1]
    assert shown.endswith("\r")  # the bar is taken away when it is done


def test_a_step_of_unknown_length_says_what_it_is(monkeypatch):
    terminal = a_terminal(monkeypatch)
    with progress.step("writing the page"):
        assert "writing the page ..." in terminal.getvalue()


@pytest.mark.parametrize("off", ["a pipe", "the environment", "the caller"])
def test_nothing_is_shown_elsewhere(monkeypatch, off):
    terminal = a_terminal(monkeypatch)
    if off == "a pipe":
        monkeypatch.setattr(sys, "stderr", out := io.StringIO())
    else:
        out = terminal
    if off == "the environment":
        monkeypatch.setenv("TQDM_DISABLE", "1")
    with progress.showing(False if off == "the caller" else None), progress.step("baking", 2) as advance:
        advance(2)
    assert out.getvalue() == ""


def test_a_notebook_is_told_from_a_console(monkeypatch):
    assert not progress._in_notebook()
    for config, notebook in (({"IPKernelApp": {}}, True), ({}, False)):
        shell = types.SimpleNamespace(config=config)
        monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda shell=shell: shell))
        assert progress._in_notebook() is notebook


def test_what_was_asked_for_holds_for_what_is_called_within(monkeypatch):
    a_terminal(monkeypatch)
    with progress.showing(False):
        with progress.showing(None):
            assert not progress.is_shown()
        with progress.showing(True):
            assert progress.is_shown()
    assert progress.is_shown()


def test_only_the_outermost_step_has_a_bar(monkeypatch, caplog):
    terminal = a_terminal(monkeypatch)
    caplog.set_level(logging.DEBUG, "scgraft")
    with progress.step("baking", 1) as advance:
        with progress.step("kneading", 5) as knead:
            knead(5)
        advance(1)
    assert "baking" in terminal.getvalue() and "kneading" not in terminal.getvalue()
    levels = {record.getMessage().split(" ")[0]: record.levelno for record in caplog.records}
    assert levels["baking"] == logging.INFO and levels["kneading"] == logging.DEBUG


def test_a_long_step_says_how_far_it_is(monkeypatch, caplog):
    caplog.set_level(logging.INFO, "scgraft")
    clock = iter(range(0, 1000, 6))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.step("baking", 4, "loaf") as advance:
        for _ in range(4):
            advance(1)
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == "baking (4 loafs)" and said[1] == "baking: 2 of 4, about 12 s left"
    assert said[-1].startswith("baking: ") and said[-1].endswith(" s")


def test_an_error_closes_the_bar_and_later_steps_are_outermost_again(monkeypatch):
    a_terminal(monkeypatch)
    with pytest.raises(ValueError, match="burnt"), progress.step("baking", 2):
        raise ValueError("burnt")
    with progress.step("washing up", 1):
        assert progress._within.get()
    assert not progress._within.get()


def test_a_mapping_says_each_of_its_steps_and_prints_nothing(caplog, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("SCGRAFT_CACHE", str(tmp_path))
    caplog.set_level(logging.INFO, "scgraft")
    folder, adata = scgraft.testing.example()
    reference = scgraft.load_reference(folder)
    mapped = scgraft.map_query(reference, adata, batch_key="batch")
    scgraft.write(mapped, adata, tmp_path / "out", reference=reference)
    said = "\n".join(record.getMessage() for record in caplog.records)
    for what in ("reading the reference", "aligning", "fitting", "embedding", "calibrating", "judging", "writing"):
        assert what in said, what
    assert capsys.readouterr() == ("", "")
