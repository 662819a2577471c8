"""What the peers share: how a contestant is led (as src/contest.rs), and the bytes it is given."""

import json
import os
import pathlib
import resource
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor

PATTERN_BYTES = 1 << 20
MASK = (1 << 64) - 1
# A user of a client that takes one small object a call runs it from some threads.
SHARD_THREADS = 16


def pattern():
    """The bytes of src/job.rs: xorshift64."""
    state, words = 0x9E3779B97F4A7C15, []
    for _ in range(PATTERN_BYTES // 8):
        state ^= (state << 13) & MASK
        state ^= state >> 7
        state ^= (state << 17) & MASK
        words.append(state.to_bytes(8, "little"))
    return b"".join(words)


class Job:
    def __init__(self, told):
        self.work = told["work"]
        self.storage = told.get("storage", "")
        self.folder = told.get("folder", "")
        self.endpoint = f"http://{told.get('host', '127.0.0.1')}:{told.get('port', 0)}"
        self.size_bytes = told.get("size_bytes", 0)
        self.streams = told.get("streams", 1)
        self.part_bytes = told.get("part_bytes", 0) or 8 << 20
        self.threads = told.get("threads", 1)
        self.way = told.get("way", "")
        self.count = told.get("count", 0)

    @property
    def small(self):
        return self.count > 0

    @property
    def objects(self):
        """How many objects a pass has."""
        return self.count or self.streams

    @property
    def object_bytes(self):
        return self.size_bytes // self.objects

    def names(self):
        return [f"object-{number}" for number in range(self.objects)]

    def path(self, name):
        return os.path.join(self.folder, name)

    def data(self):
        """Bytes for one object: every stream may send the same."""
        block = pattern()
        return (block * (self.object_bytes // len(block) + 1))[: self.object_bytes]

    def each(self, call):
        """Runs `call(name)` for all objects: a thread a stream, or a pool for the small ones."""
        names = self.names()
        if len(names) == 1:
            call(names[0])
            return
        with ThreadPoolExecutor(SHARD_THREADS if self.small else self.streams) as pool:
            for _ in pool.map(call, names):
                pass

    # What a pass needs first, and leaves: not measured.

    def clear(self):
        if not self.folder:
            return
        if self.small:
            set_aside(self.folder)
            return
        for entry in pathlib.Path(self.folder).iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        fsync_folder(self.folder)

    def drop_cache(self):
        for name in self.names() if self.folder else []:
            drop(self.path(name))


def set_aside(folder):
    """As src/local.rs."""
    if not os.listdir(folder):
        return
    number = 0
    while os.path.exists(f"{folder}.aside-{number}"):
        number += 1
    os.rename(folder, f"{folder}.aside-{number}")
    os.mkdir(folder)
    fsync_folder(os.path.dirname(folder))


def drop(path):
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def fsync(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def fsync_folder(folder):
    fsync(folder)


def write_files(job):
    """The objects that a reader finds, durable, so that dropping the cache drops all of it."""
    data = job.data()
    for name in job.names():
        with open(job.path(name), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


def status_bytes(name):
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(name))


def cpu_seconds(who):
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def lead(before, run, version, checked="nothing"):
    """Makes one pass for each line that is read."""
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    start_bytes = status_bytes("VmRSS:")
    print(json.dumps({"ready": True, "version": version, "checked": checked}), flush=True)
    for _ in sys.stdin:
        before()
        cpu, started = cpu_seconds(resource.RUSAGE_SELF), time.perf_counter()
        run()
        seconds, cpu = time.perf_counter() - started, cpu_seconds(resource.RUSAGE_SELF) - cpu
        peak = max(0, status_bytes("VmHWM:") - start_bytes)
        print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "peak_bytes": peak}), flush=True)


def lead_job(job, write, read, version, checked="nothing"):
    """As `lead`, for a client that writes or reads one object a call: `write(name, data)`, `read(name)`."""
    if job.work == "write":
        data = job.data()

        def one(name):
            write(name, data)
            if job.folder and job.way != "loose":
                fsync(job.path(name))

        def run():
            job.each(one)
            if job.folder and job.way != "loose":
                fsync_folder(job.folder)

        lead(job.clear, run, version, checked)
        return
    if job.folder:
        write_files(job)

    def one(name):
        got = len(read(name))
        if got != job.object_bytes:
            raise SystemExit(f"{name} has {got} bytes instead of {job.object_bytes}")

    lead(job.drop_cache, lambda: job.each(one), version, checked)


def job_of_arguments():
    return Job(json.loads(sys.argv[1]))
