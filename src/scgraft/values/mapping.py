"""All results of a mapping."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from scgraft.numerics.index import Near
from scgraft.values.calibration import Calibration
from scgraft.values.novelty import Novelty
from scgraft.values.quality import Verdict

if TYPE_CHECKING:
    from scgraft.values.graft import Graft
    from scgraft.values.labels import Labels
    from scgraft.values.query import Alignment
    from scgraft.values.reference import BaseId, Latent


@dataclass(frozen=True)
class MappedQuery:
    """All results of a mapping. `labels` and `calibration` are keyed by the label column.

    `novelty` says which cells the reference does not explain, `verdict` whether the mapping was good; both are None
    where nothing was calibrated. `near` are the reference cells nearest to each cell, which labels, novelty and the place on
    the map all come from; None where the reference holds no cells.
    """

    base: BaseId
    alignment: Alignment
    graft: Graft
    latent: Latent
    labels: Mapping[str, Labels]
    summary: Mapping[str, Any]
    novelty: Novelty | None = None
    calibration: Mapping[str, Calibration] = field(default_factory=dict)
    verdict: Verdict | None = None
    near: Near | None = None
