"""The same handler as people write it in Python: json, base64, numpy, scikit-learn's IsolationForest.
`ready` when it is trained, then for each line of standard input the CPU nanoseconds a record of one
event, from its bytes to an outcome for every record."""

import base64
import json
import pathlib
import sys
import time

import numpy as np
from sklearn.ensemble import IsolationForest

folder = pathlib.Path(sys.argv[1])
# The features and transforms that the shipped specification gives.
NAMES = ("duration_us", "n_spans")
# The share of the batch that is flagged, as in the bench.
FLAGGED = 0.01


def point(record):
    return [record[name] for name in NAMES]


training = np.log1p([point(json.loads(line)) for line in (folder / "training.jsonl").open()])
forest = IsolationForest(n_estimators=100, max_samples=256, random_state=42, n_jobs=1).fit(training)
threshold = np.quantile(forest.score_samples(training), FLAGGED)


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
    scores = forest.score_samples(np.log1p(np.array(values, dtype=float)))
    outcomes = []
    for origin, row, score in zip(origins, values, scores.tolist()):
        outcomes.append(
            {
                "id": "kafka/%s/%d/%d" % origin,
                "score": score,
                "threshold": threshold,
                "anomaly": score < threshold,
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
