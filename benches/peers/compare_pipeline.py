"""The function and a handler in Python take turns on the same event; prints the table of
docs/performance.md. `run` beside it sets everything up."""

import sys

from peer import Peer

ROUNDS = 15


def main():
    bench, folder, python = sys.argv[1:]
    peers = [Peer([bench, "rounds"]), Peer([python, "python_handler.py", folder])]
    for _ in range(ROUNDS):
        for peer in peers:
            peer.round()
    (sawlog,), (handler,) = (peer.medians() for peer in peers)
    print(f"\nCPU microseconds a record, one thread, medians of {ROUNDS} rounds in turns\n")
    print("| handler | µs a record | records a second |")
    print("|---|---|---|")
    for name, micros in (("Sawlog", sawlog), ("Python, scikit-learn's IsolationForest", handler)):
        print(f"| {name} | {micros:,.2f} | {1e6 / micros:,.0f} |")
    print(f"\nPython / Sawlog = {handler / sawlog:.1f} (target: at least 10)")


main()
