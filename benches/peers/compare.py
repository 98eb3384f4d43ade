"""Sawlog, AWS's Java library and scikit-learn's IsolationForest take turns on the same points; prints
the table of docs/performance.md. `run` beside it sets everything up."""

import sys

from peer import Peer

ROUNDS = 21
NAMES = ("Sawlog", "AWS Java", "IsolationForest")
TARGETS = {3: ("≥ 15", "> 1"), 8: ("≥ 12", ""), 32: ("≥ 12", "")}


def compare(bench, folder, python, java, features):
    at = [folder, str(features)]
    peers = [
        Peer([bench, "rounds", str(features)]),
        Peer(java + ["AwsForest", *at]),
        Peer([python, "isolation_forest.py", *at]),
    ]
    for _ in range(ROUNDS):
        for peer in peers:
            peer.round()
    return [peer.medians() for peer in peers]


def main():
    bench, folder, python, class_path = sys.argv[1:]
    java = ["java", "-cp", class_path]
    rows = []
    for features, targets in TARGETS.items():
        sawlog, aws, isolation = compare(bench, folder, python, java, features)
        for at, work in enumerate(("one batch of 10,000", "one point a call")):
            cells = [f"{peer[at]:,.2f}" for peer in (sawlog, aws, isolation)]
            ratios = [peer[at] / sawlog[at] for peer in (aws, isolation)]
            wanted = targets if at == 0 else ("≥ 5", "")
            shown = [
                f"{ratio:,.1f}" + (f" ({target})" if target else "")
                for ratio, target in zip(ratios, wanted)
            ]
            rows.append([str(features), work, *cells, *shown])
    print(f"\nCPU microseconds a point, one thread, medians of {ROUNDS} rounds in turns\n")
    print("| features | work |", " | ".join(NAMES), "| AWS Java / Sawlog | IsolationForest / Sawlog |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        print("|", " | ".join(row), "|")


main()
