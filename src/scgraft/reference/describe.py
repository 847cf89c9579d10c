"""What a reference is, and what surgery can do with it, before anything is computed."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from scgraft.model.families import family_of
from scgraft.model.families.linear_scvi import loadings
from scgraft.model.slots import numbers_per_level
from scgraft.query.identifiers import identifier_kind
from scgraft.values.description import BatchFacts, CovariateFacts, Description, GeneFacts, LabelFacts, Surgery
from scgraft.values.names import BATCH, column_text, level_name
from scgraft.values.reference import Reference

TOP = 10  # genes of each end of a latent dimension: what a person reads


def describe(reference: Reference) -> Description:
    """Facts about a reference: what it was trained on, what cells it holds, and what a new batch does to it.

    Returns
    -------
    Description
        ``print`` shows it as lines and a notebook as a table; ``to_dict()`` gives plain values for JSON. Its `surgery` says
        whether the encoder sees the batch at all, how many numbers a new batch adds, and what a query must bring.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> found = scgraft.describe(reference)
    >>> found.labels.classes, found.surgery.can_move_latent
    (('alpha', 'beta', 'delta'), True)
    """
    schema = reference.schema
    family = family_of(reference.base.family)
    slots = family.slots(reference.hyper, schema, reference.weights)
    cells: dict[str, int] = {}
    if reference.obs is not None and schema.labels_key in reference.obs:
        names, numbers = np.unique(column_text(reference.obs[schema.labels_key]), return_counts=True)
        by_size = np.argsort(-numbers, kind="stable")
        cells = {str(names[i]): int(numbers[i]) for i in by_size}
    genes = tuple(str(g) for g in schema.genes[:5])
    return Description(
        base=reference.base,
        scvi_version=reference.scvi_version,
        genes=GeneFacts(len(schema.genes), identifier_kind(schema.genes), genes),
        batch=BatchFacts(schema.batch_key, schema.batches),
        labels=LabelFacts(
            key=schema.labels_key,
            classes=schema.labels,
            cells=cells,
            without_cells=tuple(sorted(set(schema.labels) - set(cells))) if cells else (),
            in_one_batch=tuple(labels_in_one_batch(reference)),
        ),
        covariates=CovariateFacts(
            {c.key: c.levels for c in schema.categorical}, schema.continuous, schema.size_factor_key
        ),
        layer=schema.layer,
        cells=0 if reference.latent is None else len(reference.latent.cells),
        latent=reference.latent_source,
        minified=reference.minified,
        hyper=asdict(reference.hyper),
        surgery=Surgery(
            can_move_latent=any(s.role == "encoder" and s.covariate == BATCH for s in slots),
            numbers_per_new_batch=numbers_per_level(reference.weights, slots, BATCH),
            query_needs=tuple(query_needs(reference)),
            refusal=family.refusal,
        ),
        notes=reference.notes,
        remarks=reference.remarks,
        loadings=tuple(top_loadings(reference)) if family.name == "LinearSCVI" else (),
    )


def labels_in_one_batch(reference: Reference) -> list[str]:
    """Labels that only one of several batches has: no held-out batch can tell how they are found in a new one."""
    obs, label, batch = reference.obs, reference.schema.labels_key, reference.schema.batch_key
    if obs is None or label is None or batch is None or not {label, batch} <= set(obs) or obs[batch].nunique() < 2:
        return []
    batches = obs.groupby(label, observed=True)[batch].nunique()
    names = {level_name(name): n for name, n in batches.items()}
    return [name for name, n in names.items() if n == 1 and name != reference.schema.unlabeled]


def top_loadings(reference: Reference) -> list[dict[str, dict[str, float]]]:
    """Genes with the largest loadings of each latent dimension of a LinearSCVI model, by sign, with their loadings."""
    own, genes = loadings(reference), reference.schema.genes
    found = []
    for column in own.T:
        order = np.argsort(column, kind="stable")
        ends = {"down": order[:TOP], "up": order[::-1][:TOP]}
        found.append({sign: {str(genes[i]): round(float(column[i]), 4) for i in at} for sign, at in ends.items()})
    return found


def query_needs(reference: Reference) -> list[str]:
    """What the user must supply with a query, in words."""
    schema = reference.schema
    if family_of(reference.base.family).refusal:
        return []
    needs = ["raw counts (in X, a layer or raw; they are looked for)"]
    if schema.n_regions:
        sizes = {kind: at.stop - at.start for kind, at in schema.kinds.items()}
        needs = [f"{needs[0]} of {' or of '.join(f'its {n} {kind}' for kind, n in sizes.items())}, or of both"]
    for block in schema.blocks:
        needs.append(f"raw counts of its {len(block.features)} {block.name}, of some of them or of none")
    needs += [
        f"categorical covariate obs[{c.key!r}] (known: {', '.join(c.levels[:6])})"
        for c in schema.categorical
        if not c.of
    ]
    needs += [f"continuous covariate obs[{name!r}]" for name in schema.continuous]
    if schema.size_factor_key:
        needs.append(f"size factors in obs[{schema.size_factor_key!r}]")
    needs.append("a batch column of any name (without one, the whole query is one new batch)")
    return needs
