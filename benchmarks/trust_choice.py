"""Numbers for constants that were chosen without the data set that they are measured on.

What a mapping's limit comes from is written by ``benchmarks/trust.py --raw``; every value of a constant is tried on it with the
package's own functions, so nothing is mapped again.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from trust_scores import auroc

from scgraft.novelty import limits

RATE = 0.05
CELLS = 10  # that a number is computed from
LEASTS = tuple(np.round(np.geomspace(0.05, 0.25, 60), 4))  # limits that held-out cells do not set
ROOTS = (0.0, 0.25, 0.5)  # powers of the score in the evidence


def strength_of(raw: Mapping[str, np.ndarray], least: float, root: float) -> np.ndarray:
    """Strength of the evidence that each cell is novel, (n,), for other values of the constants."""
    usual = limits.ROOT, limits.LEAST
    held = raw["held_evidence"].astype(float)
    for fold in np.unique(raw["held_fold"]):
        own = raw["held_fold"] == fold
        score = raw["held_score"][own]
        held[own] *= (score / limits.quarter_of(score)) ** (root - usual[0])
    score = raw["score"] / limits.quarter_of(raw["score"])
    try:
        limits.ROOT, limits.LEAST = root, least
        found = limits.evidence(score, raw["anchor_markers"], raw["anchor_farther"], raw["neighbours"])
        return found / limits.limit_of(found, held, RATE, raw["held_fold"])
    finally:
        limits.ROOT, limits.LEAST = usual


def numbers(strength: np.ndarray, known: np.ndarray) -> dict[str, float]:
    """False alarms, share found and AUROC of one mapping."""
    out = {}
    if known.sum() >= CELLS:
        out["false alarms"] = float((strength[known] > 1).mean())
    if (~known).sum() >= CELLS:
        out |= {"found": float((strength[~known] > 1).mean()), "AUROC": auroc(strength, ~known)}
    return out


def mean(rows: list[dict[str, float]], name: str) -> float:
    return float(np.mean([row[name] for row in rows if name in row]))


def chosen_by(
    names: list[str], grid: Mapping[tuple[float, float], Mapping[str, dict[str, float]]]
) -> tuple[float, float]:
    """Of each power the limit at which the mean of false alarms is nearest to the declared rate; of these, what finds most."""
    best = []
    for root in ROOTS:
        own = [pair for pair in grid if pair[1] == root]
        best.append(min(own, key=lambda pair: abs(mean([grid[pair][n] for n in names], "false alarms") - RATE)))
    return max(best, key=lambda pair: mean([grid[pair][n] for n in names], "found"))


def leave_one_out(raws: Mapping[str, Mapping[str, np.ndarray]], data_set: Mapping[str, str]) -> str:
    """A table: for each data set, the constants that the others choose, and what they give on it."""
    grid = {
        (least, root): {n: numbers(strength_of(raw, least, root), raw["known"]) for n, raw in raws.items()}
        for least in LEASTS
        for root in ROOTS
    }
    lines = ["| data set | mappings | limit, power | false alarms | worst | found | AUROC |", "|---" * 7 + "|"]
    left_out: list[dict[str, float]] = []
    for own in dict.fromkeys(data_set[name] for name in raws):
        best = chosen_by([name for name in raws if data_set[name] != own], grid)
        rows = [grid[best][name] for name in raws if data_set[name] == own]
        left_out += rows
        lines.append(_line(own, rows, f"{best[0]:.3f}, {best[1]:g}"))
    shipped = [numbers(raw["strength"], raw["known"]) for raw in raws.values()]
    score = [numbers(raw["score"], raw["known"]) for raw in raws.values()]
    lines.append(_line("all, left out", left_out, "by the others"))
    lines.append(_line("all, as shipped", shipped, f"{limits.LEAST:g}, {limits.ROOT:g}"))
    return "\n".join(lines) + f"\n\nAUROC of the score alone: {mean(score, 'AUROC'):.3f}"


def _line(title: str, rows: list[dict[str, float]], said: str) -> str:
    found, area = ([row[k] for row in rows if k in row] for k in ("found", "AUROC"))
    alarms = [row["false alarms"] for row in rows if "false alarms" in row]
    cells = [f"{np.mean(v):.3f}" if v else "" for v in (found, area)]
    return f"| {title} | {len(rows)} | {said} | {np.mean(alarms):.3f} | {max(alarms):.2f} | {' | '.join(cells)} |"
