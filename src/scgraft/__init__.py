"""Graft your cells onto a pretrained single-cell atlas.

The public names, grouped by the file that they come from. Nothing is imported until it is used.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

from scgraft._version import __version__

if TYPE_CHECKING:
    from scgraft import errors, pl, testing
    from scgraft.calibration.calibrate import calibrate
    from scgraft.calibration.store import load_calibration, save_calibration
    from scgraft.cards.card import Card, GraftCard, graft_card, reference_card, write_card
    from scgraft.cards.catalogue import references
    from scgraft.cards.lint import CardFinding, decoder_doubts, lint_card
    from scgraft.cards.metrics import ModelMetrics
    from scgraft.cards.reading import parse_card, read_card
    from scgraft.expression.cells import LatentCells, query_cells, reference_cells
    from scgraft.expression.compare import Comparison, compare_expression
    from scgraft.expression.decode import normalized_expression, posterior_predictive
    from scgraft.expression.evaluate import evaluate
    from scgraft.expression.proteins import ProteinEstimate, proteins
    from scgraft.graft.conditions import condition_embeddings
    from scgraft.graft.embed import embed
    from scgraft.graft.fit import fit
    from scgraft.graft.merge import merge_grafts, rename_levels
    from scgraft.graft.store import save_graft
    from scgraft.labels.explain import explain
    from scgraft.labels.methods import register_label_method
    from scgraft.labels.methods.method import Ballot, LabelMethod, Vote
    from scgraft.labels.transfer import transfer_labels
    from scgraft.mapping.check import check
    from scgraft.mapping.load import load_reference
    from scgraft.mapping.map import map_query, verdict
    from scgraft.mapping.match import match
    from scgraft.model.families import register_family
    from scgraft.model.families.family import Family
    from scgraft.query.align import align
    from scgraft.reference.describe import describe
    from scgraft.results.annotate import annotate
    from scgraft.results.folder import write
    from scgraft.results.page import report
    from scgraft.sharing.export import export_scvi
    from scgraft.sharing.join import join
    from scgraft.sharing.load import load_base, load_graft
    from scgraft.sharing.publish import Pushed, push
    from scgraft.values.calibration import Calibration
    from scgraft.values.choice import Catalogue, Listed, Match, Matches
    from scgraft.values.description import Description
    from scgraft.values.graft import FitConfig, FitRecord, Graft
    from scgraft.values.hierarchy import parents_of
    from scgraft.values.labels import Explanation, Labels
    from scgraft.values.mapping import MappedQuery
    from scgraft.values.novelty import Dossier, Novelty
    from scgraft.values.quality import Check, Finding, Measure, Verdict
    from scgraft.values.query import Alignment, AlignOptions, Query
    from scgraft.values.reference import BaseId, Latent, Reference, Schema

__all__ = [
    "AlignOptions",
    "Alignment",
    "Ballot",
    "BaseId",
    "Calibration",
    "Card",
    "CardFinding",
    "Catalogue",
    "Check",
    "Comparison",
    "Description",
    "Dossier",
    "Explanation",
    "Family",
    "Finding",
    "FitConfig",
    "FitRecord",
    "Graft",
    "GraftCard",
    "LabelMethod",
    "Labels",
    "Latent",
    "LatentCells",
    "Listed",
    "MappedQuery",
    "Match",
    "Matches",
    "Measure",
    "ModelMetrics",
    "Novelty",
    "ProteinEstimate",
    "Pushed",
    "Query",
    "Reference",
    "Schema",
    "Verdict",
    "Vote",
    "__version__",
    "align",
    "annotate",
    "calibrate",
    "check",
    "compare_expression",
    "condition_embeddings",
    "decoder_doubts",
    "describe",
    "embed",
    "errors",
    "evaluate",
    "explain",
    "export_scvi",
    "fit",
    "graft_card",
    "join",
    "lint_card",
    "load_base",
    "load_calibration",
    "load_graft",
    "load_reference",
    "map_query",
    "match",
    "merge_grafts",
    "normalized_expression",
    "parents_of",
    "parse_card",
    "pl",
    "posterior_predictive",
    "proteins",
    "push",
    "query_cells",
    "read_card",
    "reference_card",
    "reference_cells",
    "references",
    "register_family",
    "register_label_method",
    "rename_levels",
    "report",
    "save_calibration",
    "save_graft",
    "testing",
    "transfer_labels",
    "verdict",
    "write",
    "write_card",
]

_HOME = {
    "calibrate": "calibration.calibrate",
    "load_calibration": "calibration.store",
    "save_calibration": "calibration.store",
    "Card": "cards.card",
    "GraftCard": "cards.card",
    "graft_card": "cards.card",
    "parse_card": "cards.reading",
    "read_card": "cards.reading",
    "reference_card": "cards.card",
    "write_card": "cards.card",
    "references": "cards.catalogue",
    "CardFinding": "cards.lint",
    "decoder_doubts": "cards.lint",
    "lint_card": "cards.lint",
    "ModelMetrics": "cards.metrics",
    "LatentCells": "expression.cells",
    "query_cells": "expression.cells",
    "reference_cells": "expression.cells",
    "Comparison": "expression.compare",
    "compare_expression": "expression.compare",
    "normalized_expression": "expression.decode",
    "posterior_predictive": "expression.decode",
    "evaluate": "expression.evaluate",
    "ProteinEstimate": "expression.proteins",
    "proteins": "expression.proteins",
    "condition_embeddings": "graft.conditions",
    "embed": "graft.embed",
    "fit": "graft.fit",
    "merge_grafts": "graft.merge",
    "rename_levels": "graft.merge",
    "save_graft": "graft.store",
    "explain": "labels.explain",
    "register_label_method": "labels.methods",
    "Ballot": "labels.methods.method",
    "LabelMethod": "labels.methods.method",
    "Vote": "labels.methods.method",
    "transfer_labels": "labels.transfer",
    "check": "mapping.check",
    "load_reference": "mapping.load",
    "map_query": "mapping.map",
    "match": "mapping.match",
    "verdict": "mapping.map",
    "register_family": "model.families",
    "Family": "model.families.family",
    "align": "query.align",
    "describe": "reference.describe",
    "annotate": "results.annotate",
    "report": "results.page",
    "write": "results.folder",
    "export_scvi": "sharing.export",
    "join": "sharing.join",
    "load_base": "sharing.load",
    "load_graft": "sharing.load",
    "Pushed": "sharing.publish",
    "push": "sharing.publish",
    "Calibration": "values.calibration",
    "Catalogue": "values.choice",
    "Listed": "values.choice",
    "Match": "values.choice",
    "Matches": "values.choice",
    "Description": "values.description",
    "FitConfig": "values.graft",
    "FitRecord": "values.graft",
    "Graft": "values.graft",
    "parents_of": "values.hierarchy",
    "Explanation": "values.labels",
    "Labels": "values.labels",
    "MappedQuery": "values.mapping",
    "Dossier": "values.novelty",
    "Novelty": "values.novelty",
    "Check": "values.quality",
    "Finding": "values.quality",
    "Measure": "values.quality",
    "Verdict": "values.quality",
    "Alignment": "values.query",
    "AlignOptions": "values.query",
    "Query": "values.query",
    "BaseId": "values.reference",
    "Latent": "values.reference",
    "Reference": "values.reference",
    "Schema": "values.reference",
}
_MODULES = ("errors", "pl", "testing")


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(_import_module(f"scgraft.{_HOME[name]}"), name)
    if name in _MODULES:
        return _import_module(f"scgraft.{name}")
    raise AttributeError(f"module 'scgraft' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
