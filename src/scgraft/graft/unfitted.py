"""Where a query's cells lie before the fit: a fit brings cells of a missing type nearer to the reference, too."""

from __future__ import annotations

from scgraft.graft.embed import embed
from scgraft.graft.fit import fit
from scgraft.values.graft import FitConfig, Graft
from scgraft.values.query import Query
from scgraft.values.reference import Latent, Reference


def unfitted(reference: Reference, query: Query, graft: Graft, latent: Latent, *, device: str = "auto") -> Latent:
    """Latent of the query's cells with the columns that a fit starts from; `latent` itself where nothing was trained."""
    if not graft.record.trained:
        return latent
    return embed(reference, query, fit(reference, query, FitConfig(epochs=0, device=device)), device=device)
