"""Scores that the benchmarks of trust share."""

import numpy as np

from scgraft.numerics.conformal import expected_error, reliability


def scores(matrix, classes, truth):
    """Accuracy, balanced accuracy, macro F1, calibration error of cells whose type the reference has."""
    label = classes[matrix.argmax(axis=1)]
    types = np.unique(truth)
    recall = [(label[truth == t] == t).mean() for t in types]
    f1 = []
    for t in types:
        hit = ((label == t) & (truth == t)).sum()
        f1.append(2 * hit / max((label == t).sum() + (truth == t).sum(), 1))
    error = expected_error(reliability(matrix.max(axis=1), label == truth))
    return [round(float(v), 3) for v in ((label == truth).mean(), np.mean(recall), np.mean(f1), error)]


def auroc(score, positive):
    """Area under the ROC curve by ranks."""
    from scipy.stats import rankdata

    ranks, n = rankdata(score), int(positive.sum())
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(score) - n)))
