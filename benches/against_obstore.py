#!/usr/bin/env python3
"""Compares uploads with obstore and a bare socket loop, in turns, and keeps the table in benches/record/.

    benches/against_obstore.py [--size 1GiB] [--rounds 5]

A server on this machine discards what it gets, in the kernel, so that the clients are what is measured:
parts of 16 MiB, four at a time, plain http, CRC32C by the socket loop and the engine (obstore sends no
checksum), from memory that is warm. Each client is a process of its own; its first pass does not count.
Rates are medians over all passes, ratios are medians of the rounds' ratios.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import venv

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
PEERS = ["obstore==0.12.*"]
PASSES = 2
UNITS = {"MiB": 1 << 20, "GiB": 1 << 30}


def size(text):
    return int(text[:-3]) * UNITS[text[-3:]]


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout


def loopback():
    """The benchmark's program, built."""
    told = output("cargo", "build", "--release", "--locked", "--bench", "loopback", "--message-format", "json")
    built = [json.loads(line) for line in told.splitlines() if '"loopback"' in line]
    return [line["executable"] for line in built if line.get("executable")][-1]


def python():
    """An interpreter that has the peers."""
    folder = TARGET / "bench-venv"
    if not (folder / "bin" / "python").exists():
        venv.create(folder, with_pip=True)
        output(str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--only-binary", ":all:", *PEERS)
    return str(folder / "bin" / "python")


def measure(clients, rounds):
    """{client: [[line, ...] of each round]}"""
    samples = {}
    for turn in range(rounds):
        for command in clients:
            for line in output(*command).splitlines():
                line = json.loads(line)
                samples.setdefault(line["client"], [[] for _ in range(rounds)])[turn].append(line)
        print(f"round {turn + 1} of {rounds}", file=sys.stderr, flush=True)
    return samples


def table(samples, against):
    yield "| client | MiB/s | lowest to highest | CPU s/GB | peak MiB | rate to obstore | CPU to socket |"
    yield "|---|---|---|---|---|---|---|"
    socket, peer = against

    def middle(lines, key):
        return statistics.median(line[key] for line in lines)

    for name, rounds in samples.items():
        lines = [line for lines in rounds for line in lines]
        rates = [line["mib_per_s"] for line in lines]
        rate = statistics.median(middle(a, "mib_per_s") / middle(b, "mib_per_s") for a, b in zip(rounds, samples[peer]))
        cpu = statistics.median(
            middle(a, "cpu_s_per_gb") / middle(b, "cpu_s_per_gb") for a, b in zip(rounds, samples[socket]))
        yield (f"| {name} | {statistics.median(rates):.0f} | {min(rates):.0f} to {max(rates):.0f} "
               f"| {middle(lines, 'cpu_s_per_gb'):.3f} | {max(line['peak_mib'] for line in lines)} "
               f"| {rate:.2f} | {cpu:.2f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=size, default=size("1GiB"))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    program, interpreter = loopback(), python()
    server = subprocess.Popen([program, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        rest = [server.stdout.readline().strip(), str(options.size), str(PASSES)]
        clients = [[program, "socket", *rest], [program, "s3", *rest], [program, "az", *rest],
                   [interpreter, str(ROOT / "benches" / "obstore_client.py"), *rest]]
        samples = measure(clients, options.rounds)
    finally:
        server.stdin.close()
        server.wait(timeout=60)
    socket = next(name for name in samples if "socket" in name)
    peer = next(name for name in samples if "obstore" in name)
    today = datetime.date.today().isoformat()
    lines = [f"# uploads to a discarding server on this machine, {today}", "",
             f"* Linux {platform.release()}, {os.cpu_count()} CPUs, loopback; {options.size >> 20} MiB a pass in parts "
             f"of 16 MiB, 4 at a time; {options.rounds} rounds of {PASSES} passes in turns; memory warm",
             "* CRC32C by the socket loop and the engine; obstore sends no checksum",
             "* peak MiB includes the source: the object itself", "", *table(samples, (socket, peer))]
    path = ROOT / "benches" / "record" / f"{today}-against-obstore.md"
    path.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
