#!/usr/bin/env python3
"""Runs the benches and keeps the result: benches/record/<date>-<bench>.md, one table for each group.

    benches/record.py [checksum] [pipeline] [local]     (default: all)

Each row is compared with the fastest row of its group that is named `ceiling`. The machine, the
kernel and the filesystem stand above the tables. SYNCLINE_BENCH_DIR and SYNCLINE_BENCH_SIZE are
those of the benches.
"""

import datetime
import json
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
BENCHES = ["checksum", "pipeline", "local"]
MIB = 1 << 20


def run(bench):
    """Runs one bench; returns the lines it prints about the machine."""
    shutil.rmtree(TARGET / "criterion", ignore_errors=True)
    command = ["cargo", "bench", "--locked", "--bench", bench]
    about = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            if line.startswith("# "):
                about.append(line[2:].strip())
    if process.returncode != 0:
        sys.exit(f"record.py: {' '.join(command)} failed")
    return about


def results():
    """What Criterion measured: (group, row, bytes, median seconds, low, high), in the order of the run."""
    rows = []
    for path in (TARGET / "criterion").glob("**/new/estimates.json"):
        about = json.loads((path.parent / "benchmark.json").read_text())
        median = json.loads(path.read_text())["median"]
        interval = median["confidence_interval"]
        seconds = [nanos / 1e9 for nanos in (median["point_estimate"], interval["lower_bound"], interval["upper_bound"])]
        row = about["function_id"] or about["value_str"]
        rows.append((path.stat().st_mtime, about["group_id"], row, about["throughput"]["Bytes"], *seconds))
    return [row[1:] for row in sorted(rows)]


def table(rows):
    ceiling = min(seconds for _, row, _, seconds, _, _ in rows if row.startswith("ceiling"))
    yield f"| {rows[0][2] // 1024} KiB each | MiB/s | 95 % interval | of the ceiling |"
    yield "|---|---|---|---|"
    for _, row, size_bytes, seconds, low, high in rows:
        rate = [size_bytes / MIB / each for each in (seconds, high, low)]
        yield f"| {row} | {rate[0]:.0f} | {rate[1]:.0f} to {rate[2]:.0f} | {ceiling / seconds:.2f} |"


def record(bench):
    about = run(bench)
    rows = results()
    today = datetime.date.today().isoformat()
    lines = [f"# {bench}, {today}", "", *(f"* {line}" for line in about)]
    for group in dict.fromkeys(row[0] for row in rows):
        lines += ["", f"## {group}", "", *table([row for row in rows if row[0] == group])]
    path = ROOT / "benches" / "record" / f"{today}-{bench}.md"
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    print(f"recorded in {path.relative_to(ROOT)}")


def main():
    chosen = sys.argv[1:] or BENCHES
    unknown = sorted(set(chosen) - set(BENCHES))
    if unknown:
        sys.exit(f"record.py: no bench {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    for bench in chosen:
        record(bench)


if __name__ == "__main__":
    main()
