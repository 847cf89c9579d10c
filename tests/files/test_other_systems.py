"""What only POSIX has is missed nowhere: the same without fcntl, resource, /proc, getuid, SIGHUP and another process."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

SOURCE = str(Path(__file__).resolve().parents[2] / "src")
# Modules that Windows lacks, or the parts of `os` and `signal` that it lacks (docs.python.org, "Availability").
WITHOUT = """
    import sys
    for name in ("fcntl", "resource", "pwd", "grp", "termios", "posix_ipc"):
        sys.modules[name] = None
    import os, signal
    for name in ("getuid", "geteuid", "getgid", "setuid", "fork", "killpg", "getpgid", "sysconf", "sched_getaffinity", "getloadavg"):
        if hasattr(os, name):
            delattr(os, name)
    for name in ("SIGHUP", "SIGKILL", "SIGXFSZ", "SIGALRM", "SIGUSR1", "pthread_kill", "alarm"):
        if hasattr(signal, name):
            delattr(signal, name)
"""
MAP = """
    import click.testing
    from pathlib import Path
    from scgraft.cli.main import main
    from scgraft.testing import tiny_query, write_hub_folder
    from scgraft.testing.tiny_model import TinyConfig
    home = Path(sys.argv[1])
    config = TinyConfig(minified="latent_posterior_parameters")
    write_hub_folder(home / "r", config)
    tiny_query(config, n_cells=30, batches=("q",)).write_h5ad(home / "q.h5ad")
    line = ["map", str(home / "q.h5ad"), "--reference", str(home / "r"), "--batch-key", "batch", "--epochs", "1", "--no-report"]
    for more in (["--out", str(home / "out")], ["--out", str(home / "parts"), "--memory", "1K"]):
        done = click.testing.CliRunner().invoke(main, line + more)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
    print(*sorted(path.name for path in home.iterdir()))
"""


def run(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": SOURCE}, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("more", ["", "import scgraft.files.trial; scgraft.files.trial._run = lambda *given: None"])
def test_a_query_is_mapped_without_what_only_posix_has(tmp_path, more):
    """Also where no process can be started for a file's trial."""
    said = run(textwrap.dedent(WITHOUT) + f"\n{more}\n" + textwrap.dedent(MAP), tmp_path)
    assert said.split() == ["out", "parts", "q.h5ad", "r"]
    assert (tmp_path / "parts" / "mapped.h5ad").exists() or list((tmp_path / "parts").glob("mapped*"))


def test_nothing_of_posix_is_imported_with_the_package():
    run(
        textwrap.dedent(WITHOUT)
        + "\nimport scgraft, scgraft.cli.main, scgraft.files.atomic, scgraft.files.walk\nscgraft.__all__"
    )


def test_the_bounds_of_a_trial_are_set_as_far_as_the_system_has_them(monkeypatch):
    """macOS has no /proc and may refuse a bound of the memory; Windows has no bounds."""
    from scgraft.files import walk

    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "resource", None)
        walk._bound(1 << 20, 1)

    class Refusing:
        RLIMIT_AS, RLIMIT_CPU, RLIMIT_CORE, RLIM_INFINITY = 1, 2, 3, -1
        getrlimit = staticmethod(lambda kind: (-1, -1))

        @staticmethod
        def setrlimit(kind, pair):
            raise ValueError("current limit exceeds maximum limit")

    monkeypatch.setitem(sys.modules, "resource", Refusing)
    walk._bound(1 << 20, 1)
