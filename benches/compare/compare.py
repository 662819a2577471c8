#!/usr/bin/env python3
"""Compares Syncline with its peers and with the limits of the machine, in turns, and keeps the table.

    benches/compare/compare.py                     everything: a minute or more for each of some thirty cells
    benches/compare/compare.py --cells 's3|az'     the cells whose title matches
    benches/compare/compare.py --smoke             ours and the limits, small and once: does it still run?

Builds ours, installs the peers (wheels, below the target folder), starts an endpoint that forgets what it gets
and makes up what it sends, and lets all contestants of a cell take turns: each is a process of its own, makes
one pass that does not count, and then one in each round. Runs of some cells are added to the day's record. Memory is warm: sources and targets are touched
before, but peers return what they read in memory of their own. Files are new in each pass; what is read was
dropped from the page cache. Where a peer does not make its files durable, the harness syncs them within the
measured time.

Prints Markdown, and keeps it with all samples in benches/record/DATE-compare.{md,json} and a plot beside it.
Needs Debian's fio, zstd, eatmydata and iproute2.
"""

import argparse
import datetime
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import venv

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
sys.path.insert(0, str(HERE))

from contest import cells, endpoint, machine, table  # noqa: E402
from contest.race import race  # noqa: E402

MIB = 1 << 20
UNITS = {"MiB": MIB, "GiB": 1 << 30}
# What the picture shows.
PLOTTED = ["direct, write, one object", "file, write, one object", "file, write, 10,000 objects of 64 KiB",
           "s3, write, one object", "az, write, one object", "s3, write, 10,000 objects of 64 KiB",
           "s3, read, one object", "direct, read, one object", "s3, read, 10,000 objects of 64 KiB"]
# One cell for each piece of code of ours.
SMOKE_CELLS = "^(memory|(direct|s3), .*, one object|az, write, 4 .*|(file|s3), read, .* 64 KiB|.* ranks)$"
NEEDED = ["fio", "zstd", "eatmydata", "ip", "tc"]


def size(text):
    return int(text[:-3]) * UNITS[text[-3:]]


def build():
    subprocess.run(["cargo", "build", "--release", "--locked", "--quiet"], cwd=HERE, check=True,
                   env={**os.environ, "CARGO_TARGET_DIR": str(TARGET / "compare")})
    return str(TARGET / "compare" / "release" / "syncline-compare")


def interpreter():
    """A Python that has the peers."""
    folder = TARGET / "compare-venv"
    python, stamp, wanted = folder / "bin" / "python", folder / "requirements.txt", HERE / "requirements.txt"
    if not stamp.exists() or stamp.read_text() != wanted.read_text():
        print("installing the peers", file=sys.stderr, flush=True)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary",
                        ":all:", "--requirement", wanted], check=True)
        shutil.copy(wanted, stamp)
    return str(python)


def compiler_library():
    """A file that compresses as programs do, which every machine with Rust has."""
    root = subprocess.run(["rustc", "--print", "sysroot"], check=True, capture_output=True, text=True).stdout.strip()
    return max(pathlib.Path(root, "lib").glob("librustc_driver-*.so"), key=lambda path: path.stat().st_size)


def plan(options):
    """(maker of cells, where the endpoint is), in the order of the table."""
    large, small, near = options.size, options.shards, cells.NEAR
    yield lambda tools: [cells.limits(tools, large)], near
    for work in ("write", "read"):
        yield lambda tools, a=("file", work, small): [cells.shards(tools, *a)], near
    for storage in ("direct", "file"):
        for work in ("write", "read"):
            for streams in (1, cells.STREAMS_MAX):
                yield lambda tools, a=(storage, work, large, streams): [cells.local(tools, *a)], near
    for storage in ("s3", "az"):
        for work in ("write", "read"):
            for streams in (1, cells.STREAMS_MAX):
                yield lambda tools, a=(storage, work, large, streams): [cells.server(tools, *a)], near
    for where in (cells.LINK, cells.FAR):
        for work in ("write", "read"):
            yield lambda tools, a=("s3", work, large, 1, where): [cells.server(tools, *a)], where
    for work in ("write", "read"):
        yield lambda tools, a=("s3", work, small): [cells.shards(tools, *a)], near
    library = compiler_library()
    yield lambda tools: [cells.compressed(tools, str(library), library.stat().st_size)], near
    yield lambda tools: cells.safety(tools, large), near
    for count in options.ranks:
        yield lambda tools, n=count: [cells.ranks(tools, n)], near


def run(options, tools):
    """All cells that were asked for, with their samples."""
    done = []
    for make, where in plan(options):
        wanted = [cell for cell in make(tools) if re.search(options.cells, cell.title)]
        if not wanted:
            continue
        with endpoint.serving(tools, wanted[0].object_bytes, where):
            # Made again: now it is known where the endpoint is.
            for cell in make(tools):
                if re.search(options.cells, cell.title):
                    done.append(measure(options, tools, cell))
    return done


