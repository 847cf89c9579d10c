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
    from scgraft.check import check
    from scgraft.confidence import Calibration, Check, Dossier, Explanation, Finding, Measure, Novelty, Quality
    from scgraft.describe import describe
    from scgraft.embed import embed
    from scgraft.explain import explain
    from scgraft.fit import fit
    from scgraft.hierarchy import parents_of
    from scgraft.pipeline import annotate, load_reference, map_query, quality
    from scgraft.report import report
    from scgraft.store import load_graft, save_graft
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
    "load_graft": "store",
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
    "FitConfig": "values",
    "Graft": "values",
    "Labels": "values",
    "Latent": "values",
    "MappedQuery": "values",
    "Query": "values",
    "Reference": "values",
}
_MODULES = ("errors", "pl", "testing")

__all__ = sorted([*_HOME, *_MODULES, "__version__"])


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(_import_module(f"scgraft.{_HOME[name]}"), name)
    if name in _MODULES:
        return _import_module(f"scgraft.{name}")
    raise AttributeError(f"module 'scgraft' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


class _Package(_ModuleType):
    """The import of ``scgraft.fit`` would bind the module over the function of the same name: keep the function."""

    def __setattr__(self, name: str, value: object) -> None:
        if _HOME.get(name) == name and isinstance(value, _ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


_sys.modules[__name__].__class__ = _Package
