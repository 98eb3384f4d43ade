"""scikit-learn's IsolationForest on the points that the example `accuracy` writes with --points.

    python3 -m venv VENV && VENV/bin/pip install scikit-learn==1.7.2
    VENV/bin/python training/examples/isolation_forest.py FOLDER

Fitted and scored on the same rows, 100 trees, five seeds; ROC-AUC / average precision in per cent,
mean ± sample deviation.
"""

import pathlib
import sys

import numpy as np
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score

SEEDS = range(5)


def figures(points, labels, samples):
    runs = []
    for seed in SEEDS:
        forest = IsolationForest(
            n_estimators=100, max_samples=min(samples, len(points)), random_state=seed
        )
        scores = -forest.fit(points).score_samples(points)
        runs.append((roc_auc_score(labels, scores), average_precision_score(labels, scores)))
    mean, deviation = np.mean(runs, 0) * 100, np.std(runs, 0, ddof=1) * 100
    return f"{mean[0]:.1f} ± {deviation[0]:.1f} / {mean[1]:.1f} ± {deviation[1]:.1f}"


for path in sorted(pathlib.Path(sys.argv[1]).glob("*.csv")):
    table = np.loadtxt(path, delimiter=",", ndmin=2)
    points, labels = table[:, :-1].astype(np.float32), table[:, -1]
    default = min(max(len(points) // 16, 32), 256)
    cells = {samples: figures(points, labels, samples) for samples in (256, default)}
    print(path.stem, *(f"{samples} samples: {cell}" for samples, cell in cells.items()), sep="  ", flush=True)