def measure(options, tools, cell):
    if options.smoke:
        cell.contestants = [row for row in cell.contestants if row.kind != "peer" and row.command[0] != "eatmydata"]
    scratch = pathlib.Path(tempfile.mkdtemp(dir=options.scratch))
    # Each contestant has a folder of its own.
    for number, row in enumerate(cell.contestants):
        own = scratch / str(number)
        own.mkdir()
        row.command = [word.replace(cells.OWN_FOLDER, str(own)) for word in row.command]
    race(cell.title, cell.contestants, options.rounds)
    # ext4 searches for minutes past the inodes of many removed files: those stay until all is done.
    if cell.objects <= cells.STREAMS_MAX:
        shutil.rmtree(scratch)
    return cell


def tell(options, tools, done, earlier):
    """The record: what was measured now, and of the same day's earlier runs what was not measured again."""
    of_ranks = [cell for cell in done if cell.size_bytes == 0]
    now = [table.told(cell) for cell in done if cell not in of_ranks]
    measured = {cell["title"]: cell for cell in [*earlier.get("cells", []), *now]}
    order = [cell.title for make, _ in plan(options) for cell in make(tools)]
    ranks = {row["ranks"]: row for row in [*earlier.get("ranks", []), *table.rank_rows(of_ranks)]}
    return {"machine": machine.facts(tools, ROOT), "ranks": [ranks[count] for count in sorted(ranks)],
            "cells": [measured[title] for title in order if title in measured]}


def markdown(told):
    facts = told["machine"]
    yield from [f"# Syncline and its peers, {facts['date']}", ""]
    yield from (f"* {name}: {value}" for name, value in facts.items() if name != "date")
    yield ("* rounds in turns after one that does not count; medians; ratios are medians of the rounds' ratios; memory "
           "warm, but what peers return of reads is memory of their own")
    yield ("* peak MiB: how much the resident memory grew beyond the source or target that the harness holds; of "
           "programs, all of the largest process")
    yield ("* the limit: the fastest of the rows without an engine (plain loop, ring, bare socket, one file after the "
           "other)")
    versions = {row["name"].split(",")[0]: row["version"]
                for cell in told["cells"] for row in cell["rows"] if row["version"]}
    yield "* peers: " + ", ".join(f"{name}: {version}" for name, version in versions.items())
    for cell in told["cells"]:
        yield from table.markdown(cell)
    if told["ranks"]:
        yield from table.rank_markdown(told["ranks"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default=str(TARGET), help="where files are written (default: the target folder)")
    parser.add_argument("--size", type=size, default=size("1GiB"), help="bytes of a pass (default 1GiB)")
    parser.add_argument("--shards", type=int, default=10_000, help="small objects of a pass (default 10000)")
    parser.add_argument("--ranks", type=int, nargs="*", default=[100, 1_000, 10_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cells", default="", help="a regular expression of titles")
    parser.add_argument("--smoke", action="store_true", help="ours and the limits, small, once; nothing is kept")
    parser.add_argument("--plot", metavar="JSON", help="only draw the plot of such a record; needs matplotlib")
    options = parser.parse_args()
    if options.plot:
        from contest import plot
        plot.draw(pathlib.Path(options.plot).with_suffix(".svg"), json.loads(pathlib.Path(options.plot).read_text()), PLOTTED)
        return
    if options.smoke:
        options.size, options.shards, options.ranks, options.rounds = 64 * MIB, 100, [100], 1
        options.cells = options.cells or SMOKE_CELLS
    else:
        missing = [name for name in NEEDED if not shutil.which(name)]
        if missing:
            sys.exit(f"compare.py: install {' '.join(missing)} (Debian: fio zstd eatmydata iproute2)")
    os.makedirs(options.folder, exist_ok=True)
    tools = cells.Tools(build(), "" if options.smoke else interpreter(), options.folder)
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="syncline-compare-") as options.scratch:
        done = run(options, tools)
    if not done:
        sys.exit(f"compare.py: no cell has a title that matches {options.cells!r}")
    record = ROOT / "benches" / "record" / f"{datetime.date.today().isoformat()}-compare"
    earlier = record.with_suffix(".json")
    earlier = json.loads(earlier.read_text()) if earlier.exists() and not options.smoke else {}
    told = tell(options, tools, done, earlier)
    print("\n".join(markdown(told)))
    failed = [(row.kind, f"{cell.title}: {row.name}: {row.failure}")
              for cell in done for row in cell.contestants if row.failure]
    if options.smoke:
        rows = sum(len(cell.contestants) for cell in done)
        print(f"\n{rows - len(failed)} passed, {len(failed)} failed")
    else:
        record.with_suffix(".md").write_text("\n".join(markdown(told)) + "\n")
        record.with_suffix(".json").write_text(json.dumps(told, indent=1) + "\n")
        picture = [tools.python, str(HERE / "compare.py"), "--plot", str(record.with_suffix(".json"))]
        subprocess.run(picture, check=True)
    ours = [text for kind, text in failed if kind == "ours" or options.smoke]
    sys.exit("\n".join(ours) or 0)


if __name__ == "__main__":
    main()
