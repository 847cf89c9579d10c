"""A result is there whole or not at all, whatever ends the run, and nothing of a dead run stays."""

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from scgraft.errors import CannotWrite, OutputExists
from scgraft.files.atomic import WORKSPACE, new_file, new_folder, remove_leftovers

SOURCE = str(Path(__file__).resolve().parents[2] / "src")


def child(code: str, *arguments: object, wait: str | None = None, **options):
    """A process that runs `code`; with `wait`, returned when it has written that line."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": SOURCE}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip
    if wait is not None:
        assert process.stdout.readline().strip() == wait
    return process


SLEEPER = """
    import sys, time
    from pathlib import Path
    from scgraft.files.atomic import new_folder
    with new_folder(Path(sys.argv[1]), force=True) as new:
        (new / "half").write_text("half a result")
        print("writing", flush=True)
        time.sleep(60)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("old", [False, True])
def test_what_a_killed_run_left_is_removed_by_the_next_one(tmp_path, old):
    if old:
        with new_folder(tmp_path / "out") as new:
            (new / "kept").write_text("an old result")
    killed = child(SLEEPER, tmp_path / "out", wait="writing")
    killed.kill()
    killed.communicate()
    assert any(name.startswith(WORKSPACE) for name in names(tmp_path))
    with new_folder(tmp_path / "other"):
        pass
    assert names(tmp_path) == ["other", *["out"] * old]
    assert not old or (tmp_path / "out" / "kept").read_text() == "an old result"


def test_what_a_living_run_writes_is_left_alone(tmp_path):
    living = child(SLEEPER, tmp_path / "out", wait="writing")
    remove_leftovers(tmp_path)
    assert [name.startswith(WORKSPACE) for name in names(tmp_path)] == [True]
    living.kill()
    living.communicate()


def test_a_result_that_a_killed_run_had_moved_aside_comes_back(tmp_path):
    workspace = tmp_path / f"{WORKSPACE}x"
    (workspace / "old" / "out").mkdir(parents=True)
    (workspace / "old" / "out" / "kept").write_text("an old result")
    (workspace / "owner").touch()
    with pytest.raises(OutputExists), new_folder(tmp_path / "out"):
        pass
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out" / "kept").read_text() == "an old result"


def test_a_folder_of_the_users_that_is_called_so_stays(tmp_path):
    own = tmp_path / f"{WORKSPACE}notes"
    own.mkdir()
    (own / "notes.txt").write_text("mine")
    os.utime(own, (0, 0))
    empty = tmp_path / f"{WORKSPACE}killed-at-once"
    empty.mkdir()
    os.utime(empty, (0, 0))
    young = tmp_path / f"{WORKSPACE}just-made"
    young.mkdir()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [young.name, own.name]


def test_two_processes_write_one_output(tmp_path):
    code = """
        import sys
        from pathlib import Path
        from scgraft.files.atomic import new_file, new_folder
        for i in range(40):
            with new_folder(Path(sys.argv[1]) / "out", force=True) as new:
                for part in "ab":
                    (new / part).write_text(sys.argv[2])
            with new_file(Path(sys.argv[1]) / "cache" / "file", force=True) as new:
                new.write_text(sys.argv[2] * 1000)
    """
    processes = [child(code, tmp_path, letter) for letter in "xy"]
    errors = [process.communicate(timeout=60)[1] for process in processes]
    said = [error.strip().splitlines()[-1].split(":")[0] for error in errors if error]
    assert set(said) <= {"scgraft.errors.CannotWrite"}, errors  # the other was faster; its result is whole
    assert names(tmp_path) == ["cache", "out"]
    assert names(tmp_path / "cache") == ["file"]
    assert {(tmp_path / "out" / part).read_text() for part in "ab"} in ({"x"}, {"y"})
    assert (tmp_path / "cache" / "file").read_text() in ("x" * 1000, "y" * 1000)


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_full_disk_is_a_named_error_and_the_old_result_stays(tmp_path, kind):
    code = """
        import resource, signal, sys
        from pathlib import Path
        from scgraft.errors import CannotWrite
        from scgraft.files.atomic import new_file, new_folder
        out = Path(sys.argv[1])
        write = {"folder": lambda new: new / "large", "file": lambda new: new}[sys.argv[2]]
        make = {"folder": new_folder, "file": new_file}[sys.argv[2]]
        with make(out) as new:
            write(new).write_bytes(b"old")
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            with make(out, force=True) as new:
                write(new).write_bytes(b"n" * 5000)
        except CannotWrite as error:
            print(error)
    """
    said, error = child(code, tmp_path / "out", kind).communicate(timeout=60)
    assert "could not be written: File too large. What was there before is unchanged." in said, error
    path = tmp_path / "out" / "large" if kind == "folder" else tmp_path / "out"
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["out"]


