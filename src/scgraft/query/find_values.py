"""Values for a model that takes any: what a place holds is not judged, only whether it can be used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scgraft.errors import NotCounts
from scgraft.query.counts import Counts
from scgraft.query.places import cells_of, to_csr

if TYPE_CHECKING:
    from anndata import AnnData


def find_values(adata: AnnData, *, layer: str | None = None) -> Counts:
    """Values of X, or of the layer that is named: they have to be made as the reference's were.

    Parameters
    ----------
    adata
        In memory or backed; not changed.
    layer
        ``"X"`` or a layer; None takes X.

    Raises
    ------
    NotCounts
        There is no such place, or it has values that are negative, NaN or infinite.
    """
    wanted = {None: "X", "X": "X", "raw": "raw.X"}.get(layer, f"layers[{layer!r}]")
    found = {place.source: place for place in cells_of(adata).places}
    if wanted not in found:
        raise NotCounts(f"The query has no {wanted}; it has {', '.join(found) or 'nothing'}.")
    matrix = to_csr(found[wanted].matrix)
    wrong = ~np.isfinite(matrix.data) | (matrix.data < 0)
    if wrong.any():
        raise NotCounts(
            f"{wanted} of the query has {int(wrong.sum())} values that are negative, NaN or infinite. The reference was trained "
            "on values that are not negative, with the squared error: normalise the query as the reference was (for example "
            "log1p of counts per ten thousand), and do not scale it."
        )
    note = (
        f"The reference takes the values of {wanted} as they are: they have to be normalised as the reference's were."
    )
    return Counts(matrix, wanted, found[wanted], 0.0, (note,))
