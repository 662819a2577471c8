#!/usr/bin/env python3
"""Compares the engine with fio on one disk, in turns, and keeps the table in benches/record/.

    benches/against_fio.py [DIRECTORY] [--size 2GiB] [--rounds 5]

fio (a Debian package) writes and reads with psync, blocks of 8 MiB and one job; its file is new each
time and preallocated, and the closing fsync counts. `syncline bench` follows in each round, with its
raw loops and ways in. Rates are medians over the rounds, ratios are medians of the rounds' ratios.
"""

import argparse
import datetime
import json
import os
import pathlib
import statistics
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
SYNCLINE = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "syncline"
MIB = 1 << 20
UNITS = {"MiB": MIB, "GiB": 1 << 30}


def size(text):
    number, unit = text[:-3], text[-3:]
    return int(number) * UNITS[unit]


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def fio(directory, direction, direct, size_bytes):
    """One pass of fio: MiB/s and CPU seconds per GB."""
    path = directory / "fio"
    if direction == "write":
        path.unlink(missing_ok=True)
    elif not direct:
        os.posix_fadvise(os.open(path, os.O_RDONLY), 0, 0, os.POSIX_FADV_DONTNEED)
    report = json.loads(output(
        "fio", "--name=fio", f"--filename={path}", f"--rw={direction}", "--bs=8M", f"--size={size_bytes}",
        f"--direct={direct:d}", "--ioengine=psync", "--end_fsync=1", "--fallocate=posix", "--invalidate=1",
        "--output-format=json"))
    job = report["jobs"][0]
    seconds = job[direction]["runtime"] / 1000
    cpu = (job["usr_cpu"] + job["sys_cpu"]) / 100 * seconds
    return size_bytes / MIB / seconds, cpu / (size_bytes / 1e9)


def engine(uri, size_bytes):
    """One round of `syncline bench`: {(direction, row): (MiB/s, CPU s/GB)}, and the report itself."""
    report = json.loads(output(str(SYNCLINE), "bench", uri, "--size", str(size_bytes), "--rounds", "1", "--json"))
    rows = {}
    for direction in ("write", "read"):
        for row in report[direction]:
            name = row["way"] if row["ceiling"] else f"{row['way']}, {row['checksum'] or 'no checksum'}"
            rows[direction, name] = row["mib_per_s"], row["cpu_s_per_gb"]
    return rows, report


def measure(directory, scheme, size_bytes, rounds):
    """Lines of the tables of one scheme."""
    samples, direct = {}, scheme == "direct"
    # Once for warming up: the first writes into fresh blocks are far slower.
    for turn in range(rounds + 1):
        found = {("write", "fio"): fio(directory, "write", direct, size_bytes)}
        found["read", "fio"] = fio(directory, "read", direct, size_bytes)
        (directory / "fio").unlink()
        ours, report = engine(f"{scheme}://{directory}/bench", size_bytes)
        found.update(ours)
        print(f"{scheme}: round {turn} of {rounds}, fio {found['write', 'fio'][0]:.0f} MiB/s", flush=True)
        if turn:
            for key, value in found.items():
                samples.setdefault(key, []).append(value)
    machine = f"{report['kernel']}, {report['filesystem']}, {report['cpus']} CPUs, {report['cpu_model']}"
    yield ""
    yield f"* {scheme}: {machine}; mode {report['mode']}; {report['io_threads']} I/O threads"
    for direction in ("write", "read"):
        yield from ["", f"## {scheme}, {direction}", ""]
        yield from ["| | MiB/s | lowest to highest | CPU s/GB | of fio |", "|---|---|---|---|---|"]
        against = samples[direction, "fio"]
        for (way, name), values in samples.items():
            if way == direction:
                rates, cpu = [value[0] for value in values], statistics.median(value[1] for value in values)
                ratio = statistics.median(ours[0] / theirs[0] for ours, theirs in zip(values, against))
                yield (f"| {name} | {statistics.median(rates):.0f} | {min(rates):.0f} to {max(rates):.0f} "
                       f"| {cpu:.3f} | {ratio:.2f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", nargs="?", default=str(ROOT / "target"))
    parser.add_argument("--size", type=size, default=size("2GiB"))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    subprocess.run(["cargo", "build", "--release", "--locked", "--features", "cli"], cwd=ROOT, check=True)
    today = datetime.date.today().isoformat()
    ours = output(str(SYNCLINE), "--version").strip()
    version = output("fio", "--version").strip()
    lines = [f"# against fio, {today}", "", f"* {ours}, {version}, {options.size // MIB} MiB a pass, "
             f"{options.rounds} rounds in turns, memory warm"]
    with tempfile.TemporaryDirectory(dir=options.directory) as scratch:
        for scheme in ("direct", "file"):
            lines += measure(pathlib.Path(scratch), scheme, options.size, options.rounds)
    path = ROOT / "benches" / "record" / f"{today}-against-fio.md"
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
