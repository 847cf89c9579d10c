"""Graft your cells onto a pretrained single-cell atlas.

The public names, grouped by the file that they come from. Nothing is imported until it is used.
"""

import sys as _sys
from importlib import import_module as _import_module
from types import ModuleType as _ModuleType
from typing import TYPE_CHECKING

from scgraft._version import __version__

if TYPE_CHECKING:
    from scgraft import errors, pl, testing
    from scgraft.calibration.calibrate import calibrate
    from scgraft.calibration.store import load_calibration, save_calibration
    from scgraft.cards.card import Card, graft_card, read_card, reference_card, write_card
    from scgraft.cards.lint import CardFinding, decoder_doubts, lint_card
    from scgraft.cards.metrics import ModelMetrics
    from scgraft.expression.cells import LatentCells, query_cells, reference_cells
    from scgraft.expression.compare import Comparison, compare_expression
    from scgraft.expression.decode import normalized_expression, posterior_predictive
    from scgraft.expression.evaluate import evaluate
    from scgraft.graft.embed import embed
    from scgraft.graft.fit import fit
    from scgraft.graft.merge import merge_grafts, rename_levels
    from scgraft.graft.store import save_graft
    from scgraft.labels.explain import explain
    from scgraft.labels.transfer import transfer_labels
    from scgraft.mapping.check import check
    from scgraft.mapping.load import load_reference
    from scgraft.mapping.map import map_query, quality
    from scgraft.query.align import align
    from scgraft.reference.describe import describe
    from scgraft.results.annotate import annotate
    from scgraft.results.page import report
    from scgraft.sharing.export import export_scvi
    from scgraft.sharing.join import join
    from scgraft.sharing.load import load_base, load_graft
    from scgraft.sharing.publish import Pushed, push
    from scgraft.values.calibration import Calibration
    from scgraft.values.graft import FitConfig, Graft
    from scgraft.values.hierarchy import parents_of
    from scgraft.values.labels import Explanation, Labels
    from scgraft.values.mapping import MappedQuery
    from scgraft.values.novelty import Dossier, Novelty
    from scgraft.values.quality import Check, Finding, Measure, Quality
    from scgraft.values.query import Query
    from scgraft.values.reference import Latent, Reference

_HOME = {
    "align": "query.align",
    "annotate": "results.annotate",
    "calibrate": "calibration.calibrate",
    "describe": "reference.describe",
    "embed": "graft.embed",
    "explain": "labels.explain",
    "fit": "graft.fit",
    "load_calibration": "calibration.store",
    "load_reference": "mapping.load",
    "map_query": "mapping.map",
    "quality": "mapping.map",
    "report": "results.page",
    "check": "mapping.check",
    "parents_of": "values.hierarchy",
    "save_calibration": "calibration.store",
    "save_graft": "graft.store",
    "transfer_labels": "labels.transfer",
    "Calibration": "values.calibration",
    "Check": "values.quality",
    "Dossier": "values.novelty",
    "Explanation": "values.labels",
    "Finding": "values.quality",
    "Measure": "values.quality",
    "Novelty": "values.novelty",
    "Quality": "values.quality",
    "compare_expression": "expression.compare",
    "decoder_doubts": "cards.lint",
    "evaluate": "expression.evaluate",
    "export_scvi": "sharing.export",
    "graft_card": "cards.card",
    "join": "sharing.join",
    "lint_card": "cards.lint",
    "load_base": "sharing.load",
    "load_graft": "sharing.load",
    "merge_grafts": "graft.merge",
    "normalized_expression": "expression.decode",
    "posterior_predictive": "expression.decode",
    "push": "sharing.publish",
    "query_cells": "expression.cells",
    "read_card": "cards.card",
    "reference_card": "cards.card",
    "reference_cells": "expression.cells",
    "rename_levels": "graft.merge",
    "write_card": "cards.card",
    "Card": "cards.card",
    "Comparison": "expression.compare",
    "CardFinding": "cards.lint",
    "FitConfig": "values.graft",
    "Graft": "values.graft",
    "Labels": "values.labels",
    "Latent": "values.reference",
    "LatentCells": "expression.cells",
    "MappedQuery": "values.mapping",
    "ModelMetrics": "cards.metrics",
    "Pushed": "sharing.publish",
    "Query": "values.query",
    "Reference": "values.reference",
}
_MODULES = ("errors", "pl", "testing")

__all__ = sorted([*_HOME, *_MODULES, "__version__"])


class _Package(_ModuleType):
    """The package, in which ``scgraft.fit`` stays the function when the module of the same name is imported."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, _ModuleType)):
            super().__setattr__(name, value)


_sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(_import_module(f"scgraft.{_HOME[name]}"), name)
    if name in _MODULES:
        return _import_module(f"scgraft.{name}")
    raise AttributeError(f"module 'scgraft' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
