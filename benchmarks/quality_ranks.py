"""On how many splits a method is first or within one standard error of the first, and how many that could be.

Every method's mean over the seeds is compared with the best other one's; a standard error is the larger of the two. With three seeds a
method that *is* as good as the best of all others on every split passes on some only: it is simulated from the same means
and spreads, as is every other method.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

ROUNDS = 300


def ranks(records: list[dict], metric: str) -> str:
    """A sentence for each method, the best first."""
    rows = rows_of(records, metric)
    passed: Counter[str] = Counter()
    for methods in rows:
        for name, mine in methods.items():
            others = [v for k, v in methods.items() if k != name and not (ours(k) and ours(name))]
            passed[name] += level(mine, max(others, key=np.mean))
    drawn = [sum(a_draw(methods, rng) for methods in rows) for rng in map(np.random.default_rng, range(ROUNDS))]
    low, high = np.percentile(drawn, [2.5, 97.5])
    text = [f"{metric}: first or within one standard error of the first other method, of {len(rows)} rows"]
    text += [f"- {name}: {number}" for name, number in passed.most_common()]
    text += [f"- a method exactly as good as the best peer of each row: {np.mean(drawn):.0f} ({low:.0f} to {high:.0f})"]
    return "\n".join(text)


def ours(method: str) -> bool:
    return method.startswith("ours")


def rows_of(records: list[dict], metric: str) -> list[dict[str, np.ndarray]]:
    """The seeds' scores of each method, by split and model; methods that use no model are in every row of their split."""
    found = []
    for split, model in dict.fromkeys((r["split"], r["model"]) for r in records if r["model"] != "none"):
        scores: dict[str, list[float]] = {}
        for r in records:
            if r["split"] == split and r["model"] in (model, "none") and np.isfinite(r.get(metric, np.nan)):
                scores.setdefault(r["method"], []).append(r[metric])
        most = max(map(len, scores.values()))
        trained = {k: np.array(v) for k, v in scores.items() if len(v) == most and k not in ("mean columns", "random")}
        found.append(trained)
    return found


def level(mine: np.ndarray, best: np.ndarray) -> bool:
    error = max(mine.std(ddof=1), best.std(ddof=1)) / len(mine) ** 0.5
    return bool(mine.mean() >= best.mean() - error - 1e-9)


def a_draw(methods: dict[str, np.ndarray], rng: np.random.Generator) -> bool:
    """Whether a copy of the best peer passes, when it and all peers are drawn anew."""
    peers = [v for k, v in methods.items() if not ours(k)]

    def anew(scores: np.ndarray) -> np.ndarray:
        return np.minimum(scores.mean() + scores.std(ddof=1) * rng.standard_normal(len(scores)), 1)

    drawn = [anew(v) for v in peers]
    return level(anew(max(peers, key=np.mean)), max(drawn, key=np.mean))
