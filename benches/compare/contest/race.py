"""Contestants that take turns: A B A B. Each is a process of its own that lives as long as its cell."""

import json
import queue
import subprocess
import sys
import threading
from dataclasses import dataclass, field

# A pass that takes longer has failed.
PASS_SECONDS_MAX = 300


@dataclass
class Contestant:
    """One row: how it is called, and the command that leads it (src/contest.rs, peers/common.py)."""

    name: str
    command: list
    # `ours`, `limit` or `peer`.
    kind: str = "peer"
    # What it does for the bytes: what it checks, whether it makes them durable by itself.
    note: str = ""
    version: str = ""
    samples: list = field(default_factory=list)
    failure: str = ""


class Process:
    """A running contestant."""

    def __init__(self, contestant):
        self.contestant = contestant
        self.process = subprocess.Popen(contestant.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True)
        self.lines, self.errors = queue.Queue(), []
        threading.Thread(target=self._read, args=(self.process.stdout, self.lines.put), daemon=True).start()
        threading.Thread(target=self._read, args=(self.process.stderr, self.errors.append), daemon=True).start()
        ready = self._line()
        if ready:
            contestant.version = ready.get("version", "")

    @staticmethod
    def _read(stream, take):
        for line in stream:
            take(line)
        take("")

    def _line(self):
        """The next line, or nothing: then it has failed, and says why."""
        try:
            line = self.lines.get(timeout=PASS_SECONDS_MAX)
        except queue.Empty:
            line = ""
        if line.startswith("{"):
            return json.loads(line)
        self.process.kill()
        self.process.wait()
        told = [text.strip() for text in self.errors if text.strip() and not text.startswith("note: ")]
        self.contestant.failure = told[-1] if told else "it ended without a word"
        return None

    def run(self):
        """One pass; its line."""
        if self.contestant.failure:
            return None
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        return self._line()

    def end(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def race(title, contestants, rounds):
    """Lets all of them run `rounds` times in turns, after one pass that does not count."""
    started = []
    try:
        for contestant in contestants:
            started.append(Process(contestant))
        for turn in range(rounds + 1):
            # Another one begins each time: a machine that changes its speed changes it for all.
            order = started[turn % len(started):] + started[:turn % len(started)]
            for number, process in enumerate(order):
                show(title, turn, rounds, number, len(order), process.contestant.name)
                sample = process.run()
                if sample and turn:
                    process.contestant.samples.append(sample)
    finally:
        for process in started:
            process.end()
    show(title, rounds, rounds, 0, 1, "done", last=True)


def show(title, turn, rounds, number, count, name, last=False):
    """A bar on a terminal, a line a cell elsewhere."""
    if sys.stderr.isatty():
        width, done = 30, (turn + number / count) / (rounds + 1)
        bar = "#" * int(done * width)
        print(f"\r{title:<46} [{bar:<{width}}] {name:<40.40}", end="\n" if last else "", file=sys.stderr, flush=True)
    elif last:
        print(f"{title}: {name}", file=sys.stderr, flush=True)
