"""Load a reference: fetch its files, read them, and encode its cells where only counts are stored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from scgraft.errors import QueryError, UnknownBatch
from scgraft.files.budget import Budget
from scgraft.files.text import visible
from scgraft.graft.embed import embed, observed_library
from scgraft.model.families import family_of
from scgraft.progress import step
from scgraft.query.align import mean_counts
from scgraft.reference.beside import load_budget
from scgraft.reference.counts import open_own, own_query, with_own_cells
from scgraft.reference.hub import fetch
from scgraft.reference.read import read
from scgraft.values.reference import Reference


def load_reference(source: str | Path, revision: str | None = None, *, device: str = "auto") -> Reference:
    """Load a pretrained model from a HuggingFace repository or a folder, without running any code from it.

    Parameters
    ----------
    source
        Repository (``"org/name"``) or folder in the format of scvi-hub.
    revision
        Branch, tag or commit of the repository; it is resolved to a commit, which is recorded.
    device
        Where torch encodes the reference's own cells, if their posterior is not stored: ``"auto"`` (CUDA where there is one),
        ``"cpu"`` or ``"cuda"``.

    Returns
    -------
    Reference
        With the stored posterior of its cells, or, where the repository holds counts instead, with the posterior
        encoded from them.

    Raises
    ------
    HubError
        The repository cannot be fetched; the subclasses say why.
    UnsafeFile, CorruptFile
        The files hold something that is not on the allow-list, or are damaged.
    UnsupportedModel
        A class or an option that scgraft does not know.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> reference.base.family, reference.schema.batches, reference.latent.mean.shape
    ('SCVI', ('b0', 'b1'), (60, 4))
    """
    with step(f"reading the reference {visible(str(source))}"):
        bundle = fetch(source, revision)
        budget = load_budget(bundle)
        reference = read(bundle, budget)
    refused = family_of(reference.base.family).refusal is not None
    if reference.latent is not None or reference.adata_path is None or refused:
        return reference
    return _with_encoded_cells(reference, device, budget)


def _with_encoded_cells(reference: Reference, device: str, budget: Budget) -> Reference:
    """The reference with the posterior of its own cells, encoded from the counts that its repository holds."""
    assert reference.adata_path is not None and reference.obs is not None
    adata = open_own(reference, budget)
    try:
        query = own_query(reference, adata)
    except (QueryError, UnknownBatch) as error:
        return replace(reference, latent_source=f"none: the stored cells cannot be encoded ({error})")
    finally:
        adata.file.close()
    if getattr(reference.hyper, "weighted_cells", 0):
        query = with_own_cells(reference, query)
    with step("encoding the reference's own cells"):
        latent = embed(reference, query, device=device)
    kept = reference.obs.index.astype(str).isin(latent.cells)
    return replace(
        reference,
        latent=latent,
        latent_source="encoded from the stored counts",
        obs=reference.obs.loc[kept],
        maps={key: points[np.asarray(kept)] for key, points in reference.maps.items()},
        library=observed_library(reference, query, device=device),
        mean_count=mean_counts(query.counts, reference.schema),
    )
