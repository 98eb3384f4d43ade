"""The function and two handlers in Python take turns on the same event; prints the table of
docs/performance.md. `run` beside it sets everything up."""

import sys

from peer import Peer

ROUNDS = 15


def main():
    bench, folder, python = sys.argv[1:]
    names = {
        "isolation": "Python, scikit-learn's IsolationForest",
        "random-cut": "Python, a random cut forest (krcf)",
    }
    handlers = [Peer([python, "python_handler.py", folder, kind]) for kind in names]
    peers = [Peer([bench, "rounds"]), *handlers]
    for _ in range(ROUNDS):
        for peer in peers:
            peer.round()
    sawlog, *others = (peer.medians()[0] for peer in peers)
    print(f"\nCPU microseconds a record, all threads, medians of {ROUNDS} rounds in turns\n")
    print("| handler | µs a record | records a second | / Sawlog (target: at least 10) |")
    print("|---|---|---|---|")
    for name, micros in zip(("Sawlog", *names.values()), (sawlog, *others)):
        print(f"| {name} | {micros:,.2f} | {1e6 / micros:,.0f} | {micros / sawlog:.1f} |")


main()
