"""All results of a mapping."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from scgraft.numerics.index import Near
from scgraft.values.calibration import Calibration
from scgraft.values.novelty import Dossier, Novelty
from scgraft.values.quality import Verdict
from scgraft.values.shown import ENTRIES, Rows, as_html, as_text, shares, some
from scgraft.values.sketch import sketch

if TYPE_CHECKING:
    import pandas as pd

    from scgraft.values.graft import Graft
    from scgraft.values.labels import Labels
    from scgraft.values.query import Alignment
    from scgraft.values.reference import BaseId, Latent


GENES = 3  # of an unknown group in a line; chosen by eye


def most_common(group: np.ndarray, names: np.ndarray) -> np.ndarray:
    """For each cell the most common name in its group, (n,) str; of equally common ones the first by name."""
    found, codes = np.unique(names.astype(str), return_inverse=True)
    groups, member = np.unique(group, return_inverse=True)
    number = np.zeros((len(groups), len(found)), np.int64)
    np.add.at(number, (member, codes), 1)
    return found[number.argmax(axis=1)][member] if len(found) else found


def _group(dossier: Dossier) -> str:
    """A group of unknown cells in a few words; its sentence says more."""
    near = next(iter(dossier.nearest), "")
    genes = ", ".join(gene for gene, _ in dossier.genes[:GENES])
    return f"{dossier.n_cells:,} cells{f', more {genes}' if genes else ''}{f'; near {near}' if near else ''}"


@dataclass(frozen=True)
class MappedQuery:
    """All results of a mapping. `labels` and `calibration` are keyed by the label column.

    `novelty` says which cells the reference does not explain, `verdict` whether the mapping was good; both are None
    where nothing was calibrated. `near` are the reference cells nearest to each cell, which labels, novelty and the place on
    the map all come from; None where the reference holds no cells. `label_method` is the name of the label method that was chosen;
    None for scgraft's own way. `map` are the places of the reference's cells on its own map, (n, 2), None where it publishes none.
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
    label_method: str | None = None
    map: np.ndarray | None = None

    def to_frame(self) -> pd.DataFrame:
        """One row for each mapped cell, keyed by barcode, with the columns of ``labels.csv``.

        For each label column: the label, ``"unknown"`` where it should not be believed; ``_call``, the label in any case;
        ``_probability``, ``_runner_up``, ``_distance``, ``_unknown`` and, where calibrated, ``_set`` (labels at an error rate of
        10 %) and ``_cluster`` (the most common call in the cell's query cluster); then ``novelty``, ``novel``, ``cluster`` (of the
        query's own graph), ``mixed`` and ``map_distance``.

        Examples
        --------
        >>> import scgraft
        >>> folder, adata = scgraft.testing.example()
        >>> reference = scgraft.load_reference(folder)
        >>> mapped = scgraft.map_query(reference, adata, batch_key="batch")
        >>> table = mapped.to_frame()
        >>> len(table), list(table.columns[:3])
        (40, ['cell_type', 'cell_type_call', 'cell_type_probability'])
        """
        import pandas as pd

        table = pd.DataFrame(index=pd.Index(self.latent.cells, name="barcode"))
        for key, result in self.labels.items():
            table[key] = result.believed
            table[f"{key}_call"] = result.label
            table[f"{key}_probability"] = result.probability
            table[f"{key}_runner_up"] = result.runner_up
            table[f"{key}_distance"] = result.distance
            table[f"{key}_unknown"] = result.unknown
            if result.pvalues is not None:
                table[f"{key}_set"] = result.resolve(0.1)
            if self.novelty is not None:
                table[f"{key}_cluster"] = most_common(self.novelty.cluster, result.label)
        if self.novelty is not None:
            table["novelty"] = self.novelty.strength
            table["novel"] = self.novelty.novel
            table["cluster"] = self.novelty.cluster
            table["mixed"] = self.novelty.mixed
        if self.verdict is not None and self.verdict.distance is not None:
            table["map_distance"] = self.verdict.distance
        return table

    def _shown(self) -> tuple[str, Rows]:
        a, record = self.alignment, self.graft.record
        rows = [] if self.verdict is None else [("verdict", f"{self.verdict.light}. {self.verdict.sentence}")]
        for key, result in self.labels.items():
            rows.append((f"labels {key}", f"{result.unknown.mean():.1%} unknown; {shares(result.label)}"))
        if self.novelty is not None:
            groups = [f"cluster {d.cluster} ({_group(d)})" for d in self.novelty.dossiers]
            rows.append(("unknown groups", some(groups) or "none"))
            rows.append(("states", ", ".join(s.label for s in self.novelty.states[:ENTRIES]) or "none"))
        rows += [
            ("genes", f"{a.n_found:,} of {a.n_genes:,} found ({a.found_weight:.1%} by weight)"),
            ("batches", some(f"{name} ({n:,})" for name, n in a.cells_per_batch.items())),
            ("graft", f"{record.n_parameters:,} numbers trained" if record.trained else record.reason),
        ]
        return f"{a.n_cells:,} cells mapped onto {self.base.family} {self.base.title}", rows

    def __repr__(self) -> str:
        return as_text(*self._shown())

    def _repr_html_(self) -> str:
        drawn = ""
        if self.map is not None and self.near is not None:
            result = next(iter(self.labels.values()), None)
            nothing = np.zeros(len(self.latent.cells), bool) if self.novelty is None else self.novelty.novel
            groups = None if self.novelty is None else self.novelty.cluster
            drawn = sketch(self.map, self.near, result, nothing, groups)
        return as_html(*self._shown()) + drawn
