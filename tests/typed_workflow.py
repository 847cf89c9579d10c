"""What a typed project writes with scgraft; ``tests/test_typed.py`` holds it to ``mypy --strict``. It is not run."""

from pathlib import Path

import numpy as np
from anndata import AnnData

import scgraft


def mapped(source: str, adata: AnnData, out: Path) -> scgraft.MappedQuery:
    reference: scgraft.Reference = scgraft.load_reference(source, revision="main")
    checked: scgraft.Check = scgraft.check(reference, adata, batch_key="sample")
    described: scgraft.Description = scgraft.describe(reference)
    needs: tuple[str, ...] = described.surgery.query_needs
    print(checked.grade, needs)
    config = scgraft.FitConfig(objective="match", seed=1, device="cpu")
    result = scgraft.map_query(reference, adata, batch_key="sample", labels=["cell_type"], config=config)
    labels: scgraft.Labels = result.labels["cell_type"]
    sets: tuple[tuple[str, ...], ...] = labels.sets(alpha=0.1)
    names: np.ndarray = labels.resolve(0.1, parents=scgraft.parents_of(adata.obs, ["lineage", "cell_type"]))
    why: scgraft.Explanation = scgraft.explain(reference, result, str(result.latent.cells[0]), adata=adata)
    print(sets[0], names[0], why.sentence, why.log_odds)
    if result.verdict is not None and result.novelty is not None:
        measures: tuple[scgraft.Measure, ...] = result.verdict.measures
        dossiers: tuple[scgraft.Dossier, ...] = result.novelty.dossiers
        print(measures, dossiers)
    scgraft.save_graft(result.graft, out / "graft")
    scgraft.save_calibration(result.calibration, out / "calibration")
    again: scgraft.Graft = scgraft.load_graft(out / "graft", reference=reference)
    merged: scgraft.Graft = scgraft.merge_grafts([again])
    print(merged.batches, scgraft.annotate(adata, result).n_obs)
    return result


def step_by_step(reference: scgraft.Reference, adata: AnnData) -> np.ndarray:
    query: scgraft.Query = scgraft.align(reference, adata, batch_key="sample", min_found=0.7)
    graft: scgraft.Graft = scgraft.fit(reference, query)
    latent: scgraft.Latent = scgraft.embed(reference, query, graft)
    labels: dict[str, scgraft.Labels] = scgraft.transfer_labels(reference, latent)
    calibration: dict[str, scgraft.Calibration] = scgraft.calibrate(reference)
    print(labels, calibration)
    cells: scgraft.LatentCells = scgraft.query_cells(reference, query, graft)
    own: scgraft.LatentCells = scgraft.reference_cells(reference).take(np.arange(10))
    print(scgraft.normalized_expression(reference, own, library_size="observed"))
    return scgraft.normalized_expression(reference, cells, graft, genes=["CD3E"])


def cards(reference: scgraft.Reference, graft: scgraft.Graft, folder: Path) -> Path:
    card: scgraft.Card = scgraft.reference_card(reference, license="cc-by-4.0")
    findings = scgraft.lint_card(reference)
    print(card.tags, [finding.text for finding in findings], scgraft.parse_card(str(card)).minified)
    try:
        return scgraft.write_card(scgraft.graft_card(graft), folder / "README.md")
    except scgraft.errors.OutputExists:
        return folder / "README.md"
