"""A graft or a reference folder -> a repository of the hub: checked, then committed in one go.

Nothing is uploaded before the files have been read and found sound, and counts only where that was asked for.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scgraft import errors
from scgraft.cards.card import Card, GraftCard, graft_card
from scgraft.files.h5ad import open_h5
from scgraft.files.hashes import sha256
from scgraft.graft.store import DOCUMENT, ROWS, load_graft, save_graft
from scgraft.model.families import family_of
from scgraft.reference.hub import PATTERNS, REPOSITORY, fetch, is_transport
from scgraft.reference.read import read
from scgraft.results.summary_format import SUMMARY, parse_summary
from scgraft.values.graft import Graft
from scgraft.values.shown import fields_as_html, fields_as_text

if TYPE_CHECKING:
    import h5py

CARD = "README.md"


@dataclass(frozen=True)
class Pushed:
    """What was uploaded, or would be.

    Parameters
    ----------
    repo
        The repository.
    files
        Names and sizes in bytes, in order.
    commit
        40-hex commit; None in a dry run.
    created
        Whether the repository was made; None in a dry run, which asks nobody.
    tags
        Git tags that point to the commit.
    """

    repo: str
    files: tuple[tuple[str, int], ...]
    commit: str | None
    created: bool | None
    tags: tuple[str, ...]

    def __str__(self) -> str:
        done = f"commit {self.commit}" if self.commit else "a dry run: nothing was sent"
        lines = [f"{self.repo} ({done})", *(f"{size:12,d}  {name}" for name, size in self.files)]
        return "\n".join([*lines, *(f"tag {tag}" for tag in self.tags)])

    __repr__ = fields_as_text
    _repr_html_ = fields_as_html


def push(
    source: str | Path | Graft,
    repo: str,
    *,
    private: bool = False,
    tags: Sequence[str] = (),
    message: str | None = None,
    base: str | None = None,
    base_revision: str | None = None,
    card: str | Card | GraftCard | None = None,
    license: str = "",
    description: str = "",
    counts: bool = False,
    parent: str | None = None,
    dry_run: bool = False,
) -> Pushed:
    """Publish a graft, or the folder of a reference, on the hub.

    Parameters
    ----------
    source
        A graft, its folder, or the folder of a reference.
    repo
        ``"org/name"``; it is created when absent. The token is huggingface_hub's own (``HF_TOKEN``).
    private
        Create it private; an existing repository stays as it is.
    tags
        Git tags for the commit, for example ``"v1"``.
    message
        Message of the commit.
    base, base_revision
        For a graft whose reference was a local folder: where the same model is published. Its weights must have the
        hash that the graft was made for.
    card
        The card, or its text. None takes the folder's own README.md; a graft without one gets :func:`scgraft.graft_card`,
        with the cells and the numbers that a ``summary.json`` beside its folder holds.
    license, description
        For that card of a graft.
    counts
        Upload raw counts, if the reference's data holds any.
    parent
        Commit that the repository must be at; None takes the one that it is at when the upload starts.
    dry_run
        Check everything and list what would be uploaded, without any request.

    Returns
    -------
    Pushed
        What was uploaded. All files are in one commit, which is made only if nobody committed in the meantime.

    Raises
    ------
    HoldsCounts
        The data holds raw counts and `counts` is off.
    UnpublishedBase, BaseMismatch
        The graft's reference is a local folder, or the published one has other weights.
    CorruptGraft, CorruptFile, UnsafeFile, IncompleteRepository
        The files are not sound.
    InvalidToken, NoWriteAccess, CommitConflict, HubUnreachable
        The hub refused, or could not be reached.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> pushed = scgraft.push(folder, "lab/atlas", dry_run=True)
    >>> [name for name, size in pushed.files]
    ['README.md', '_scvi_required_metadata.json', 'adata.h5ad', 'model.pt']
    """
    if not REPOSITORY.fullmatch(repo):
        raise errors.RepositoryNotFound(f"{repo!r} is not the name of a repository, such as 'lab/graft'.")
    with tempfile.TemporaryDirectory() as scratch:
        files = _files_of(
            source,
            Path(scratch),
            base=(base, base_revision),
            card=(license, description),
            counts=counts,
        )
        if card is not None:
            files[CARD] = Path(scratch) / CARD
            files[CARD].write_text(str(card), encoding="utf-8")
        listed = tuple((name, path.stat().st_size) for name, path in sorted(files.items()))
        planned = Pushed(repo, listed, None, None, tuple(tags))
        if dry_run:
            return planned
        commit, created = _upload(repo, files, private=private, tags=tags, message=message, parent=parent)
    return replace(planned, commit=commit, created=created)


def _files_of(
    source: str | Path | Graft,
    scratch: Path,
    *,
    base: tuple[str | None, str | None],
    card: tuple[str, str],
    counts: bool,
) -> dict[str, Path]:
    """Files by their name in the repository, checked."""
    summary: Mapping[str, Any] = {}
    if not isinstance(source, Graft):
        folder = Path(source)
        if not folder.is_dir():
            raise errors.IncompleteRepository(f"{source} is not a folder of a graft or of a reference.")
        if not (folder / DOCUMENT).exists():
            return _reference_files(folder, counts=counts)
        graft, own_card = load_graft(folder), folder / CARD
        summary = _summary_beside(folder, graft)
    else:
        graft, own_card = source, scratch / "none"
    graft = _published(graft, *base)
    folder = save_graft(graft, scratch / "graft")
    if own_card.is_file():
        (folder / CARD).write_bytes(own_card.read_bytes())
    else:
        cells = (summary.get("alignment") or {}).get("cells_per_batch")
        made = graft_card(
            graft, cells_per_batch=cells, summary=summary.get("summary"), license=card[0], description=card[1]
        )
        (folder / CARD).write_text(str(made), encoding="utf-8")
    return {name: folder / name for name in (ROWS, DOCUMENT, CARD)}


def _summary_beside(folder: Path, graft: Graft) -> Mapping[str, Any]:
    """What `scgraft map` wrote beside the graft, if it is of this graft."""
    try:
        summary = parse_summary(folder.resolve().parent / SUMMARY)
    except (errors.CorruptFile, errors.FormatTooNew):
        return {}
    same = summary.get("batches") == list(graft.batches)
    return summary if same else {}


def _published(graft: Graft, base: str | None, revision: str | None) -> Graft:
    """The graft with a base that anybody can fetch."""
    if base is None:
        if graft.base.revision == "local":
            raise errors.UnpublishedBase(
                f"The graft was made for the folder {graft.base.repo}, which nobody else has. Publish that reference and "
                "name it with base='org/name' (--base), or fit to a published one."
            )
        return graft
    bundle = fetch(base, revision)
    found = sha256(bundle.model)
    if found != graft.base.sha256 or bundle.revision == "local":
        raise errors.BaseMismatch(
            f"{base} at {bundle.revision[:12]} has a model with sha256 {found[:12]}; the graft was made for one with "
            f"{graft.base.sha256[:12]}. Name the repository and revision that hold that model."
        )
    return replace(graft, base=replace(graft.base, repo=bundle.repo, revision=bundle.revision, cells=""))


def _reference_files(folder: Path, *, counts: bool) -> dict[str, Path]:
    bundle = fetch(folder)
    reference = read(bundle)
    names = {path.name for pattern in PATTERNS for path in folder.glob(pattern) if path.is_file()}
    proteins = next((block.place for block in reference.schema.blocks), None)
    if bundle.adata is not None and not counts and (where := stored_counts(bundle.adata, proteins)):
        raise errors.HoldsCounts(
            f"{bundle.adata.name} holds counts in {', '.join(where)}. To publish the model without them, minify the data (scgraft "
            "export writes minified cells, or none where the class has no such form); to publish them too, say so (counts=True, --with-counts)."
        )
    needed = {CARD} if family_of(reference.base.family).scarches else {"_scvi_required_metadata.json", CARD}
    missing = needed - names
    if missing:
        raise errors.IncompleteRepository(
            f"{folder} lacks {', '.join(sorted(missing))}, which a repository of the hub needs (scgraft card write; scgraft "
            "export writes both)."
        )
    return {name: folder / name for name in sorted(names)}


def stored_counts(path: Path, proteins: str | None = None) -> list[str]:
    """Matrices of an AnnData or MuData file that hold any number but zero: X, layers, raw, and obsm[`proteins`]."""
    import h5py

    with open_h5(path) as file:
        places = _matrices(file, "")
        modalities = file.get("mod")
        for name, part in modalities.items() if isinstance(modalities, h5py.Group) else ():
            if isinstance(part, h5py.Group):
                places |= _matrices(part, f"mod[{name!r}].")
        if proteins is not None:
            places[f"obsm[{proteins!r}]"] = file.get(f"obsm/{proteins}")
        return [name for name, item in places.items() if item is not None and _holds_numbers(item)]


def _matrices(group: h5py.Group, where: str) -> dict[str, Any]:
    places: dict[str, Any] = {"X": group.get("X"), "raw.X": group.get("raw/X")}
    places |= {f"layers[{name!r}]": item for name, item in (group.get("layers") or {}).items()}
    return {f"{where}{name}": item for name, item in places.items()}


def _holds_numbers(item: h5py.Group | h5py.Dataset) -> bool:
    import h5py

    if isinstance(item, h5py.Group) and "data" not in item:  # a table: one dataset for each column
        return any(
            _holds_numbers(part)
            for part in item.values()
            if isinstance(part, h5py.Dataset) and part.dtype.kind in "iuf"
        )
    data = item.get("data") if isinstance(item, h5py.Group) else item
    if data is None or data.size == 0:
        return False
    step = max(1, (1 << 22) // max(1, data.size // max(1, data.shape[0])))
    return any(bool((data[start : start + step] != 0).any()) for start in range(0, data.shape[0], step))


def _upload(
    repo: str,
    files: Mapping[str, Path],
    *,
    private: bool,
    tags: Sequence[str],
    message: str | None,
    parent: str | None,
) -> tuple[str, bool]:
    """Commit and whether the repository was created; every failure of the client becomes a named error."""
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    api = HfApi()
    created = False
    try:
        head = _call(repo, lambda: api.repo_info(repo).sha, keep=RepositoryNotFoundError)
    except RepositoryNotFoundError:
        _call(repo, lambda: api.create_repo(repo, private=private))
        created = True
        head = _call(repo, lambda: api.repo_info(repo).sha)
    operations = [CommitOperationAdd(name, str(path)) for name, path in files.items()]
    title = message or f"Upload {', '.join(sorted(files))}"
    made = _call(repo, lambda: api.create_commit(repo, operations, commit_message=title, parent_commit=parent or head))
    for tag in tags:
        _call(repo, lambda tag=tag: api.create_tag(repo, tag=tag, revision=made.oid))  # type: ignore[misc]
    return str(made.oid), created


def _call(repo: str, action: Callable[[], Any], *, keep: type[BaseException] | tuple[()] = ()) -> Any:
    from huggingface_hub import get_token
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    try:
        return action()
    except keep:
        raise
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status == 412:
            raise errors.CommitConflict(
                f"Somebody committed to {repo} in the meantime, so nothing was written. Look at what is new there, and push "
                "again."
            ) from error
        if status == 401 and get_token() and not isinstance(error, RepositoryNotFoundError):
            raise errors.InvalidToken(
                f"The hub refused the access token for {repo}. Make one that may write, and set HF_TOKEN (or run "
                "`hf auth login`)."
            ) from error
        if status in (401, 403, 404):
            raise errors.NoWriteAccess(
                f"You may not write to {repo}: there is no token that may (HF_TOKEN, or `hf auth login`), or the repository "
                "belongs to somebody else."
            ) from error
        if status == 409:
            raise errors.CommitConflict(f"The hub says that this is there already: {error}") from error
        raise errors.HubUnreachable(f"The hub answered {status} for {repo}: {error}. Try again later.") from error
    except Exception as error:
        if isinstance(error, MemoryError) or not is_transport(error):
            raise
        raise errors.HubUnreachable(
            f"The connection to the hub broke ({type(error).__name__}: {error}). The commit is made as a whole or not at all; "
            "push again: files that arrived are not sent twice, and a commit that was made is not made again."
        ) from error