def test_a_folder_that_may_not_be_written_to():
    code = """
        import fcntl, os, sys  # before the rights are given up: the interpreter may stand where nobody may read
        from pathlib import Path
        from scgraft.errors import CannotWrite
        from scgraft.files.atomic import new_file, new_folder
        if os.getuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        for make in (new_folder, new_file):
            for place in ("out", "a/b/out"):
                try:
                    with make(Path(sys.argv[1]) / place) as new:
                        raise AssertionError(new)
                except CannotWrite as error:
                    print(error)
    """
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        said, error = child(code, folder).communicate(timeout=60)
        assert said.count("could not be written: Permission denied") == 4, error
        assert names(Path(folder)) == []
        Path(folder).chmod(0o755)


def test_a_place_under_a_file(tmp_path):
    (tmp_path / "file").touch()
    for make in (new_folder, new_file):
        with pytest.raises(CannotWrite, match="could not be written"), make(tmp_path / "file" / "out"):
            pass


def test_a_name_that_is_too_long(tmp_path):
    for make in (new_folder, new_file):
        with pytest.raises(CannotWrite, match="could not be written"), make(tmp_path / ("n" * 300)) as new:
            new.touch()
    assert names(tmp_path) == []


def test_a_link_to_another_filesystem_is_replaced_as_a_link(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "kept").touch()
    (tmp_path / "out").symlink_to(tmp_path / "far")
    with new_folder(tmp_path / "out", force=True) as new:
        (new / "result").touch()
    assert not (tmp_path / "out").is_symlink()
    assert names(tmp_path / "far") == ["kept"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_a_command_with_its_code_and_no_leftovers(tmp_path, number):
    code = """
        import time
        import click
        from pathlib import Path
        from scgraft.cli import main
        from scgraft.files.atomic import new_folder
        @main.main.command("slow")
        @click.argument("out", type=click.Path(path_type=Path))
        def slow(out):
            with new_folder(out) as new:
                (new / "half").touch()
                print("writing", flush=True)
                time.sleep(60)
        main.run()
    """

    def heard():  # a suite that runs in the background hands on that it ignores interrupts
        signal.signal(number, signal.SIG_DFL)

    process = child(code, "slow", tmp_path / "out", wait="writing", preexec_fn=heard)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert names(tmp_path) == []


def test_an_ignored_hangup_stays_ignored(tmp_path):
    code = """
        import signal, sys
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        from scgraft.cli import main
        sys.argv[1:] = ["--version"]
        try:
            main.run()
        except SystemExit:
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            print("ignored")
    """
    assert "ignored" in child(code).communicate(timeout=60)[0]


FULL = """
    import resource, signal, sys
    from pathlib import Path
    import numpy as np
    from anndata import AnnData
    from scgraft.errors import CannotWrite
    from scgraft.files.atomic import new_folder
    from scgraft.results.writable import write_annotated
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    adata = AnnData(np.random.default_rng(0).random((100, 50), np.float32))
    adata.obsm["x"] = np.zeros((100, 30))
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
    try:
        with new_folder(Path(sys.argv[1])) as new:
            print(write_annotated(adata, new / "mapped.h5ad"))
    except CannotWrite as error:
        print(error)
"""


@pytest.mark.parametrize("size", [500, 3000, 9000, 20_000, 30_000, 40_000, 50_000, 60_000])
def test_cells_that_a_full_disk_does_not_hold_are_a_named_error_and_end_no_process(tmp_path, size):
    """libhdf5 says so in many ways, keeps what it could not write, and would crash at the end of the process."""
    process = child(FULL, tmp_path / "out", size)
    said, error = process.communicate(timeout=120)
    assert (process.returncode, error) == (0, "")
    assert said.startswith(f"{tmp_path / 'out'} could not be written: File too large.")
    assert names(tmp_path) == []


@pytest.fixture
def other_filesystem(tmp_path):
    """A folder on another filesystem than the temporary one."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second filesystem that can be written to")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.mark.parametrize("far", ["output", "temporary", "both linked"])
def test_a_mapping_is_written_across_filesystems(tmp_path, other_filesystem, monkeypatch, far):
    """Output, cache and temporary folder on two filesystems, twice: nothing is renamed from one to the other."""
    import scgraft
    from scgraft.results.folder import write

    near, other = (tmp_path, other_filesystem) if far != "temporary" else (other_filesystem, tmp_path)
    monkeypatch.setenv("TMPDIR", str(near))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(near / "cache"))
    out = other / "out"
    if far == "both linked":
        (near / "link").symlink_to(other, target_is_directory=True)
        out = near / "link" / "out"
    home, adata = scgraft.testing.example()
    reference = scgraft.load_reference(home)
    mapped = scgraft.map_query(
        reference, adata, batch_key="batch", config=scgraft.FitConfig(max_steps=2), calibration=None
    )
    for force in (False, True):
        write(mapped, adata, out, page=False, force=force)
        assert {"labels.csv", "mapped.h5ad", "graft", "summary.json"} <= {path.name for path in out.iterdir()}
        assert [path.name for path in other.iterdir() if path.name not in ("out", "cache")] == []
