"""What `sawlog train` does, by pandas and scikit-learn: JSON lines read in chunks, a tenth held out for the
threshold, the rest sampled for the trees, two features through a logarithm, robust scaling, an isolation
forest of 100 trees of 256 records, and its threshold.

    python pandas_training.py INPUT
"""

import sys

import numpy
import pandas
from sklearn.ensemble import IsolationForest
from sklearn.preprocessing import RobustScaler

FEATURES = ["duration_ms", "bytes", "status"]
TREES, SAMPLES, HELD_OUT = 100, 256, 20_000


def main(path):
    draw = numpy.random.default_rng(42)
    kept, held_out = [], []
    for chunk in pandas.read_json(path, lines=True, chunksize=100_000):
        values = chunk[FEATURES].to_numpy(dtype=numpy.float64)
        # The lowest keys of a uniform draw are a uniform sample, whatever the number of records.
        keys = draw.random(len(values))
        is_held_out = draw.random(len(values)) < 0.1
        for into, chosen, most in ((held_out, is_held_out, HELD_OUT), (kept, ~is_held_out, TREES * SAMPLES)):
            into.append(numpy.column_stack([keys[chosen], values[chosen]]))
            merged = numpy.concatenate(into)
            into[:] = [merged[numpy.argsort(merged[:, 0])[:most]]]
    sample, later = kept[0][:, 1:], held_out[0][:, 1:]

    def log(values):
        values = values.copy()
        values[:, :2] = numpy.log1p(values[:, :2])
        return values

    scaler = RobustScaler().fit(log(sample))
    forest = IsolationForest(n_estimators=TREES, max_samples=SAMPLES, random_state=42, n_jobs=-1)
    forest.fit(scaler.transform(log(sample)))
    scores = -forest.score_samples(scaler.transform(log(later)))
    print("threshold", numpy.quantile(scores, 0.999))


main(sys.argv[1])
