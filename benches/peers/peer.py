"""A process that takes its turn: it says `ready`, and then for each line that it gets its times."""

import statistics
import subprocess
import sys


class Peer:
    def __init__(self, command):
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.rounds = []
        # One trains after the other.
        self.answer("ready")

    def answer(self, want=None):
        line = self.process.stdout.readline().strip()
        if not line or (want and line != want):
            self.process.kill()
            sys.exit(f"{self.process.args[0]} said {line!r}: {self.process.stderr.read()}")
        return line

    def round(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.rounds.append([float(nanos) / 1e3 for nanos in self.answer().split()])

    def medians(self):
        self.process.stdin.close()
        self.process.wait()
        return [statistics.median(times) for times in zip(*self.rounds)]
