"""A graft from a folder or the hub, and the reference that it was made for, by commit and hash."""

from __future__ import annotations

from pathlib import Path

from scgraft.errors import BaseMismatch, IncompleteRepository, RevisionNotFound, UnpublishedBase
from scgraft.graft import store
from scgraft.mapping.load import load_reference
from scgraft.reference.hub import REPOSITORY, download
from scgraft.values.graft import Graft
from scgraft.values.reference import Reference


def load_graft(source: str | Path, *, revision: str | None = None, reference: Reference | None = None) -> Graft:
    """Load a graft from a folder or a repository of the hub, checked byte by byte.

    Parameters
    ----------
    source
        Folder written by :func:`scgraft.save_graft`, or a repository (``"org/name"``, ``"org/name@revision"``).
    revision
        Branch, tag or commit of the repository.
    reference
        If given, the graft must have been made for it.

    Raises
    ------
    CorruptGraft
        A file is missing, cut or changed.
    FormatTooNew
        Written by a newer scgraft.
    BaseMismatch
        Made for another reference.
    HubError
        The repository cannot be fetched, or holds no graft; the subclasses say why.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> query = scgraft.align(reference, adata, batch_key="batch")
    >>> graft = scgraft.fit(reference, query)
    >>> saved = scgraft.save_graft(graft, folder.parent / "graft")
    >>> scgraft.load_graft(saved, reference=reference).batches
    ('q0', 'q1')
    """
    name, _, at = str(source).partition("@")
    if Path(source).is_dir() or isinstance(source, Path) or not REPOSITORY.fullmatch(name):
        if revision is not None:
            raise RevisionNotFound(
                f"{source} is a folder, which has no revisions. Leave revision={revision!r} (--revision) out."
            )
        return store.load_graft(source, reference=reference)
    folder = download(name, revision or at or None, [store.ROWS, store.DOCUMENT])
    if not (folder / store.DOCUMENT).is_file():
        raise IncompleteRepository(
            f"{name} holds no graft: {store.DOCUMENT} and {store.ROWS} were expected. Check the name and the revision."
        )
    return store.load_graft(folder, reference=reference)


def load_base(graft: Graft, *, device: str = "auto") -> Reference:
    """The reference that a graft was made for: its repository at its commit, with the hash of its weights.

    Parameters
    ----------
    graft
        Its record names the reference.
    device
        As for :func:`scgraft.load_reference`.

    Raises
    ------
    UnpublishedBase
        The reference was a folder that is not here.
    BaseMismatch
        What is there now has other weights.
    HubError
        The repository cannot be fetched.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> query = scgraft.align(reference, adata, batch_key="batch")
    >>> graft = scgraft.fit(reference, query)
    >>> scgraft.load_base(graft).base == reference.base
    True
    """
    base = graft.base
    local = base.revision == "local"
    if local and not Path(base.repo).is_dir():
        raise UnpublishedBase(
            f"The graft was made for the folder {base.repo}, which is not here. Load a copy of that reference; its model.pt "
            f"has sha256 {base.sha256}."
        )
    reference = load_reference(base.repo, None if local else base.revision, device=device)
    if reference.base.sha256 != base.sha256:
        raise BaseMismatch(
            f"{base.repo} at {base.revision[:12]} holds a model with sha256 {reference.base.sha256[:12]}; the graft was made "
            f"for one with {base.sha256[:12]}."
        )
    return reference
