"""Where batches lie to one another in the table that a model embeds them with: the reference's own and a graft's new ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scgraft.errors import UnsupportedModel
from scgraft.graft.levels import check_graft
from scgraft.graft.merge import level_axis
from scgraft.model.families import family_of
from scgraft.values.graft import Graft
from scgraft.values.names import BATCH
from scgraft.values.reference import Reference

if TYPE_CHECKING:
    import pandas as pd


def condition_embeddings(reference: Reference, graft: Graft | None = None, *, covariate: str = BATCH) -> pd.DataFrame:
    """Embeddings of the batches (samples, donors): near ones differ from the mean batch in a similar way.

    Parameters
    ----------
    reference
        A model that embeds its batches: scPoli, or SCVI with ``batch_representation="embedding"``.
    graft
        Adds the rows of its new batches.
    covariate
        ``"batch"``, or ``"covariate:<key>"`` for another condition of scPoli.

    Returns
    -------
    pandas.DataFrame
        One row for each batch, named by it, the reference's first; columns are ``new`` (whether the graft brought it) and
        the dimensions ``0``, ``1``, ..., float32, as stored.

    Raises
    ------
    UnsupportedModel
        The model embeds no such covariate.
    BaseMismatch, CorruptGraft
        The graft does not belong to the reference.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> scgraft.condition_embeddings(reference)
    Traceback (most recent call last):
    scgraft.errors.UnsupportedModel: This SCVI model has no embedding of 'batch': its batches are columns of its layers.
    """
    import pandas as pd

    check_graft(reference, graft)
    own = family_of(reference.base.family).slots(reference.hyper, reference.schema, reference.weights)
    slot = next((s for s in own if s.covariate == covariate and level_axis(s.name) == 0), None)
    if slot is None:
        raise UnsupportedModel(
            f"This {reference.base.family} model has no embedding of {covariate!r}: its batches are columns of its layers."
        )
    names, table = list(reference.schema.levels[covariate]), reference.weights[slot.key]
    new = None if graft is None else graft.rows.get(slot.name)
    if graft is not None and new is not None:
        names, table = [*names, *graft.levels[covariate]], np.concatenate([table, new])
    found = pd.DataFrame(table, index=pd.Index(names, name=covariate.removeprefix("covariate:")))
    found.columns = found.columns.astype(str)
    found.insert(0, "new", np.arange(len(names)) >= slot.levels)
    return found
