#!/usr/bin/env python3
"""Scores the Numenta Anomaly Benchmark's real metrics with Sawlog and with scikit-learn's IsolationForest.

    benches/nab.py SAWLOG NAB_FOLDER        (needs numpy and scikit-learn)

NAB_FOLDER has realKnownCause, realAWSCloudwatch and labels/combined_windows.json. A point is 48 consecutive
values, labelled by the window that the last one falls into. Models are fitted and scored on the same points, with
five seeds; Sawlog has 100 trees of 256 samples, the published setting of Random Cut Forest for such series, the
IsolationForest the same. Prints ROC-AUC and average precision in per cent, mean and deviation over the seeds, a row
a file.
"""

import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score

SHINGLE, TREES, SAMPLES, SEEDS = 48, 100, 256, range(5)
SPEC = 'format = "csv"\n[[feature]]\nname = "value"\nfield = "value"\n'


def sawlog_scores(program, nab, path, seed, folder):
    spec, model = folder / "spec.toml", folder / "model"
    spec.write_text(SPEC)
    train = ["--shingle", str(SHINGLE), "--trees", str(TREES), "--samples", str(SAMPLES), "--seed", str(seed)]
    run = [program, "train", "--spec", spec, "--input", path, "--output", model, *train]
    # A record is sampled by where it stands: names without the folder's give the same table again.
    subprocess.run(run, check=True, stdout=subprocess.DEVNULL, cwd=nab)
    run = [program, "score", "--model", model, "--input", path, "--format", "csv"]
    out = subprocess.run(run, check=True, capture_output=True, text=True, cwd=nab).stdout
    scores = [row["score"] for row in csv.DictReader(out.splitlines())]
    assert scores[: SHINGLE - 1] == [""] * (SHINGLE - 1)
    return np.array(scores[SHINGLE - 1 :], dtype=float)


def forest_scores(points, seed):
    forest = IsolationForest(n_estimators=TREES, max_samples=min(SAMPLES, len(points)), random_state=seed)
    return -forest.fit(points).score_samples(points)


def cell(figures):
    return " / ".join(f"{100 * column.mean():.1f} ± {100 * column.std(ddof=1):.1f}" for column in np.array(figures).T)


def main():
    program, nab = str(Path(sys.argv[1]).resolve()), Path(sys.argv[2])
    windows = json.loads((nab / "labels/combined_windows.json").read_text())
    print("| metric | points, in windows | Sawlog | IsolationForest |\n|---|---|---|---|")
    means = []
    with tempfile.TemporaryDirectory() as folder:
        for group in ["realKnownCause", "realAWSCloudwatch"]:
            for path in sorted((nab / group).glob("*.csv")):
                name = f"{group}/{path.name}"
                rows = list(csv.DictReader(path.open()))
                values = np.array([float(row["value"]) for row in rows])
                spans = [(a[:19], b[:19]) for a, b in windows[name]]
                is_in = np.array([any(a <= row["timestamp"] <= b for a, b in spans) for row in rows])
                labels = is_in[SHINGLE - 1 :]
                if not labels.any():
                    print(f"| {path.stem} | {len(labels):,}, none | | |", flush=True)
                    continue
                points = np.lib.stride_tricks.sliding_window_view(values, SHINGLE)
                figures = [[], []]
                for seed in SEEDS:
                    for of, scores in zip(
                        figures, [sawlog_scores(program, nab, name, seed, Path(folder)), forest_scores(points, seed)]
                    ):
                        of.append((roc_auc_score(labels, scores), average_precision_score(labels, scores)))
                print(f"| {path.stem} | {len(labels):,}, {labels.sum():,} | {cell(figures[0])} | {cell(figures[1])} |", flush=True)
                means.append([np.mean(of, axis=0) for of in figures])
    mean = 100 * np.mean(means, axis=0)
    print(f"| mean of {len(means)} | | {mean[0][0]:.1f} / {mean[0][1]:.1f} | {mean[1][0]:.1f} / {mean[1][1]:.1f} |")


main()
