"""Draws what the bench `scaling` prints (standard input) as an SVG (the argument), and prints the
tables of docs/performance.md.

    cargo bench --bench scaling | python3 benches/scaling.py docs/scaling.svg
"""

import csv
import math
import sys

USUAL = {"trees": 100, "samples": 256, "features": 3, "batch": 10_000}
TITLES = {
    "trees": "trees",
    "samples": "samples a tree",
    "features": "features",
    "batch": "points in a batch",
}
WIDTH, HEIGHT, LEFT, TOP, PANEL_W, PANEL_H, GAP_X, GAP_Y = 860, 604, 64, 64, 340, 200, 72, 92
INK, FAINT, GRID, LINE = "#1f2328", "#656d76", "#d8dee4", "#0b62c4"


def thousands(number):
    return f"{number:,.0f}"


def micros(number):
    return f"{number:.3g}" if number < 10 else f"{number:.1f}" if number < 100 else f"{number:.0f}"


def decades(low, high):
    return [10.0**power for power in range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)]


class Drawing:
    def __init__(self):
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
            f'height="{HEIGHT}" font-family="system-ui, -apple-system, Helvetica, Arial, sans-serif">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        ]

    def text(self, x, y, words, size=12, anchor="start", fill=INK, weight="normal"):
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{fill}" '
            f'font-weight="{weight}">{words}</text>'
        )

    def line(self, x1, y1, x2, y2, stroke=GRID, dash=""):
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}"{dashes}/>'
        )

    def panel(self, left, top, of, points, low, high):
        first, last = points[0][0], points[-1][0]
        span = math.log(last / first)
        x = lambda at: left + 8 + (PANEL_W - 16) * math.log(at / first) / span
        y = lambda cost: top + PANEL_H * (1 - math.log(cost / low) / math.log(high / low))
        self.text(left, top - 14, TITLES[of], 13, weight="600")
        for decade in decades(low, high):
            self.line(left, y(decade), left + PANEL_W, y(decade))
            self.text(left - 8, y(decade) + 4, f"{decade:g}", 11, "end", FAINT)
        # What a cost in proportion would be, through the usual point.
        usual = dict(points)[USUAL[of]]
        if of != "batch":
            ends = []
            for at in (first, last):
                cost = usual * at / USUAL[of]
                if not low <= cost <= high:
                    cost = min(max(cost, low), high)
                    at = USUAL[of] * cost / usual
                ends.append((x(at), y(cost)))
            self.line(*ends[0], *ends[1], FAINT, "3 4")
        path = " ".join(f"{x(at):.1f},{y(cost):.1f}" for at, cost in points)
        self.parts.append(
            f'<polyline points="{path}" fill="none" stroke="{LINE}" stroke-width="2" stroke-linejoin="round"/>'
        )
        for at, cost in points:
            is_usual = at == USUAL[of]
            fill = LINE if is_usual else "#ffffff"
            self.parts.append(
                f'<circle cx="{x(at):.1f}" cy="{y(cost):.1f}" r="4" fill="{fill}" stroke="{LINE}" stroke-width="2"/>'
            )
            if is_usual or at in (first, last):
                self.text(x(at), y(cost) - 10, micros(cost), 11, "middle", weight="600")
        shown = points[:: max(1, round(len(points) / 7))]
        if points[-1] not in shown:
            shown = [one for one in shown if x(last) - x(one[0]) > 30] + [points[-1]]
        for at, _ in shown:
            self.text(x(at), top + PANEL_H + 18, thousands(at), 11, "middle", FAINT)


def main():
    series = {}
    memory = {}
    for row in csv.DictReader(line for line in sys.stdin if line.count(",") == 3):
        series.setdefault(row["of"], []).append((int(row["at"]), float(row["micros"])))
        memory[row["of"], int(row["at"])] = int(row["memory"])
    costs = [cost for points in series.values() for _, cost in points]
    low, high = 10 ** math.floor(math.log10(min(costs))), 10 ** math.ceil(math.log10(max(costs)))
    drawing = Drawing()
    drawing.text(LEFT, 26, "CPU microseconds a point, one thread", 15, weight="600")
    drawing.text(
        WIDTH - 44, 26, "filled: 100 trees × 256, 3 features, batch of 10,000;  dotted: in proportion",
        11, "end", FAINT,
    )
    for place, (of, points) in enumerate(series.items()):
        left = LEFT + (PANEL_W + GAP_X) * (place % 2)
        top = TOP + 8 + (PANEL_H + GAP_Y) * (place // 2)
        drawing.panel(left, top, of, points, low, high)
    drawing.parts.append("</svg>\n")
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        file.write("\n".join(drawing.parts))
    for of, points in series.items():
        print(f"\n| {TITLES[of]} |", " | ".join(thousands(at) for at, _ in points), "|")
        print("|---" * (len(points) + 1) + "|")
        print("| µs a point |", " | ".join(micros(cost) for _, cost in points), "|")
        if of != "batch":
            cells = (f"{memory[of, at] / 1e6:.3g}" for at, _ in points)
            print("| MB in memory |", " | ".join(cells), "|")


main()
