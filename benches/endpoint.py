"""Draws what the bench `endpoint` prints (standard input) as an SVG (the argument), and prints the
tables of docs/endpoint.md.

    cargo bench --bench endpoint | python3 benches/endpoint.py docs/endpoint.svg
"""

import json
import math
import sys

WIDTH, HEIGHT, LEFT, TOP, PLOT_W, PLOT_H = 860, 520, 84, 84, 560, 360
INK, FAINT, GRID = "#1f2328", "#656d76", "#d8dee4"
COLOURS = ["#0b62c4", "#b35900", "#8250df", "#116329", "#a40e26"]


def shown(ms):
    if ms < 1:
        return f"{ms * 1000:.3g} µs"
    return f"{ms:.3g} ms" if ms < 1000 else f"{ms / 1000:.3g} s"


def thousands(number):
    return f"{number:,.0f}"


def dollars(cost):
    return f"{cost:.2g}" if cost < 0.1 else f"{cost:.2f}"


def table(heads, rows):
    head = f"| {' | '.join(heads)} |"
    print(f"\n{head}")
    print("|---" * (head.count("|") - 1) + "|")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def picture(series, path):
    batches = [batch for batch, _ in series[0][1]]
    times = [ms for _, points in series for _, ms in points]
    low = 10 ** math.floor(math.log10(min(times)))
    high = 10 ** math.ceil(math.log10(max(times)))
    span = math.log(batches[-1] / batches[0])
    x = lambda batch: LEFT + 12 + (PLOT_W - 24) * math.log(batch / batches[0]) / span
    y = lambda ms: TOP + PLOT_H * (1 - math.log(ms / low) / math.log(high / low))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" font-family="system-ui, -apple-system, Helvetica, Arial, sans-serif">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
    ]

    def text(x, y, words, size=12, anchor="start", fill=INK, weight="normal"):
        parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{fill}" '
            f'font-weight="{weight}">{words}</text>'
        )

    text(LEFT, 30, "How long a batch takes to score", 15, weight="600")
    text(LEFT, 50, "medians; 3 features, 100 trees of 256; a log scale on both sides", 11, fill=FAINT)
    for power in range(round(math.log10(low)), round(math.log10(high)) + 1):
        ms = 10.0**power
        parts.append(
            f'<line x1="{LEFT}" y1="{y(ms):.1f}" x2="{LEFT + PLOT_W}" y2="{y(ms):.1f}" stroke="{GRID}"/>'
        )
        text(LEFT - 10, y(ms) + 4, shown(ms), 11, "end", FAINT)
    for batch in batches:
        text(x(batch), TOP + PLOT_H + 20, thousands(batch), 11, "middle", FAINT)
    text(LEFT + PLOT_W / 2, TOP + PLOT_H + 44, "records in the batch", 12, "middle", FAINT)
    # Names beside the ends of the lines, moved apart where they would meet.
    names = sorted(range(len(series)), key=lambda at: y(series[at][1][-1][1]))
    place = -math.inf
    for at in names:
        name, points = series[at]
        colour = COLOURS[at]
        path_of = " ".join(f"{x(batch):.1f},{y(ms):.1f}" for batch, ms in points)
        parts.append(
            f'<polyline points="{path_of}" fill="none" stroke="{colour}" stroke-width="2" '
            f'stroke-linejoin="round"/>'
        )
        for batch, ms in points:
            parts.append(
                f'<circle cx="{x(batch):.1f}" cy="{y(ms):.1f}" r="4" fill="#ffffff" stroke="{colour}" '
                f'stroke-width="2"/>'
            )
        end = y(points[-1][1])
        place = max(end, place + 30)
        parts.append(
            f'<line x1="{x(batches[-1]) + 6:.1f}" y1="{end:.1f}" x2="{LEFT + PLOT_W + 14}" '
            f'y2="{place:.1f}" stroke="{colour}" stroke-width="1"/>'
        )
        text(LEFT + PLOT_W + 18, place - 2, name, 12, fill=colour, weight="600")
        text(LEFT + PLOT_W + 18, place + 12, f"{shown(points[0][1])} to {shown(points[-1][1])}", 11, fill=FAINT)
    parts.append("</svg>\n")
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(parts))


def main():
    runs = [json.loads(line) for line in sys.stdin if line.startswith("{")]
    alone = runs[0]["report"]["measured"]
    rows = []
    for one in alone:
        local, endpoint = one["in_process"], one["endpoint"]
        rows.append(
            [thousands(one["batch"])]
            + [shown(times[key]) for times in (local, endpoint) for key in ("p50_ms", "p99_ms")]
            + [thousands(local["records_per_sec"]), thousands(endpoint["records_per_sec"])]
            + [f"**{one['ratio']:.1f}**"]
        )
    print(f"medians and 99th percentiles of {runs[0]['report']['rounds']} rounds, five in a row")
    table(
        ["batch", "in process, p50", "p99", "endpoint, p50", "p99", "records/s in process", "by endpoint", "ratio"],
        rows,
    )
    later = runs[1:]
    table(
        ["batch", "in process"] + [f"+ {run['delay_ms']} ms: p50, p99 | ratio" for run in later],
        [
            [thousands(one["batch"]), shown(one["in_process"]["p50_ms"])]
            + [
                f"{shown(of['endpoint']['p50_ms'])}, {shown(of['endpoint']['p99_ms'])} | {of['ratio']:.1f}"
                for of in (run["report"]["measured"][at] for run in later)
            ]
            for at, one in enumerate(alone)
        ],
    )
    table(
        ["batch", "in process"] + [f"endpoint + {run['delay_ms']} ms" for run in runs],
        [
            [thousands(one["batch"]), dollars(one["costs"]["in_process"])]
            + [dollars(run["report"]["measured"][at]["costs"]["endpoint"]) for run in runs]
            for at, one in enumerate(alone)
        ],
    )
    series = [("in process", [(one["batch"], one["in_process"]["p50_ms"]) for one in alone])]
    for run in runs:
        delay = run["delay_ms"]
        name = f"endpoint + {delay} ms" if delay else "endpoint, loopback"
        measured = run["report"]["measured"]
        series.append((name, [(one["batch"], one["endpoint"]["p50_ms"]) for one in measured]))
    picture(series, sys.argv[1])


main()
