#!/usr/bin/env python3
"""How fast one machine trains: the tables and the picture of docs/training.md, in one run.

    benches/training.py SAWLOG PYTHON docs/training.svg

SAWLOG is the release binary, PYTHON one with benches/peers/requirements.txt. Each figure is the median of
runs that take turns; the inputs are generated JSON lines, read once before, so that they are in memory.
Times are of whole processes, by the clock; memory is the process's peak (VmHWM).
"""

import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
FILE_ROWS = 1_000_000
SIZES = [100_000, 1_000_000, 10_000_000]
ROUNDS = 5
SPEC = """format = "json"
[[feature]]
name = "duration_ms"
field = "/duration_ms"
transform = "log1p"
[[feature]]
name = "bytes"
field = "/bytes"
transform = "log1p"
[[feature]]
name = "status"
field = "/status"
transform = "none"
"""


def generate(folder):
    """A million lines, a file with the first of them, and ten names for the million: ten inputs."""
    draw = random.Random(7)
    paths = [f"/api/v1/{name}" for name in ("orders", "users", "items", "search", "health")]
    with open(folder / "million", "w", encoding="ascii") as file, open(folder / "few", "w", encoding="ascii") as few:
        for at in range(FILE_ROWS):
            line = (
                f'{{"ts":{1_795_255_200_000 + at},"path":"{draw.choice(paths)}","status":{draw.choice((200, 200, 200, 304, 404, 500))},'
                f'"duration_ms":{draw.lognormvariate(3, 1):.3f},"bytes":{int(draw.lognormvariate(7, 2))},"host":"web-{at % 16:02}"}}\n'
            )
            file.write(line)
            if at < SIZES[0]:
                few.write(line)
    for copy in range(10):
        os.link(folder / "million", folder / f"million-{copy}")
    return (folder / "million").stat().st_size / FILE_ROWS


def run(command, folder):
    """Seconds by the clock, and peak memory in MB."""
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = process.stderr.read().decode()
    _, status, used = os.wait4(process.pid, 0)
    taken = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{command}: {said}")
    return taken, used.ru_maxrss / 1024


def measure(cases, folder, rounds=ROUNDS):
    """Median seconds and greatest memory of each case, all in turns."""
    runs = {name: [] for name in cases}
    for turn in range(rounds):
        for name in sorted(cases, key=lambda name: hash((turn, name))):
            runs[name].append(run(cases[name], folder))
    return {name: (statistics.median(t for t, _ in of), max(m for _, m in of)) for name, of in runs.items()}


def main(sawlog, python, picture):
    sawlog = str(pathlib.Path(sawlog).resolve())
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "spec.toml").write_text(SPEC)
        bytes_a_row = generate(folder)
        ten = [f"million-{copy}" for copy in range(10)]
        inputs = dict(zip(SIZES, (["few"], ["million"], ten)))

        def sketch(rows, *more):
            return [sawlog, "sketch", "--spec", "spec.toml", "--output", "sketch", *more, "--input", *inputs[rows]]

        def discard(rows):
            return [sawlog, "sketch", "--spec", "spec.toml", "--discard", "--input", *inputs[rows]]

        cases = {("few trees", rows): sketch(rows) for rows in SIZES}
        cases |= {("parse", rows): discard(rows) for rows in SIZES}
        cases |= {("many trees", rows): sketch(rows, "--trees", "1000") for rows in SIZES}
        cases[("one thread", SIZES[1])] = sketch(SIZES[1], "--threads", "1")
        cases[("train", SIZES[1])] = [sawlog, "train", "--spec", "spec.toml", "--input", "million", "--output", "model"]
        run(cases["parse", SIZES[2]], folder)
        results = measure(cases, folder)
        peer = [python, str(HERE / "peers" / "pandas_training.py"), "million"]
        results |= measure({("pandas", SIZES[1]): peer, ("train", SIZES[1]): cases["train", SIZES[1]]}, folder, 3)
    tables(results, bytes_a_row)
    draw(results, picture)


