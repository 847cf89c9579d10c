"""Known cells in another state: what the cells of a query share although they lie where the reference has them.

What all types share (a treatment that acts on every cell, the chemistry) is taken out of every residual; what one type shares, in its
place, is a state of it. Here both are put into words, with the genes of the shift.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scgraft.novelty.dossiers import Ranked, _Groups, shared_genes
from scgraft.novelty.place import Placed
from scgraft.values.novelty import State

LEAST_SHIFT = 1.25  # of the scale without it: smaller ones change hardly a cell; chosen by eye, not measured
MOST_NOVEL = 0.5  # of a type's cells: where more are novel, their dossiers speak of them
NAMED = 5  # genes in a sentence, as in a dossier; chosen by eye
ALL = "all types"
# The reference has no such cells, so it cannot tell a condition from a laboratory.
CAUSE = " Another laboratory does this as well as a condition: compare your own samples before you call it biology."


def states_of(
    found: _Groups, placed: Sequence[Placed], names: Sequence[str], whole: float, shared: Placed | None
) -> tuple[State, ...]:
    """Shifts of the query's cells that make no new type, the largest first.

    Parameters
    ----------
    placed
        The query's types, among the graph's anchors.
    names
        What their codes stand for.
    whole
        How many times as badly as held-out cells the query's cells are explained.
    shared
        All anchors as one type, explained `scale` times as badly before what they share was taken out as after; None where nothing
        was taken out.
    """
    out = []
    if shared is not None and shared.scale >= LEAST_SHIFT:
        anchors = np.ones(len(found.graph.anchors), bool)
        said = (
            f"All types of the query share a shift: what their better explained cells have in common makes errors {shared.scale:.1f} "
            f"times as large, and is taken out of every cell's novelty."
        )
        out.append(_state(ALL, shared, shared.scale, shared_genes(found, anchors, ~anchors), said))
    for kind in placed:
        shift = kind.scale / whole
        if not kind.in_place or shift < LEAST_SHIFT or found.novel[found.graph.anchors[kind.rows]].mean() > MOST_NOVEL:
            continue
        inside, others = np.zeros((2, len(found.graph.anchors)), bool)
        inside[kind.best], others[:] = True, True
        others[kind.rows] = False
        said = (
            f"{len(kind.rows)} cells whose neighbours in the reference are {names[kind.code]} are explained {shift:.1f} times as badly as "
            f"the query's cells on the whole, but lie where the reference has this type ({kind.farther:.2f} times as far from it as "
            f"held-out cells; {kind.reach:.2f} is the limit): known cells in another state. They keep their label."
        )
        out.append(_state(str(names[kind.code]), kind, shift, shared_genes(found, inside, others), said))
    return tuple(sorted(out, key=lambda state: -state.shift))


def _state(label: str, kind: Placed, shift: float, genes: tuple[Ranked, Ranked], said: str) -> State:
    more, less = genes
    parts = [
        f"{word} {', '.join(g for g, _ in some[:NAMED])}" for word, some in (("more", more), ("less", less)) if some
    ]
    said += f" They have {' and '.join(parts)} than the model expects." if parts else ""
    return State(
        label=label,
        n_cells=len(kind.rows),
        shift=round(shift, 2),
        farther=round(kind.farther, 3),
        reach=round(kind.reach, 3),
        genes=more,
        lacking=less,
        sentence=said + CAUSE,
    )
