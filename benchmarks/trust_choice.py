"""Numbers for constants that were chosen without the data set that they are measured on.

What a mapping's limits come from is written by ``benchmarks/trust.py --raw``; every value of a constant is tried on it with the
package's own functions, so nothing is mapped again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from trust_scores import auroc

from scgraft.novelty import place
from scgraft.novelty.limits import DISTANCE_POWER, evidence_limit
from scgraft.novelty.rule import NoveltyRule
from scgraft.numerics.conformal import threshold_at

RATE = 0.05
LEAST = 10  # cells that a number is computed from
# How many times as far as held-out cells a type may lie and be a known one in another state; 0 knows no states.
FARTHEST = (0.0, 1.0, 1.05, 1.1, 1.2, 1.5)
FURTHER = (False, True)  # the limit of a further batch, or that of all held-out cells together


def novelty_of(raw: Mapping[str, np.ndarray], farthest: float, further: bool) -> np.ndarray:
    """Strength of the evidence that each cell is novel, (n,)."""
    held = place.HeldOut(*(raw[f"held_{name}"] for name in ("score", "distance", "code", "fold")))
    fold = held.fold if further else None
    limit = evidence_limit(raw["score"], raw["start"], held.score, held.distance, RATE, fold=fold)
    scales, usual = np.ones(len(raw["score"]), np.float32), place.FARTHEST
    try:
        place.FARTHEST = farthest
        placed = place.place_types(raw["score"], raw["start"], raw["type"], held)
    finally:
        place.FARTHEST = usual
    scales = place.own_scales(raw["score"], placed, held)
    rule = NoveltyRule(np.zeros((1, 1)), {}, np.zeros(1), np.ones(1, bool), 1.0, limit, power=DISTANCE_POWER)
    rule = replace(rule, held_out_limit=threshold_at(held.score, RATE / 2), scales=scales)
    return rule.judge(raw["score"], raw["apart"], raw["start"], rule.scale(raw["neighbours"]))[1]


def numbers(raw: Mapping[str, np.ndarray], farthest: float, further: bool) -> dict[str, float]:
    """False alarms, share found and AUROC of one mapping."""
    strength, known = novelty_of(raw, farthest, further), raw["known"]
    out = {"false alarms": float((strength[known] > 1).mean())}
    if (~known).sum() >= LEAST:
        out |= {"found": float((strength[~known] > 1).mean()), "AUROC": auroc(strength, ~known)}
    return out


def loss(rows: list[dict[str, float]]) -> float:
    """Mean share of known cells that are called novel, and of novel ones that are not, over mappings."""
    missed = [1 - row["found"] for row in rows if "found" in row]
    return float(np.mean([row["false alarms"] for row in rows])) + (float(np.mean(missed)) if missed else 0.0)


def leave_one_out(raws: Mapping[str, Mapping[str, np.ndarray]], data_set: Mapping[str, str]) -> str:
    """A table: for each data set, the constants that the others choose, and what they give on it."""
    grid = {(f, g): {n: numbers(raw, f, g) for n, raw in raws.items()} for f in FARTHEST for g in FURTHER}
    lines = ["| data set | mappings | chosen by the others | false alarms | worst | found | AUROC |", "|---" * 7 + "|"]
    chosen_rows: list[dict[str, float]] = []
    for own in dict.fromkeys(data_set[name] for name in raws):
        others = [name for name in raws if data_set[name] != own]
        best = min(grid, key=lambda pair: loss([grid[pair][name] for name in others]))
        rows = [grid[best][name] for name in raws if data_set[name] == own]
        chosen_rows += rows
        lines.append(_line(own, rows, f"{best[0]:g}, {'further' if best[1] else 'pooled'}"))
    lines.append(_line("all, left out", chosen_rows, "by the others"))
    lines.append(_line("all, shipped", list(grid[(place.FARTHEST, True)].values()), f"{place.FARTHEST:g}, further"))
    lines.append(_line("all, before", list(grid[(0.0, False)].values()), "0, pooled"))
    return "\n".join(lines)


def _line(title: str, rows: list[dict[str, float]], said: str) -> str:
    alarms = [row["false alarms"] for row in rows]
    found, area = ([row[k] for row in rows if k in row] for k in ("found", "AUROC"))
    cells = [f"{np.mean(v):.3f}" if v else "" for v in (found, area)]
    return f"| {title} | {len(rows)} | {said} | {np.mean(alarms):.3f} | {max(alarms):.2f} | {' | '.join(cells)} |"
