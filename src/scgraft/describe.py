"""What a reference is, and what surgery can do with it, before anything is computed."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from scgraft.families import family_of
from scgraft.genes import identifier_kind
from scgraft.slots import numbers_per_level
from scgraft.values import BATCH, Reference


def describe(reference: Reference) -> dict[str, Any]:
    """Facts about a reference as plain values, ready for JSON.

    The entry ``surgery`` says whether the encoder sees the batch at all, how many numbers a new batch adds, and what a
    query must bring.
    """
    schema = reference.schema
    slots = family_of(reference.base.family).slots(reference.hyper, schema, reference.weights)
    labels: dict[str, Any] = {}
    if reference.obs is not None and schema.labels_key in reference.obs:
        counts = reference.obs[schema.labels_key].astype(str).value_counts()
        labels = {str(name): int(n) for name, n in counts.items() if n}
    return {
        "base": asdict(reference.base),
        "scvi_version": reference.scvi_version,
        "genes": {
            "number": len(schema.genes),
            "identifier": identifier_kind(schema.genes),
            "examples": [str(g) for g in schema.genes[:5]],
        },
        "batch": {"key": schema.batch_key, "levels": list(schema.batches)},
        "labels": {
            "key": schema.labels_key,
            "classes": list(schema.labels),
            "cells": labels,
            "without_cells": sorted(set(schema.labels) - set(labels)) if labels else [],
            "in_one_batch": labels_in_one_batch(reference),
        },
        "covariates": {
            "categorical": {c.key: list(c.levels) for c in schema.categorical},
            "continuous": list(schema.continuous),
            "size_factor": schema.size_factor_key,
        },
        "layer": schema.layer,
        "cells": 0 if reference.latent is None else len(reference.latent.cells),
        "latent": reference.latent_source,
        "minified": reference.minified,
        "hyper": asdict(reference.hyper),
        "surgery": {
            "can_move_latent": any(s.role == "encoder" and s.covariate == BATCH for s in slots),
            "numbers_per_new_batch": numbers_per_level(reference.weights, slots, BATCH),
            "query_needs": query_needs(reference),
        },
    }


def labels_in_one_batch(reference: Reference) -> list[str]:
    """Labels that only one of several batches has: no held-out batch can tell how they are found in a new one."""
    obs, label, batch = reference.obs, reference.schema.labels_key, reference.schema.batch_key
    if obs is None or label is None or batch is None or not {label, batch} <= set(obs) or obs[batch].nunique() < 2:
        return []
    batches = obs.groupby(label, observed=True)[batch].nunique()
    return [str(name) for name, n in batches.items() if n == 1 and name != reference.schema.unlabeled]


def query_needs(reference: Reference) -> list[str]:
    """What the user must supply with a query, in words."""
    schema = reference.schema
    needs = ["raw counts (in X, a layer or raw; they are looked for)"]
    needs += [f"categorical covariate obs[{c.key!r}] (known: {', '.join(c.levels[:6])})" for c in schema.categorical]
    needs += [f"continuous covariate obs[{name!r}]" for name in schema.continuous]
    if schema.size_factor_key:
        needs.append(f"size factors in obs[{schema.size_factor_key!r}]")
    needs.append("a batch column of any name (without one, the whole query is one new batch)")
    return needs


def describe_text(reference: Reference) -> str:
    """The same facts as lines for a person."""
    facts = describe(reference)
    base, surgery, labels, genes = facts["base"], facts["surgery"], facts["labels"], facts["genes"]
    added = surgery["numbers_per_new_batch"]
    batches = facts["batch"]["levels"]
    lines = [
        f"{base['family']} model {base['repo']}",
        f"  commit        {base['revision']}   model.pt sha256 {base['sha256'][:16]}",
        f"  saved by      scvi-tools {facts['scvi_version']}",
        f"  genes         {genes['number']} ({genes['identifier']}; {', '.join(genes['examples'])}, ...)",
        f"  batch         {facts['batch']['key'] or 'none: trained without a batch column'}: "
        f"{len(batches)} level{'s' if len(batches) != 1 else ''} ({_some(batches)})",
        f"  labels        {_labels_line(labels)}",
    ]
    lines += [f"                  {n:7d}  {name}" for name, n in labels["cells"].items()]
    if labels["without_cells"]:
        lines.append(f"                  declared but without cells, never predicted: {_some(labels['without_cells'])}")
    if labels["in_one_batch"]:
        lines.append(f"                  in one batch only: {_some(labels['in_one_batch'])}")
    for key, levels in facts["covariates"]["categorical"].items():
        lines.append(f"  covariate     {key}: {_some(levels)}")
    for key in facts["covariates"]["continuous"]:
        lines.append(f"  covariate     {key} (continuous)")
    lines.append(
        f"  cells         {facts['cells']} with a latent ({facts['latent']}); minified: {facts['minified'] or 'no'}"
    )
    if surgery["can_move_latent"]:
        lines.append(f"  surgery       a new batch adds {added} numbers; training moves the latent")
    else:
        lines.append(
            "  surgery       the encoder does not see the batch: fine-tuning cannot change the latent and is skipped; "
            f"projection is the exact answer (a new batch adds {added} numbers, decoder only)"
        )
    lines += [f"  query needs   {need}" for need in surgery["query_needs"]]
    return "\n".join(lines)


def _some(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")


def _labels_line(labels: dict[str, Any]) -> str:
    return "none" if labels["key"] is None else f"{labels['key']}: {len(labels['classes'])} classes"
