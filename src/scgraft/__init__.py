"""Graft your cells onto a pretrained single-cell atlas.

The public names, grouped by the file that they come from. Nothing is imported until it is used.
"""

import sys as _sys
from importlib import import_module as _import_module
from types import ModuleType as _ModuleType
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from scgraft import errors, pl, testing
    from scgraft.align import align
    from scgraft.calibrate import calibrate
    from scgraft.calibration_store import load_calibration, save_calibration
    from scgraft.card import Card, graft_card, read_card, reference_card, write_card
    from scgraft.card_lint import CardFinding, decoder_doubts, lint_card
    from scgraft.cells import LatentCells, query_cells, reference_cells
    from scgraft.check import check
    from scgraft.compare import Comparison, compare_expression
    from scgraft.confidence import Calibration, Check, Dossier, Explanation, Finding, Measure, Novelty, Quality
    from scgraft.decode import normalized_expression, posterior_predictive
    from scgraft.describe import describe
    from scgraft.embed import embed
    from scgraft.evaluate import evaluate
    from scgraft.explain import explain
    from scgraft.export import export_scvi
    from scgraft.fit import fit
    from scgraft.hierarchy import parents_of
    from scgraft.joint import join
    from scgraft.merge import merge_grafts, rename_levels
    from scgraft.metrics import ModelMetrics
    from scgraft.pipeline import annotate, load_reference, map_query, quality
    from scgraft.publish import Pushed, push
    from scgraft.report import report
    from scgraft.resolve import load_base, load_graft
    from scgraft.store import save_graft
    from scgraft.transfer import transfer_labels
    from scgraft.values import FitConfig, Graft, Labels, Latent, MappedQuery, Query, Reference

_HOME = {
    "align": "align",
    "annotate": "pipeline",
    "calibrate": "calibrate",
    "describe": "describe",
    "embed": "embed",
    "explain": "explain",
    "fit": "fit",
    "load_calibration": "calibration_store",
    "load_reference": "pipeline",
    "map_query": "pipeline",
    "quality": "pipeline",
    "report": "report",
    "check": "check",
    "parents_of": "hierarchy",
    "save_calibration": "calibration_store",
    "save_graft": "store",
    "transfer_labels": "transfer",
    "Calibration": "confidence",
    "Check": "confidence",
    "Dossier": "confidence",
    "Explanation": "confidence",
    "Finding": "confidence",
    "Measure": "confidence",
    "Novelty": "confidence",
    "Quality": "confidence",
    "compare_expression": "compare",
    "decoder_doubts": "card_lint",
    "evaluate": "evaluate",
    "export_scvi": "export",
    "graft_card": "card",
    "join": "joint",
    "lint_card": "card_lint",
    "load_base": "resolve",
    "load_graft": "resolve",
    "merge_grafts": "merge",
    "normalized_expression": "decode",
    "posterior_predictive": "decode",
    "push": "publish",
    "query_cells": "cells",
    "read_card": "card",
    "reference_card": "card",
    "reference_cells": "cells",
    "rename_levels": "merge",
    "write_card": "card",
    "Card": "card",
    "Comparison": "compare",
    "CardFinding": "card_lint",
    "FitConfig": "values",
    "Graft": "values",
    "Labels": "values",
    "Latent": "values",
    "LatentCells": "cells",
    "MappedQuery": "values",
    "ModelMetrics": "metrics",
    "Pushed": "publish",
    "Query": "values",
    "Reference": "values",
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
