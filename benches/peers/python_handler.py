"""The same handler as people write it in Python: json, base64, numpy and a forest in native code:
`isolation`, scikit-learn's, or `random-cut`, AWS's algorithm as krcf binds it to Python. `ready` when it is trained, then for each line of standard input the CPU nanoseconds a record of one
event, from its bytes to an outcome for every record."""

import base64
import json
import pathlib
import sys
import time

import krcf
import numpy as np
from sklearn.ensemble import IsolationForest

folder, kind = pathlib.Path(sys.argv[1]), sys.argv[2]
# The features and transforms that the shipped specification gives.
NAMES = ("duration_us", "n_spans")
# The share of the batch that is flagged, as in the bench.
FLAGGED = 0.01


def point(record):
    return [record[name] for name in NAMES]


training = np.log1p([point(json.loads(line)) for line in (folder / "training.jsonl").open()])
if kind == "isolation":
    forest = IsolationForest(n_estimators=100, max_samples=256, random_state=42, n_jobs=1)
    forest.fit(training)

    def unusual(points):
        return -forest.score_samples(points)

else:
    forest = krcf.RandomCutForest(
        {
            "dimensions": len(NAMES),
            "shingle_size": 1,
            "num_trees": 100,
            "sample_size": 256,
            "random_seed": 42,
        }
    )
    for row in training:
        forest.update(row)

    def unusual(points):
        # It knows one point at a time only.
        return np.array([forest.score(point) for point in points])


threshold = np.quantile(unusual(training), 1 - FLAGGED)


def handle(body):
    event = json.loads(body)
    origins, values, dead = [], [], []
    for records in event["records"].values():
        for record in records:
            origin = (record["topic"], record["partition"], record["offset"])
            try:
                row = point(json.loads(base64.b64decode(record["value"])))
            except (KeyError, TypeError, ValueError) as error:
                dead.append((origin, str(error), record))
                continue
            origins.append(origin)
            values.append(row)
    scores = unusual(np.log1p(np.array(values, dtype=float)))
    outcomes = []
    for origin, row, score in zip(origins, values, scores.tolist()):
        outcomes.append(
            {
                "id": "kafka/%s/%d/%d" % origin,
                "score": score,
                "threshold": threshold,
                "anomaly": bool(score > threshold),
                "features": dict(zip(NAMES, row)),
            }
        )
    return outcomes, dead


body = (folder / "event.json").read_bytes()
outcomes, dead = handle(body)
assert len(outcomes) == 10_000 and not dead, (len(outcomes), len(dead))
print("ready", flush=True)
for _ in sys.stdin:
    start = time.thread_time_ns()
    outcomes, dead = handle(body)
    print((time.thread_time_ns() - start) / len(outcomes), flush=True)