def tables(results, bytes_a_row):
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores; {bytes_a_row:.0f} bytes a row\n")
    print("| rows | parsed and thrown away, s | sampled, 100 trees, s | ratio | 1,000 trees, s | ratio to 100 | µs a row | peak MB, 100 trees | peak MB, 1,000 |")
    print("|---|---|---|---|---|---|---|---|---|")
    for rows in SIZES:
        (parse, _), (few, memory), (many, more) = (results[name, rows] for name in ("parse", "few trees", "many trees"))
        print(f"| {rows:,} | {parse:.3f} | {few:.3f} | {few / parse:.2f} | {many:.3f} | {many / few:.2f} | {1e6 * few / rows:.2f} | {memory:.0f} | {more:.0f} |")
    train, pandas = results["train", SIZES[1]], results["pandas", SIZES[1]]
    print("\n| 1,000,000 rows to a model | s | peak MB |\n|---|---|---|")
    print(f"| `sawlog train` | {train[0]:.2f} | {train[1]:.0f} |")
    print(f"| pandas and scikit-learn | {pandas[0]:.2f} | {pandas[1]:.0f} |")
    one = results["one thread", SIZES[1]][0]
    print(f"\n{pandas[0] / train[0]:.1f} times as fast; one thread instead of {cores}: {one:.2f} s, {one / results['few trees', SIZES[1]][0]:.2f} times as long")


INK, FAINT, GRID, LINE, OTHER = "#1f2328", "#656d76", "#d8dee4", "#0b62c4", "#8250df"
WIDTH, HEIGHT, LEFT, TOP, PANEL_W, PANEL_H = 860, 330, 64, 62, 340, 210


def draw(results, picture):
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="system-ui, -apple-system, Helvetica, Arial, sans-serif">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
    ]

    def text(x, y, words, size=11, anchor="start", fill=FAINT, weight="normal"):
        parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{fill}" font-weight="{weight}">{words}</text>'
        )

    def panel(left, title, marks, place, series, label):
        text(left, TOP - 16, title, 13, fill=INK, weight="600")
        for mark in marks:
            y = place(mark)
            parts.append(f'<line x1="{left}" y1="{y:.1f}" x2="{left + PANEL_W}" y2="{y:.1f}" stroke="{GRID}"/>')
            text(left - 8, y + 4, f"{mark:g}", anchor="end")
        x = {rows: left + 20 + at * (PANEL_W - 40) / 2 for at, rows in enumerate(SIZES)}
        for rows in SIZES:
            text(x[rows], TOP + PANEL_H + 20, f"{rows:,} rows", anchor="middle")
        for colour, dash, values in series:
            points = " ".join(f"{x[rows]:.1f},{place(value):.1f}" for rows, value in zip(SIZES, values))
            dashes = f' stroke-dasharray="{dash}"' if dash else ""
            parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>')
            for rows, value in zip(SIZES, values):
                parts.append(f'<circle cx="{x[rows]:.1f}" cy="{place(value):.1f}" r="3.5" fill="#ffffff" stroke="{colour}" stroke-width="2"/>')
        for rows, value in zip(SIZES, series[label][2]):
            text(x[rows] + 9, place(value) + 13, f"{value:.3g}", fill=INK, weight="600")

    import math

    seconds = {name: [results[name, rows][0] for rows in SIZES] for name in ("parse", "few trees", "many trees")}
    memory = {name: [results[name, rows][1] for rows in SIZES] for name in ("few trees", "many trees")}
    low = 10 ** math.floor(math.log10(min(min(of) for of in seconds.values())))
    high = 10 ** math.ceil(math.log10(max(max(of) for of in seconds.values())))
    decades = [low * 10**power for power in range(round(math.log10(high / low)) + 1)]
    panel(
        LEFT, "seconds", decades,
        lambda value: TOP + PANEL_H * (1 - math.log(value / low) / math.log(high / low)),
        [(FAINT, "3 4", seconds["parse"]), (LINE, "", seconds["few trees"]), (OTHER, "", seconds["many trees"])], 1,
    )
    most = 50 * math.ceil(max(memory["many trees"]) / 50)
    panel(
        LEFT + PANEL_W + 72, "peak memory, MB", [most * part / 4 for part in range(5)],
        lambda value: TOP + PANEL_H * (1 - value / most),
        [(LINE, "", memory["few trees"]), (OTHER, "", memory["many trees"])], 0,
    )
    y = HEIGHT - 16
    for left, colour, words in ((LEFT, FAINT, "parsed and thrown away (dotted)"), (LEFT + 230, LINE, "sampled, 100 trees × 256"), (LEFT + 430, OTHER, "sampled, 1,000 trees × 256")):
        parts.append(f'<line x1="{left}" y1="{y - 4}" x2="{left + 22}" y2="{y - 4}" stroke="{colour}" stroke-width="2"/>')
        text(left + 30, y, words)
    parts.append("</svg>\n")
    pathlib.Path(picture).write_text("\n".join(parts), encoding="utf-8")


if len(sys.argv) != 4:
    sys.exit(__doc__)
main(*sys.argv[1:])
