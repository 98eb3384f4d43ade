"""scikit-learn's IsolationForest on the points of the bench: `ready` when it is trained, then for each
line of standard input the CPU nanoseconds a point, in one batch of 10,000 and one row a call."""

import pathlib
import sys
import time

import numpy as np
from sklearn.ensemble import IsolationForest

folder, features = pathlib.Path(sys.argv[1]), sys.argv[2]
training, queries = (
    np.loadtxt(folder / f"{name}-{features}.csv", delimiter=",", dtype=np.float32)
    for name in ("training", "queries")
)
forest = IsolationForest(n_estimators=100, max_samples=256, random_state=42, n_jobs=1).fit(training)


def cpu_ns(batches):
    start = time.thread_time_ns()
    for batch in batches:
        forest.score_samples(batch)
    return time.thread_time_ns() - start


cpu_ns([queries])
print("ready", flush=True)
for _ in sys.stdin:
    alone = [queries[row : row + 1] for row in range(20)]
    print(cpu_ns([queries]) / len(queries), cpu_ns(alone) / len(alone), flush=True)
