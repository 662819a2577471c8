"""Peers that are programs: fio, dd, s5cmd, zstd. One run of the program is one pass.

The job's `client` names it, `way` says which kind: for fio its engine and depth (psync:1, io_uring:4), for
zstd the level. Memory is the program's own peak, with its code.
"""

import json
import os
import resource
import subprocess
import sys
import time

from common import PATTERN_BYTES, Job, cpu_seconds, drop, fsync_folder, pattern

SHARED = "/dev/shm"


def said(*command):
    text = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    return text.splitlines()[0] if text else "unknown"


def fio(job):
    engine, depth = job.way.split(":")
    direct = job.storage == "direct"
    command = [
        "fio", "--name=fio", f"--directory={job.folder}", f"--rw={job.work}", "--bs=8M", f"--size={job.object_bytes}",
        f"--numjobs={job.streams}", "--group_reporting", f"--direct={direct:d}", f"--ioengine={engine}",
        f"--iodepth={depth}", "--end_fsync=1", "--fallocate=posix", "--invalidate=1", "--output-format=json"]

    def measured(text):
        """The program's own time: it takes a while to start and to end."""
        report = json.loads(text)["jobs"][0]
        seconds = report[job.work]["runtime"] / 1000
        # Of the time of all jobs together.
        cpu = (report["usr_cpu"] + report["sys_cpu"]) / 100 * report["job_runtime"] / 1000
        return seconds, cpu

    files = [os.path.join(job.folder, f"fio.{number}.0") for number in range(job.streams)]
    return [command], files, said("fio", "--version"), measured


def dd(job):
    files = [job.path(name) for name in job.names()]
    source = os.path.join(SHARED, f"syncline-compare-{os.getpid()}")
    count = job.object_bytes >> 23
    flags = {"write": "oflag=direct", "read": "iflag=direct"}[job.work] if job.storage == "direct" else None
    commands = []
    for path in files:
        ends = [f"if={source}", f"of={path}", "conv=fdatasync"] if job.work == "write" else [f"if={path}", "of=/dev/null"]
        commands.append(["dd", *ends, "bs=8M", f"count={count}", "status=none", *([flags] if flags else [])])
    return commands, files, said("dd", "--version"), source


def s5cmd(job):
    program = os.path.join(os.path.dirname(sys.executable), "s5cmd")
    source = os.path.join(SHARED, f"syncline-compare-{os.getpid()}")
    base = [program, "--endpoint-url", job.endpoint, "--log", "error"]
    part = ["--part-size", str(job.part_bytes >> 20), "--concurrency", str(job.threads)]
    commands = []
    for name in job.names():
        key = f"s3://bucket/{name}"
        # It reads to a file or a pipe alone; its files are in memory here.
        copy = [source, key] if job.work == "write" else [key, f"{source}-{name}"]
        commands.append([*base, "cp", *part, *copy])
    os.environ.update(AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY="secret", AWS_REGION="us-east-1")
    return commands, [], said(program, "version"), source


def zstd(job):
    source = os.path.join(SHARED, f"syncline-compare-{os.getpid()}")
    target = job.path("object.zst")
    command = ["zstd", "-q", "-f", f"-{job.way}", f"-T{job.threads}", source, "-o", target]
    return [command], [target], said("zstd", "--version"), source


PROGRAMS = {"fio": fio, "dd": dd, "s5cmd": s5cmd, "zstd": zstd}


def pieces(job, path):
    """The bytes of one object, or of a file, in pieces."""
    if path:
        with open(path, "rb") as file:
            while piece := file.read(PATTERN_BYTES):
                yield piece
        return
    block = pattern()
    for _ in range(job.object_bytes // len(block)):
        yield block


def write_pieces(path, pieces):
    with open(path, "wb") as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def run_all(commands):
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    texts = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit(f"{commands[0][0]} failed")
    return texts[0]


def main():
    told = json.loads(sys.argv[1])
    client, job = told.pop("client"), Job(told)
    commands, files, version, source = PROGRAMS[client](job)
    measured = source if callable(source) else None
    source = None if measured else source
    made = []
    if source:
        made = [source, *(f"{source}-{name}" for name in job.names())]
        # Piece by piece: what this process ever held counts as the program's peak.
        write_pieces(source, pieces(job, told.get("file")))
    try:
        if job.work == "read" and job.folder:
            if measured:
                run_all([[word.replace("--rw=read", "--rw=write") for word in command] for command in commands])
            else:
                for path in files:
                    write_pieces(path, pieces(job, None))
        print(json.dumps({"ready": True, "version": version}), flush=True)
        for _ in sys.stdin:
            if job.folder and job.work == "write":
                job.clear()
            for path in files if job.work == "read" else []:
                drop(path)
            cpu, started = cpu_seconds(resource.RUSAGE_CHILDREN), time.perf_counter()
            text = run_all(commands)
            if client == "zstd":
                fd = os.open(files[0], os.O_RDONLY)
                os.fsync(fd)
                os.close(fd)
                fsync_folder(job.folder)
            seconds, cpu = time.perf_counter() - started, cpu_seconds(resource.RUSAGE_CHILDREN) - cpu
            if measured:
                seconds, cpu = measured(text)
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
            print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "peak_bytes": peak}), flush=True)
    finally:
        for path in made:
            if os.path.exists(path):
                os.unlink(path)


if __name__ == "__main__":
    main()
