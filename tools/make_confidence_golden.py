#!/usr/bin/env python3
"""Makes tests/goldens/confidence.json: what scikit-learn computes of random confidences, ties and empty bins included.

Needs scikit-learn >= 1.7 (not at run time of kedge, only here). usage: tools/make_confidence_golden.py
"""
import json
import pathlib

import numpy as np
import sklearn
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, roc_auc_score


def ece(correct, confidence, strategy, bins):
    """calibration_curve leaves out empty bins and gives no counts; its bins hold so many as its means say."""
    right, mean = calibration_curve(correct, confidence, n_bins=bins, strategy=strategy)
    edges = (np.linspace(0, 1, bins + 1) if strategy == "uniform"
             else np.percentile(confidence, np.linspace(0, 1, bins + 1) * 100))
    counts = np.bincount(np.searchsorted(edges[1:-1], confidence), minlength=bins)
    counts = counts[counts > 0]
    assert len(counts) == len(right)
    return float(np.sum(counts / len(correct) * np.abs(right - mean)))


def case(name, rng, n, classes, decimals, low=0.0):
    probabilities = rng.dirichlet(np.full(classes, 0.7), size=n)
    gold = np.array([rng.choice(classes, p=p) for p in probabilities])
    confidence = np.round(low + (1 - low) * probabilities.max(axis=1), decimals)
    correct = (probabilities.argmax(axis=1) == gold).astype(int)
    return {
        "name": name, "confidence": confidence.tolist(), "correct": correct.tolist(),
        "probabilities": probabilities.tolist(), "gold": gold.tolist(),
        "ece_equal_width": ece(correct, confidence, "uniform", 10),
        "ece_equal_mass": ece(correct, confidence, "quantile", 10),
        "ece_equal_width_15": ece(correct, confidence, "uniform", 15),
        "brier": brier_score_loss(correct, confidence),
        "brier_multiclass": brier_score_loss(gold, probabilities, labels=list(range(classes)), scale_by_half=False),
        "auroc": roc_auc_score(correct, confidence),
    }


def main():
    rng = np.random.default_rng(7)
    cases = [case("plain", rng, 60, 4, 12), case("many ties", rng, 60, 3, 1), case("empty bins", rng, 40, 3, 12, 0.8),
             case("few", rng, 7, 4, 12)]
    path = pathlib.Path(__file__).parent.parent / "tests/goldens/confidence.json"
    path.write_text(json.dumps({"scikit-learn": sklearn.__version__, "cases": cases}) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
