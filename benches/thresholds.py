#!/usr/bin/env python3
"""The tables of docs/thresholds.md: what thresholds flag of records that neither trees nor threshold saw.

    benches/thresholds.py SAWLOG NAB_FOLDER

SAWLOG is the binary, NAB_FOLDER holds the Numenta Anomaly Benchmark's data (artificialNoAnomaly/*.csv).
"""

import gzip
import json
import pathlib
import subprocess
import sys
import tempfile

EXAMPLES = pathlib.Path(__file__).resolve().parent.parent / "examples"
SERIES = ["art_noisy", "art_daily_small_noise", "art_daily_no_noise", "art_daily_perfect_square_wave"]


def main(sawlog, nab):
    sawlog = pathlib.Path(sawlog).resolve()

    def head(rule):
        print(f"\n| held-out records | records | {rule} | 3sd |\n|---|---|---|---|")

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        model = "model"

        def run(*arguments):
            # A record is sampled by where it stands: names without the folder's give the same table again.
            command = [sawlog, *map(str, arguments)]
            return subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder).stdout

        def row(name, later):
            evaluation = json.loads(run("evaluate", "--model", model, "--input", later, "--top", 0, "--json"))
            three = next(row for row in evaluation["thresholds"] if row["rule"] == "3sd")
            cells = [name, f"{evaluation['scored']:,}"]
            for found in (evaluation["thresholds"][0], three):
                cells.append(f"{found['flagged']:,} ({100 * found['share']:.2f} %)")
            print("|", " | ".join(cells), "|")

        def write(name, lines):
            (folder / name).write_text("".join(lines))
            return name

        requests = gzip.open(EXAMPLES / "nezha/requests.jsonl.gz", "rt").readlines()
        spec = EXAMPLES / "nezha/spec.toml"
        head("the default, quantile:0.999")
        split = len(requests) * 7 // 10
        train = write("earlier", requests[:split])
        run("train", "--spec", spec, "--input", train, "--output", model)
        row("requests, the last 30 %", write("later", requests[split:]))
        train = write("others", [line for at, line in enumerate(requests) if at % 5])
        run("train", "--spec", spec, "--input", train, "--output", model)
        row("requests, every fifth", write("fifth", requests[::5]))

        for quantile in ("quantile:0.99", "quantile:0.999"):
            head(quantile)
            for name in SERIES:
                lines = (pathlib.Path(nab) / f"artificialNoAnomaly/{name}.csv").read_text().splitlines(True)[1:]
                third = -(-len(lines) // 3)
                parts = [write(str(at), lines[at * third : (at + 1) * third]) for at in range(3)]
                for shingle in (1, 24):
                    run("train", "--spec", EXAMPLES / "nab/spec.toml", "--input", parts[0], "--output", model,
                        "--shingle", shingle)
                    run("calibrate", "--model", model, "--input", parts[1], "--threshold", quantile)
                    row(name + (f", shingle {shingle}" if shingle > 1 else ""), parts[2])


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
