"""What the columns of labels.csv mean, in the words of the page."""

from __future__ import annotations

ENDINGS = {
    "": ("", "The best label of the reference for this cell, whether it can be believed or not."),
    "_probability": ("probability (0 to 1)", "How often a label like this is right on held-out reference cells; without a "
                     "calibration, the label's share of the vote."),
    "_runner_up": ("second label", "The next best label."),
    "_distance": ("distance (1: as inside the reference)", "To the nearest reference cells, over the reference's own spacing."),
    "_unknown": ("unknown", "Yes where the label should not be believed: no label fits, or the cell is novel or mixed."),
    "_set": ("labels at 10 % error", "All labels that held-out reference cells do not exclude at an error rate of 10 %."),
}  # fmt: skip
MEANINGS = {
    "novelty": ("novelty (novel above 1)", "How far the cell is from what the reference explains, over its threshold."),
    "novel": ("novel", "Yes where the reference does not explain the cell."),
    "mixed": (
        "mixed",
        "Yes where several types explain the cell better than one: a doublet, or a spot of several cells.",
    ),
    "cluster": ("query cluster", "Community of the query's own neighbour graph, made without the reference."),
    "map_distance": ("map distance (standard deviations)", "To the nearest cluster of the reference."),
}


def explained(name: str, keys: list[str]) -> tuple[str, str]:
    """Title, with its unit, and meaning of a column of labels.csv."""
    if name in MEANINGS:
        return MEANINGS[name]
    for key in keys:
        if name.startswith(key) and name[len(key) :] in ENDINGS:
            title, meaning = ENDINGS[name[len(key) :]]
            return f"{key}{': ' if title else ''}{title}", meaning
    return name, ""
