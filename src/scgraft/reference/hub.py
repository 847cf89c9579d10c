"""Repository or folder -> Bundle: all files of one reference at one commit, on this machine."""

from __future__ import annotations

import os
import re
from fnmatch import fnmatch
from pathlib import Path

from scgraft import errors
from scgraft.files.hashes import check_stated_hash
from scgraft.files.kinds import what_to_do
from scgraft.values.reference import Bundle

# The files of a scvi-hub repository, legacy folders (before scvi-tools 0.15) included.
PATTERNS = [
    "*model.pt",
    "_scvi_required_metadata.json",
    "*adata.h5ad",
    "*adata.zarr/*",
    "*mdata.h5mu",
    "README.md",
    "metrics.json",
    "*model_params.pt",
    "*attr.pkl",
    "*var_names.csv",
]
COMMIT = re.compile(r"[0-9a-f]{40}")
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def fetch(source: str | Path, revision: str | None = None) -> Bundle:
    """Files of a reference.

    Parameters
    ----------
    source
        A folder, which needs no network, or a hub repository (``"org/name"``).
    revision
        Branch, tag or commit of the repository. It is resolved to a commit; all files come from that commit.

    Returns
    -------
    Bundle
        With the commit, or ``"local"`` for a folder.

    Raises
    ------
    HubError
        The repository cannot be fetched; the subclasses say why.

    Notes
    -----
    The cache and the variables ``HF_HOME``, ``HF_ENDPOINT``, ``HF_TOKEN`` and ``HF_HUB_OFFLINE`` are huggingface_hub's.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise errors.RevisionNotFound(
                f"{source} is a folder, which has no revisions, but revision={revision!r} was asked for. Leave it (--revision) "
                "out, or give the repository's name."
            )
        return _bundle(str(source), "local", folder)
    if folder.is_file():
        raise errors.RepositoryNotFound(
            f"{source} is a file; a reference is a folder with model.pt and what lies beside it. {what_to_do(folder)}"
        )
    if revision is None and len(folder.parts) > 1 and folder.parent.is_dir():
        beside = ", ".join(sorted(path.name for path in folder.parent.iterdir() if path.is_dir())[:8]) or "no folders"
        raise errors.RepositoryNotFound(
            f"There is no folder {source}; {folder.parent} holds {beside}. It is neither a folder nor the name of a repository: "
            "check the spelling. To ask the hub for a repository of that name, give its revision, for example 'main'."
        )
    if isinstance(source, Path) or not REPOSITORY.fullmatch(str(source)):
        raise errors.RepositoryNotFound(
            f"{str(source)!r} is neither a folder nor the name of a repository such as 'scvi-tools/human-lung-cell-atlas'. "
            "Check the spelling."
        )
    snapshot = download(str(source), revision, PATTERNS)
    if not COMMIT.fullmatch(snapshot.name):
        raise errors.HubError(f"The commit of {source} is not known: its snapshot is named {snapshot.name!r}.")
    return _bundle(str(source), snapshot.name, snapshot)


def download(repo: str, revision: str | None, patterns: list[str]) -> Path:
    """One snapshot of the files that match, each as the hub states it; every failure of the client becomes a named error."""
    snapshot = _snapshot(repo, revision, patterns)
    for path in snapshot.rglob("*"):
        name = path.relative_to(snapshot).as_posix()
        if path.is_file() and any(fnmatch(name, pattern) for pattern in patterns):
            check_stated_hash(path)
    return snapshot


def _snapshot(repo: str, revision: str | None, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    name = f"{repo} at {revision}" if revision else repo
    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))
    except GatedRepoError as error:
        raise errors.GatedRepository(
            f"{name} is gated: its owners ask for an agreement first. Open the repository's page while logged in, accept "
            "it, then set HF_TOKEN (or run `hf auth login`)."
        ) from error
    except RepositoryNotFoundError as error:
        raise errors.RepositoryNotFound(
            f"{name} does not exist, or is private and your token gives no access (the hub does not tell the two apart). "
            "Check the spelling; for a private repository set HF_TOKEN (or run `hf auth login`)."
        ) from error
    except RevisionNotFoundError as error:
        raise errors.RevisionNotFound(
            f"{repo} has no branch, tag or commit {revision!r}. Open the repository's list of commits and take one of it."
        ) from error
    except HFValidationError as error:
        raise errors.RepositoryNotFound(f"{repo!r} is not the name of a repository: {error}") from error
    except LocalEntryNotFoundError as error:
        raise errors.HubUnreachable(
            f"{name} is not in the cache, and the hub was not asked or did not answer ({_reason(error)}). With a network: "
            "unset HF_HUB_OFFLINE and try again. Without: download it where there is a network and pass the folder."
        ) from error
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status == 401:
            raise errors.InvalidToken(
                f"The hub refused the access token for {name}. Make a new one, and set HF_TOKEN (or run `hf auth login`)."
            ) from error
        raise errors.HubUnreachable(f"The hub answered {status} for {name}: {error}. Try again later.") from error
    except ValueError as error:  # a tree that tries to write outside of the cache
        raise errors.HubError(f"The hub's listing of {name} was refused: {error}") from error
    except Exception as error:
        if isinstance(error, MemoryError) or not is_transport(error):
            raise
        raise errors.HubUnreachable(
            f"{name} could not be downloaded: {_reason(error)}. What was finished is kept; try again to go on."
        ) from error


def is_transport(error: BaseException) -> bool:
    """Whether an error comes from the network and not from this program."""
    module = type(error).__module__.split(".")[0]
    return isinstance(error, OSError) or module in {"httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3"}


def said_offline() -> bool:
    """Whether the user told huggingface_hub to stay offline."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def _reason(error: BaseException) -> str:
    if said_offline():
        return "HF_HUB_OFFLINE is set"
    cause = error.__cause__ or error
    return f"{type(cause).__name__}: {cause}".strip(": ")


def _bundle(repo: str, revision: str, folder: Path) -> Bundle:
    model = _only(folder, "model.pt") or _only(folder, "model_params.pt")
    if model is None:
        models = [path.parent.name for name in ("model.pt", "model_params.pt") for path in folder.glob(f"*/*{name}")]
        if models:
            raise errors.IncompleteRepository(
                f"{repo} holds no model.pt itself, but its folders {', '.join(sorted(models)[:8])} do: pass one of them."
            )
        found = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
        raise errors.IncompleteRepository(
            f"{repo} holds no model.pt (found: {found}). A scvi-hub repository has model.pt, "
            "_scvi_required_metadata.json and adata.h5ad."
        )

    prefix = model.name.removesuffix("model.pt").removesuffix("model_params.pt")

    def present(*names: str) -> Path | None:
        """What has one of the names, the one with the model's prefix first."""
        paths = (folder / f"{start}{name}" for name in names for start in (prefix, ""))
        return next((path for path in paths if path.exists() and path.is_dir() == (path.suffix == ".zarr")), None)

    return Bundle(
        repo=repo,
        revision=revision,
        folder=folder,
        model=model,
        adata=present("adata.h5ad", "adata.zarr", "mdata.h5mu"),
        metadata=present("_scvi_required_metadata.json"),
        card=present("README.md"),
    )


def _only(folder: Path, name: str) -> Path | None:
    """The file of that name, or the only one with a prefix before it."""
    if (folder / name).is_file():
        return folder / name
    found = [path for path in sorted(folder.glob(f"*{name}")) if path.is_file()]
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise errors.IncompleteRepository(
            f"{folder.name} holds several models ({names}); keep one in a folder of its own."
        )
    return found[0] if found else None
