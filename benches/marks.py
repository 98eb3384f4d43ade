"""How alike two forests are that should be, and that should not: the table of docs/validation.md from
which its marks come. Prints a line a pair of models.

    cargo build --release && python3 benches/marks.py target/release/sawlog

Two models score the same later records. Alike should be models of the same records by another seed, of
another half of them, and one in SageMaker's manner; strangers are models of records that were changed."""

import contextlib
import csv
import gzip
import json
import math
import os
import pathlib
import random
import subprocess
import sys
import tempfile

EXAMPLES = pathlib.Path(__file__).resolve().parent.parent / "examples"
TRAINED = 0.6
TOP = 0.05
RULE = ("--threshold", "quantile:0.995")


def sawlog(*arguments):
    done = subprocess.run([BINARY, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"sawlog {' '.join(map(str, arguments))}\n{done.stderr}")


def write(name, lines, header=None):
    text = "\n".join([header, *lines] if header else lines)
    pathlib.Path(name).write_text(text + "\n")
    return name


def scores(spec, training, records, *options):
    """Trains, and scores the records: (score, is an anomaly), or None for one without a score."""
    sawlog("train", "--spec", spec, "--input", training, "--output", "m", *options)
    sawlog("score", "--model", "m", "--input", records, "--output", "s.csv", "--format", "csv")
    with open("s.csv") as rows:
        return [
            (float(row["score"]), row["anomaly"] == "1") if row["score"] else None
            for row in csv.DictReader(rows)
        ]


def ranks(values):
    order = sorted(range(len(values)), key=values.__getitem__)
    found = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and values[order[end]] == values[order[start]]:
            end += 1
        for at in order[start:end]:
            found[at] = (start + end + 1) / 2
        start = end
    return found


def correlation(a, b):
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    both = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b))
    spread = sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b)
    return both / math.sqrt(spread)


def compare(name, one, other):
    pairs = [(a, b) for a, b in zip(one, other) if a and b]
    found = [[a[0] for a, _ in pairs], [b[0] for _, b in pairs]]
    size = round(TOP * len(pairs))
    # Surely among the top: above the greatest score outside.
    below = [sorted(scores)[len(scores) - size - 1] for scores in found]
    tops = [{at for at, score in enumerate(s) if score > b} for s, b in zip(found, below)]
    missing = max(len(tops[0] - tops[1]), len(tops[1] - tops[0]))
    shared = len(tops[0] & tops[1])
    flagged = [{at for at, pair in enumerate(pairs) if pair[i][1]} for i in range(2)]
    either, differing = flagged[0] | flagged[1], flagged[0] ^ flagged[1]
    print(
        f"{name:44} {len(pairs):6} records, tops missing {missing / max(missing + shared, 1):4.0%}, "
        f"rank correlation {correlation(*map(ranks, found)):5.2f}, "
        f"decisions differing {len(differing) / max(len(either), 1):4.0%} of {len(either)}",
        flush=True,
    )


def alike(name, spec, lines, *options, header=None, has_sagemaker=True):
    """Compares models that should be alike; returns one's scores, and the records."""
    cut = int(len(lines) * TRAINED)
    earlier, records = lines[:cut], write("records", lines[cut:], header)

    def of(part, *more):
        return scores(spec, write("training", part, header), records, *RULE, *options, *more)

    first = of(earlier, "--seed", "1")
    compare(f"{name}: another seed", first, of(earlier, "--seed", "2"))
    compare(f"{name}: the other half of the records", of(earlier[0::2]), of(earlier[1::2]))
    half = len(earlier) // 2
    compare(f"{name}: earlier and later half", of(earlier[:half]), of(earlier[half:]))
    if has_sagemaker:
        by_sagemaker = ("--threshold", "3sd", "--compat", "sagemaker", *options)
        theirs = scores(spec, write("training", earlier, header), records, *by_sagemaker)
        compare(f"{name}: --compat sagemaker", first, theirs)
    return first, earlier, records


def times(factor):
    return lambda record: {**record, "duration_us": record["duration_us"] * factor}


def swapped(record):
    fields = {"duration_us": record["n_spans"] * 1000, "n_spans": max(1, record["duration_us"] // 10_000)}
    return {**record, **fields}


STRANGERS = {
    "on durations in ms, not us": times(0.001),
    "on durations times 10": times(10),
    "on durations times 2": times(2),
    "on slow requests only": lambda record: record if record["duration_us"] > 100_000 else None,
    "on fast requests only": lambda record: record if record["duration_us"] < 20_000 else None,
    "on other fields": swapped,
}


def main():
    shop = EXAMPLES / "nezha/spec.toml"
    lines = gzip.open(EXAMPLES / "nezha/requests.jsonl.gz", "rt").read().splitlines()
    first, earlier, records = alike("web shop", shop, lines)
    for name, change in STRANGERS.items():
        changed = filter(None, (change(json.loads(line)) for line in earlier))
        training = write("training", [json.dumps(record) for record in changed])
        compare(f"web shop, trained {name}", first, scores(shop, training, records, *RULE))

    draw = random.Random(1)

    def clusters():
        at = draw.choice([0, 0, 0, 3, 5])
        return [at + draw.gauss(0, 0.3), at * at + draw.gauss(0, 0.3), draw.expovariate(1)]

    made_up = {
        "normal, 2 dimensions": lambda: [draw.gauss(0, 1) for _ in range(2)],
        "normal, 8 dimensions": lambda: [draw.gauss(0, 1) for _ in range(8)],
        "three clusters": clusters,
        "a cube": lambda: [draw.random() for _ in range(3)],
    }
    for name, kind in made_up.items():
        rows = [kind() for _ in range(20_000)]
        columns = [f"x{at}" for at in range(len(rows[0]))]
        features = "".join(f'[[feature]]\nname = "{x}"\nfield = "{x}"\n' for x in columns)
        spec = write("spec.toml", [f'format = "csv"\n{features}'])
        lines = [",".join(f"{x:.6f}" for x in row) for row in rows]
        alike(name, spec, lines, header=",".join(columns))

    taxi = EXAMPLES / "nab/spec.toml"
    header, *lines = (EXAMPLES / "nab/nyc_taxi.csv").read_text().splitlines()
    alike("taxi rides", taxi, lines, header=header)
    name = "taxi rides in shingles of 48"
    alike(name, taxi, lines, "--shingle", "48", header=header, has_sagemaker=False)


BINARY = os.path.abspath(sys.argv[1])
with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
    main()
