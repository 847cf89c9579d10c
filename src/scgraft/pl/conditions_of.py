"""The embeddings of batches, where a model has any."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scgraft.graft.conditions import condition_embeddings
from scgraft.pl.style import axes_of, finished
from scgraft.values.colours import COLOURS
from scgraft.values.graft import Graft
from scgraft.values.names import BATCH
from scgraft.values.reference import Reference

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def conditions(
    reference: Reference,
    graft: Graft | None = None,
    *,
    covariate: str = BATCH,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
    return_fig: bool = False,
) -> Axes | Figure | None:
    """Embeddings of the batches on their first two principal components, each with its name; a graft's new ones are filled.

    Parameters
    ----------
    reference, graft, covariate
        As for :func:`scgraft.condition_embeddings`.
    ax, show, save, return_fig
        As for :func:`scgraft.pl.map`.

    Raises
    ------
    UnsupportedModel
        The model embeds no such covariate.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import scgraft
    >>> from scgraft.testing.tiny_scpoli import write_scpoli_folder
    >>> folder = write_scpoli_folder(Path(tempfile.mkdtemp()) / "reference")
    >>> scgraft.pl.conditions(scgraft.load_reference(folder)).get_xlabel()
    'component 1 (100%)'
    """
    found, ax = condition_embeddings(reference, graft, covariate=covariate), axes_of(ax)
    table = found.drop(columns="new").to_numpy(np.float64)
    left, scale, _ = np.linalg.svd(table - table.mean(axis=0), full_matrices=False)
    points = np.zeros((len(table), 2))
    points[:, : len(scale[:2])] = left[:, :2] * scale[:2]
    share = scale[:2] ** 2 / max(float((scale**2).sum()), 1e-12)
    for is_new, face in ((False, "none"), (True, COLOURS[0])):
        own = points[found["new"].to_numpy() == is_new]
        ax.scatter(own[:, 0], own[:, 1], facecolors=face, edgecolors=COLOURS[0], label="new" if is_new else "reference")
    for name, (x, y) in zip(found.index, points, strict=True):
        ax.annotate(str(name), (x, y), xytext=(4, 4), textcoords="offset points", fontsize="small")
    for axis, part in zip("xy", share, strict=False):
        ax.set(**{f"{axis}label": f"component {'xy'.index(axis) + 1} ({part:.0%})"})
    ax.legend(frameon=False, fontsize="small")
    return finished(ax, show, save, return_fig)
