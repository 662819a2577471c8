#!/usr/bin/env python3
"""What checkpoints of many nodes would need, from what was measured on one: on paper, and by simulation.

    benches/compare/scaling.py [--json] [--full] [--constants FILE.json] [--update] [--check]

Nothing here is a measurement. The constants come from MEASURED, the settings from src/limits.rs, what stores
admit from their documentation (DOCUMENTED), and the rest is assumed (ASSUMED). FILE.json replaces any of the
values by name: {"s3_write_cpu_s_per_gb": 0.3, "latency_s": 0.03}. --full adds the simulations that take longer
(a few minutes), --update puts the tables into benches/SCALING.md, and --check tests the simulator.

The simulation is of events: every request of every process, its waits and its attempts, as
src/backend/http/retry.rs has them, against a store that admits so many requests a second for each partition of
its keys and answers 503 to the others.
"""

import argparse
import heapq
import json
import math
import pathlib
import random
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DOCUMENT = ROOT / "benches" / "SCALING.md"
MIB = 1 << 20
GIB = 1 << 30
GBIT_BYTES = 1e9 / 8

# value, where it comes from
MEASURED = {
    "s3_write_cpu_s_per_gb": (0.326, "benches/record/2026-11-22-against-obstore.md, write_borrowed, plain http"),
    "azure_write_cpu_s_per_gb": (0.339, "the same, az, write_borrowed, CRC-64 and CRC32C"),
    "finalize_file_s_per_10000": (3.5, "src/lib.rs: a finalizer of 10,000 ranks on a busy disk, 2 to 3.5 s"),
    "finalize_bytes_per_rank": (1600, "benches/compare, ranks: peak of the finalizer for each of 10,000 small shards"),
    "connections_per_io_thread": (1, "tests/guards/requests.rs: uploads_use_the_connections_there_are"),
}

# Counted by tests; the programs below must add up to them (--check).
COUNTED = {
    "s3_each_rank": (4, "tests/guards/requests.rs, SAVE: shards of one part, conditions tried before"),
    "s3_fixed": (13, "the same"),
    "azure_each_rank": (5, "the same"),
    "azure_fixed": (12, "the same"),
    "s3_trial_put": (3, "tests/s3/uploads.rs: create_only_is_tried_once_per_store_and_kind"),
    "s3_trial_complete": (6, "the same"),
}

S3_PAGE = "https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance.html"
S3_LIMITS = "https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html"
S3_SCALING = ("https://docs.aws.amazon.com/whitepapers/latest/s3-optimizing-performance-best-practices/"
              "horizontal-scaling-and-request-parallelization-for-high-throughput.html")
AZURE_ACCOUNT = "https://learn.microsoft.com/en-us/azure/storage/common/scalability-targets-standard-account"
AZURE_BLOBS = "https://learn.microsoft.com/en-us/azure/storage/blobs/scalability-targets"

DOCUMENTED = {
    "s3_writes_per_s": (3500, f"PUT, COPY, POST, DELETE; at least, for each partitioned prefix: {S3_PAGE}"),
    "s3_reads_per_s": (5500, f"GET, HEAD; as above: {S3_PAGE}"),
    "nic_gbit_per_s": (100, f"up to, of a single instance: {S3_PAGE}"),
    "connection_mb_per_s": (87.5, f"one request for each 85-90 MB/s wanted; said of reads: {S3_SCALING}"),
    "s3_object_tib_max": (5, f"10,000 parts of 5 MiB to 5 GiB, and this in all: {S3_LIMITS}"),
    "azure_requests_per_s": (40_000, f"of an account in large regions, else 20,000: {AZURE_ACCOUNT}"),
    "azure_ingress_gbit_per_s": (60, f"as above, else 25; more on request: {AZURE_ACCOUNT}"),
    "azure_blob_requests_per_s": (3000, f"of one block blob: {AZURE_BLOBS}"),
    "azure_blocks_max": (50_000, f"blocks of at most 4,000 MiB: {AZURE_BLOBS}"),
    "lustre_creates_per_s": (15_000, "mdtest in two papers of one vendor (Dell, Lustre): 15,000 and 29,000; what "
                             "they measured, and no limit"),
}

ASSUMED = {
    "latency_s": (0.1, "of a small request; S3's documentation says roughly 0.1 to 0.2, in a region it is often less"),
    "refusal_s": (0.02, "of a 503, which comes before the body was sent"),
    "burst_s": (1.0, "the store admits so many seconds' worth at once after a rest"),
    "cores_per_node": (64, "all of them free for the save"),
    "manifest_bytes_per_rank": (350, "a shard's entry without its block checksums, of 8 bytes each"),
    "open_files_max": (1024, "the usual soft limit of a process"),
}

CASES = [("64 nodes x 8", 64, 8), ("1,250 x 8 = 10,000", 1250, 8), ("10,000 x 1", 10_000, 1)]
STATES = [64 * MIB, GIB, 8 * GIB]
SPREAD = 16  # Folders of the strategy round-robin: ROUND_ROBIN_FOLDERS in src/checkpoint/layout.rs.

READ, WRITE = 0, 1


class Constants(dict):
    """Values by name; those of src/limits.rs in their own names."""

    def __getattr__(self, name):
        return self[name]


LIMITS = ["PART_BYTES_DEFAULT", "IO_THREADS_DEFAULT", "IO_THREADS_DEFAULT_SERVER", "QUEUE_DEPTH_PARTS_DEFAULT",
          "OPEN_WRITERS_DEFAULT", "TIMEOUT_SECS_DEFAULT", "ATTEMPTS_DEFAULT", "THROTTLED_ATTEMPTS_FACTOR",
          "RETRY_PAUSE_FIRST", "RETRY_PAUSE_MAX", "PACE_FIRST", "PACE_MAX", "S3_PARTS_MAX", "S3_PART_BYTES_MIN",
          "S3_KEYS_PER_REQUEST_MAX", "LIST_PAGE_OBJECTS", "CHECKSUM_BLOCKS_MAX", "RECEIPT_POLL_MS_MAX",
          "CHECKPOINT_THREADS_MIN"]


def limits():
    """Settings as the library has them: numbers, and durations in seconds."""
    text = (ROOT / "src" / "limits.rs").read_text()
    found = {}
    for name in LIMITS:
        said = re.search(rf"pub const {name}: \w+ =\s*([^;]+);", text).group(1)
        duration = re.fullmatch(r"Duration::from_(millis|secs)\((\d+)\)", said)
        if duration:
            found[name] = int(duration[2]) / (1000 if duration[1] == "millis" else 1)
        else:
            found[name] = math.prod(MIB if word == "MIB" else int(word) for word in said.split(" * "))
    return found


def constants(path=None):
    table = {**MEASURED, **COUNTED, **DOCUMENTED, **ASSUMED}
    known = Constants({name: value for name, (value, _) in table.items()} | limits())
    if path:
        new = json.loads(pathlib.Path(path).read_text())
        unknown = sorted(set(new) - set(known))
        if unknown:
            sys.exit(f"scaling.py: no constant {', '.join(unknown)}")
        known.update(new)
    return known


# What a process asks of the store, in order.


class Step:
    """Requests of one kind, `width` at a time; the next step follows when all are answered."""

    __slots__ = ("kind", "partition", "count", "width", "seconds", "job")

    def __init__(self, kind, partition=0, count=1, width=1, seconds=0.0, job=False):
        self.kind, self.partition, self.count, self.width = kind, partition, count, width
        self.seconds = seconds  # of the body, beyond the latency
        self.job = job  # begins a job of the engine, with a deadline of its own


class Plan:
    """One way to save: what is set, and what is there."""

    def __init__(self, c, ranks, state_bytes, **how):
        self.c, self.ranks, self.state_bytes = c, ranks, state_bytes
        self.part_bytes = how.pop("part_bytes", c.PART_BYTES_DEFAULT)
        self.io_threads = how.pop("io_threads", c.IO_THREADS_DEFAULT_SERVER)
        self.attempts_max = how.pop("attempts_max", c.ATTEMPTS_DEFAULT)
        self.as_it_was = how.pop("as_it_was", False)  # the policy before: no factor, and each 503 doubles the pace
        self.timeout_s = how.pop("timeout_s", c.TIMEOUT_SECS_DEFAULT)
        self.pace_max_s = how.pop("pace_max_s", c.PACE_MAX)
        self.ranks_per_node = how.pop("ranks_per_node", 8)
        self.ranks_per_process = how.pop("ranks_per_process", 1)
        self.folders = how.pop("folders", 1)  # of shards, each a partition of the store once it is split
        self.tried = how.pop("tried", False)  # whether the store's conditions were tried by an earlier save
        self.receipts = how.pop("receipts", True)  # else ranks gather what the manifest needs by MPI
        self.start_spread_s = how.pop("start_spread_s", 0.0)
        self.admits = how.pop("admits", (c.s3_reads_per_s, c.s3_writes_per_s))  # a second and partition
        assert not how, how

    @property
    def parts(self):
        return max(1, math.ceil(self.state_bytes / self.part_bytes))

    @property
    def throttled_attempts_max(self):
        """Retrier::pause_after: more of them, but where one was asked for it is one."""
        once = self.as_it_was or self.attempts_max <= 1
        return self.attempts_max * (1 if once else self.c.THROTTLED_ATTEMPTS_FACTOR)

    @property
    def processes(self):
        return math.ceil(self.ranks / self.ranks_per_process)

    @property
    def connection_bytes_per_s(self):
        processes_per_node = max(1, self.ranks_per_node // self.ranks_per_process)
        share = self.c.nic_gbit_per_s * GBIT_BYTES / (processes_per_node * self.io_threads)
        return min(self.c.connection_mb_per_s * 1e6, share)

    @property
    def receipts_partition(self):
        """Of receipts, manifests and the hint: a bucket that was never split has one for all."""
        return self.folders if self.folders > 1 else 0

    @property
    def memory_bytes(self):
        """Config::memory_bytes_max of one process."""
        c = self.c
        return (c.QUEUE_DEPTH_PARTS_DEFAULT + self.io_threads + c.OPEN_WRITERS_DEFAULT) * self.part_bytes

    @property
    def manifest_bytes(self):
        blocks = min(self.parts, self.c.CHECKSUM_BLOCKS_MAX)
        return self.ranks * (self.c.manifest_bytes_per_rank + 8 * blocks)


def trial_of_put(partition):
    return [Step(WRITE, partition, job=True), Step(WRITE, partition), Step(WRITE, partition)]


def trial_of_complete(partition):
    return [Step(WRITE, partition, job=n == 0) for n in range(6)]


def saving(plan, folder):
    """The requests of a process: shards, then receipts (src/checkpoint/save.rs, src/backend/s3/upload.rs)."""
    threads, parts = plan.io_threads, plan.parts
    part_s = min(plan.part_bytes, plan.state_bytes) / plan.connection_bytes_per_s
    ranks = plan.ranks_per_process
    steps = []
    if parts == 1 and ranks > 1:  # put_shards: each whole, side by side, and nothing is looked for first.
        steps += [] if plan.tried else trial_of_put(folder)
        steps += [Step(WRITE, folder, count=ranks, width=threads, seconds=part_s, job=True)]
    else:
        for n in range(ranks):
            first = n == 0 and not plan.tried
            steps += [Step(READ, folder, job=True)]  # Is the shard there? If not, is the bucket?
            steps += [Step(READ, folder)] if first else []
            if parts == 1:
                steps += trial_of_put(folder) if first else []
                steps += [Step(WRITE, folder, seconds=part_s, job=not first)]
                continue
            steps += trial_of_complete(folder) if first else []
            steps += [Step(READ, folder, job=not first), Step(WRITE, folder)]  # Again, and CreateMultipartUpload.
            steps += [Step(WRITE, folder, count=parts, width=threads, seconds=part_s)]
            steps += [Step(WRITE, folder, job=True)]
    if plan.receipts:
        at = plan.receipts_partition
        steps += trial_of_put(at) if parts > 1 and not plan.tried else []
        steps += [Step(WRITE, at, count=ranks, width=threads, job=parts == 1 or plan.tried)]
    return steps


def listing(plan, objects):
    """Requests of a listing: one for the object of the very name, one for each page."""
    return 1 + max(1, math.ceil(objects / plan.c.LIST_PAGE_OBJECTS))


def look(plan, receipts):
    """The finalizer's look for receipts: is there a manifest, and what is listed."""
    at = plan.receipts_partition
    return [Step(READ, at, job=True), Step(READ, at, count=listing(plan, receipts))]


def committing(plan):
    """From the last receipt on (src/checkpoint/commit.rs)."""
    at, ranks = plan.receipts_partition, plan.ranks
    each = listing(plan, math.ceil(ranks / plan.folders))
    side_by_side = min(plan.io_threads, math.ceil(plan.manifest_bytes / plan.part_bytes))
    manifest_s = plan.manifest_bytes / (plan.connection_bytes_per_s * side_by_side)
    steps = [Step(READ, folder, count=each) for folder in range(plan.folders)]
    steps += [Step(WRITE, at, seconds=manifest_s, job=True)]
    steps += [Step(READ, at, count=listing(plan, 1)), Step(READ, at), Step(WRITE, at)]  # The hint.
    if plan.receipts:
        removals = math.ceil(ranks / plan.c.S3_KEYS_PER_REQUEST_MAX)
        steps += [Step(READ, at, count=listing(plan, ranks)), Step(WRITE, at, count=removals)]
    return steps


def reading_receipts(plan, count):
    return [Step(READ, plan.receipts_partition, count=count, width=plan.io_threads, job=True)]


def requests(steps):
    """How many reads and writes."""
    return [sum(step.count for step in steps if step.kind == kind) for kind in (READ, WRITE)]


def alone_s(c, steps):
    """How long they take where nothing is refused."""
    return sum(math.ceil(step.count / step.width) * (c.latency_s + step.seconds) for step in steps)


# The simulation.

START, WAKE, ARRIVE, DONE, REFUSED = range(5)


class Process:
    """A process with a store of its own: src/backend/http/retry.rs keeps one pace for all its threads."""

    __slots__ = ("steps", "at", "to_start", "under_way", "deadline", "interval", "next_start", "slowed", "failed",
                 "phase", "ended_s")

    def __init__(self, steps):
        self.steps, self.at, self.to_start, self.under_way = steps, -1, 0, 0
        self.deadline = self.interval = self.next_start = 0.0
        self.slowed = -math.inf  # when the interval last doubled
        self.failed, self.phase, self.ended_s = False, "save", None

    def turn(self, now):
        """Pace::turn: how long a request must wait."""
        if self.interval == 0.0 and self.next_start <= now:
            return 0.0
        start = max(self.next_start, now)
        self.next_start = start + self.interval
        return start - now

    def slow_down(self, started, now, pace_first, pace_max):
        """Pace::slow_down: what was under way when the interval doubled does not double it again."""
        if started >= self.slowed:
            self.interval = min(max(self.interval * 2, pace_first), pace_max)
            self.slowed = now
        self.next_start = max(self.next_start, now)

    def shrink(self, pace_first):
        self.interval *= 0.9
        if self.interval < pace_first / 10:
            self.interval = 0.0


class Simulation:
    """All processes of one save, which begin together, and rank 0's gathering."""

    def __init__(self, plan, seed=1):
        self.plan, self.c, self.random = plan, plan.c, random.Random(seed)
        partitions = plan.receipts_partition + 1
        self.rate = [[rate] * partitions for rate in plan.admits]
        self.tokens = [[rate * self.c.burst_s for rate in rates] for rates in self.rate]
        self.filled_s = [[0.0] * partitions for _ in self.rate]
        self.heap, self.order = [], 0
        self.begun = self.done = self.given_up = self.withdrawn = self.refusals = self.attempts = 0
        self.attempts_most = 0
        self.lost = self.receipts = self.known = self.listed = 0
        self.pause_s, self.saved_s, self.committed_s, self.ended_s = 0.005, 0.0, None, 0.0
        programs = [saving(plan, folder) for folder in range(plan.folders)]
        self.processes = [Process(programs[n % plan.folders]) for n in range(plan.processes)]
        self.saving = len(self.processes)
        for process in self.processes:
            self.push(self.random.uniform(0, plan.start_spread_s), START, process)

    def push(self, at_s, event, process, number=0, deadline=0.0, started=0.0):
        self.order += 1
        heapq.heappush(self.heap, (at_s, self.order, event, process, number, deadline, started))

    def run(self):
        while self.heap:
            now, _, event, process, number, deadline, started = heapq.heappop(self.heap)
            if event == DONE:
                self.done += 1
                process.shrink(self.c.PACE_FIRST)
                process.under_way -= 1
                self.proceed(process, now)
            elif event == START:
                process.at = -1
                self.next_step(process, now)
            elif process.failed:  # Nothing more is sent after a writer's first error.
                self.withdrawn += 1
            elif event == REFUSED:
                self.refused(process, now, number, deadline, started)
            elif event == WAKE:
                self.wake(process, now, number, deadline)
            else:
                self.arrive(process, now, number, deadline)
            self.ended_s = now
        return self

    def next_step(self, process, now):
        process.at += 1
        if process.at == len(process.steps):
            return self.finished(process, now)
        step = process.steps[process.at]
        if step.job:
            process.deadline = now + self.plan.timeout_s - 1  # Deadline::for_work
        process.to_start = step.count
        for _ in range(min(step.width, step.count)):
            self.begin(process, now, process.deadline)

    def begin(self, process, now, deadline):
        process.to_start -= 1
        process.under_way += 1
        self.begun += 1
        self.wake(process, now, 1, deadline)

    def proceed(self, process, now):
        if process.failed:
            return
        if process.to_start > 0:
            self.begin(process, now, now + self.plan.timeout_s)  # a job of its own
        elif process.under_way == 0:
            self.next_step(process, now)

    def wake(self, process, now, number, deadline):
        wait = process.turn(now)
        if wait > 0:
            self.push(now + min(wait, max(0.0, deadline - now)), ARRIVE, process, number, deadline)
        else:
            self.arrive(process, now, number, deadline)

    def arrive(self, process, now, number, deadline):
        """An attempt reaches the store."""
        step = process.steps[process.at]
        tokens, filled, rate = self.tokens[step.kind], self.filled_s[step.kind], self.rate[step.kind][step.partition]
        there = min(rate * self.c.burst_s, tokens[step.partition] + (now - filled[step.partition]) * rate)
        filled[step.partition] = now
        self.attempts += 1
        self.attempts_most = max(self.attempts_most, number)
        if there >= 1:
            tokens[step.partition] = there - 1
            self.push(now + self.c.latency_s + step.seconds, DONE, process)
        else:
            tokens[step.partition] = there
            self.refusals += 1
            self.push(now + self.c.refusal_s, REFUSED, process, number, deadline, now)

    def refused(self, process, now, number, deadline, started):
        """Retrier::pause_after, of Verdict::Throttled(None): S3 names no time."""
        c = self.c
        started = now if self.plan.as_it_was else started
        process.slow_down(started, now, c.PACE_FIRST, self.plan.pace_max_s)
        bound = min(c.RETRY_PAUSE_FIRST * 2 ** min(number - 1, 16), c.RETRY_PAUSE_MAX)
        pause = bound * self.random.random()
        if number >= self.plan.throttled_attempts_max or pause >= deadline - now:
            self.given_up += 1
            self.fail(process, now)
        else:
            self.push(now + pause, WAKE, process, number + 1, deadline)

    def fail(self, process, now):
        process.failed = True
        if process.phase == "save":
            self.lost += self.plan.ranks_per_process
            self.ended_saving(process, now)

    def ended_saving(self, process, now):
        process.ended_s = now
        self.saving -= 1
        self.saved_s = max(self.saved_s, now)

    def finished(self, process, now):
        """A process is through its steps; the first one goes on as the finalizer."""
        plan = self.plan
        if process.phase == "save":
            self.receipts += plan.ranks_per_process
            self.ended_saving(process, now)
            if process is not self.processes[0]:
                return
            if plan.receipts:
                self.gather("look", look(plan, self.receipts), now)
            else:
                self.wait_for_all(now)
        elif process.phase == "wait":
            self.wait_for_all(now)
        elif process.phase == "look":
            self.listed = self.receipts
            if self.listed > self.known:
                self.gather("read", reading_receipts(plan, min(self.listed, plan.ranks) - self.known), now)
            else:
                self.look_again(now)
        elif process.phase == "read":
            self.known = min(self.listed, plan.ranks)
            if self.known == plan.ranks:
                self.gather("commit", committing(plan), now)
            else:
                self.look_again(now)
        else:
            self.committed_s = now

    def gather(self, phase, steps, now):
        finalizer = self.processes[0]
        finalizer.phase, finalizer.steps = phase, steps
        self.push(now, START, finalizer)

    def look_again(self, now):
        if self.saving == 0 and self.lost:
            return  # The save is incomplete, however long the finalizer waits.
        self.gather("look", look(self.plan, self.receipts), now + self.pause_s)
        self.pause_s = min(self.pause_s * 2, self.c.RECEIPT_POLL_MS_MAX / 1000)

    def wait_for_all(self, now):
        """A gather by MPI ends with the last rank."""
        if self.saving == 0 and not self.lost:
            steps = [Step(READ, self.plan.receipts_partition, job=True)] + committing(self.plan)
            self.gather("commit", steps, now)
        elif self.saving:
            self.gather("wait", [], now + 0.1)

    def told(self):
        times = sorted(p.ended_s for p in self.processes if p.ended_s is not None)
        return {
            "saved_s": round(self.saved_s, 1),
            "median_s": round(times[len(times) // 2], 1) if times else None,
            "committed_s": None if self.committed_s is None else round(self.committed_s, 1),
            "requests": self.begun,
            "refusals": self.refusals,
            "attempts_most": self.attempts_most,
            "lost_ranks": min(self.lost, self.plan.ranks),
            "finalizer_lost": self.processes[0].failed,
        }


# On paper.


def needs(plan, nodes, medium):
    """What a save takes of each resource, in seconds where it is a rate; and what binds."""
    c = plan.c
    node_bytes = plan.state_bytes * plan.ranks / nodes
    processes_per_node = plan.ranks_per_node // plan.ranks_per_process
    threads = processes_per_node * plan.io_threads
    cpu_s_per_gb = c[f"{medium}_write_cpu_s_per_gb"]
    plan.tried = plan.tried or medium == "azure"
    steps = saving(plan, 0)
    reads, writes = (n * plan.processes for n in requests(steps))
    more_reads, more_writes = requests(look(plan, plan.ranks) + committing(plan))
    reads, writes = reads + more_reads + plan.ranks, writes + more_writes
    rank_s = alone_s(c, steps)
    seconds = {
        "CPU": node_bytes / 1e9 * cpu_s_per_gb / min(c.cores_per_node, threads),
        "NIC": node_bytes / (c.nic_gbit_per_s * GBIT_BYTES),
        "io_threads": rank_s,
    }
    if medium == "s3":
        seconds["requests"] = max(writes / c.s3_writes_per_s, reads / c.s3_reads_per_s) / plan.folders
    else:
        # Azure's receipts go one by one, its blocks need neither a beginning nor a trial.
        reads, writes = azure_requests(plan)
        seconds["requests"] = (reads + writes) / c.azure_requests_per_s
        seconds["ingress"] = node_bytes * nodes / (c.azure_ingress_gbit_per_s * GBIT_BYTES)
    finalize = look(plan, plan.ranks) + reading_receipts(plan, plan.ranks) + committing(plan)
    finalize_s = alone_s(c, finalize)
    if medium == "azure":
        finalize_s += plan.ranks / plan.io_threads * c.latency_s
    binds = max(seconds, key=seconds.get)
    return {
        "threads": threads, "connections": plan.processes * plan.io_threads * c.connections_per_io_thread,
        "memory_gib": processes_per_node * plan.memory_bytes / GIB,
        "cpu_s": node_bytes / 1e9 * cpu_s_per_gb, "writes": writes, "reads": reads, "seconds": seconds,
        "save_s": seconds[binds], "binds": binds if seconds[binds] > finalize_s else "finalizer",
        "finalize_s": finalize_s,
    }


def azure_requests(plan):
    """Reads and writes; an account counts them together."""
    ranks, parts = plan.ranks, plan.parts
    blob = (1, 1) if parts == 1 else (3, parts + 1)
    fixed_reads = 2 + sum(listing(plan, n) for n in (ranks, ranks, 1, ranks))
    return ranks * (blob[0] + 1) + fixed_reads, ranks * (blob[1] + 2) + 2


# The tables.


def size(count):
    return f"{count // GIB} GiB" if count >= GIB else f"{count // MIB} MiB"


def seconds_text(value):
    return "never" if value is None else f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def table_of_node(c):
    """Threads, connections and memory: they depend on the settings, not on the state."""
    rows = [["ranks", "part_bytes", "io_threads", "threads/node", "connections", "memory/node", "descriptors/process"]]
    for name, nodes, per_node in CASES:
        for part_bytes, io_threads in [(8 * MIB, 4), (8 * MIB, 16), (64 * MIB, 4), (64 * MIB, 16)]:
            plan = Plan(c, nodes * per_node, GIB, part_bytes=part_bytes, io_threads=io_threads, ranks_per_node=per_node)
            need = needs(plan, nodes, "s3")
            rows.append([name, size(part_bytes), io_threads, need["threads"], f"{need['connections']:,}",
                         f"{need['memory_gib']:.1f} GiB", f"about {io_threads + 10} of {c.open_files_max:,}"])
    return rows


def table_of_paper(c, medium):
    rows = [["ranks", "state", "part", "writes", "reads", "CPU s/node", "CPU", "NIC", "threads", "requests"]
            + (["ingress"] if medium == "azure" else []) + ["then finalizer", "binds"]]
    for name, nodes, per_node in CASES:
        for state in STATES:
            for part_bytes in (8 * MIB, 64 * MIB):
                plan = Plan(c, nodes * per_node, state, part_bytes=part_bytes, ranks_per_node=per_node)
                need = needs(plan, nodes, medium)
                rates = ["CPU", "NIC", "io_threads", "requests"] + (["ingress"] if medium == "azure" else [])
                rows.append([name, size(state), size(part_bytes), f"{need['writes']:,}", f"{need['reads']:,}",
                             f"{need['cpu_s']:.1f}", *(seconds_text(need["seconds"][rate]) for rate in rates),
                             seconds_text(need["finalize_s"]), need["binds"]])
    return rows


def table_of_finalizer(c):
    rows = [["ranks", "io_threads", "at 10 ms", "at 30 ms", "at 100 ms", "gathered by MPI, 100 ms", "memory"]]
    for ranks in (512, 10_000, 100_000):
        for io_threads in (4, 16, 64):
            row = [f"{ranks:,}", io_threads]
            for latency_s in (0.01, 0.03, 0.1):
                plan = Plan(Constants(c, latency_s=latency_s), ranks, GIB, io_threads=io_threads)
                row.append(seconds_text(needs(plan, max(1, ranks // 8), "s3")["finalize_s"]) + " s")
            steps = committing(Plan(c, ranks, GIB, io_threads=io_threads, receipts=False))
            memory_mib = ranks * c.finalize_bytes_per_rank / MIB
            rows.append(row + [seconds_text(alone_s(c, steps)) + " s", f"{memory_mib:,.0f} MiB"])
    return rows


def table_of_one_object(c):
    """What one object admits: parts, and on Azure requests; larger parts are taken by themselves beyond."""
    rows = [["medium", "part_bytes", "largest shard of such parts",
             f"requests/s at {c.IO_THREADS_DEFAULT_SERVER} I/O threads", "of"]]
    for medium, parts_max, part_bytes in [
        ("s3", c.S3_PARTS_MAX, c.S3_PART_BYTES_MIN), ("s3", c.S3_PARTS_MAX, 8 * MIB), ("s3", c.S3_PARTS_MAX, 64 * MIB),
        ("azure", c.azure_blocks_max, 8 * MIB), ("azure", c.azure_blocks_max, 64 * MIB),
    ]:
        plan = Plan(c, 8, parts_max * part_bytes, part_bytes=part_bytes)
        rate = plan.io_threads / (c.latency_s + part_bytes / plan.connection_bytes_per_s)
        largest = c.s3_object_tib_max * 1024 * GIB if medium == "s3" else parts_max * part_bytes
        of = f"{c.azure_blob_requests_per_s:,}" if medium == "azure" else "-"
        rows.append([medium, size(part_bytes), size(min(parts_max * part_bytes, largest)), f"{rate:.0f}", of])
    return rows


def table_of_manifest(c):
    rows = [["ranks", "state", "part_bytes", "manifest", "if every rank reads it"]]
    for ranks in (512, 10_000):
        for state, part_bytes in [(64 * MIB, 8 * MIB), (GIB, 8 * MIB), (8 * GIB, 8 * MIB), (8 * GIB, 64 * MIB)]:
            plan = Plan(c, ranks, state, part_bytes=part_bytes)
            rows.append([f"{ranks:,}", size(state), size(part_bytes), f"{plan.manifest_bytes / 1e6:,.1f} MB",
                         f"{plan.manifest_bytes * ranks / 1e9:,.1f} GB"])
    return rows


def table_of_files(c):
    """A shared filesystem: 2 creates, 2 renames and 1 removal for each rank (tests/guards/syscalls.rs)."""
    rows = [["ranks", "changes of metadata", f"at {c.lustre_creates_per_s:,}/s", "at 1,000/s",
             "finalizer as on the local disk"]]
    for ranks in (512, 10_000):
        changes = 5 * ranks
        rows.append([f"{ranks:,}", f"{changes:,}", f"{seconds_text(changes / c.lustre_creates_per_s)} s",
                     f"{seconds_text(changes / 1000)} s",
                     f"{seconds_text(c.finalize_file_s_per_10000 * ranks / 10_000)} s"])
    return rows


BEFORE = {"io_threads": 4, "as_it_was": True}
HOW = {"start_spread_s": "starts within {} s", "folders": "{} partitions", "ranks_per_process": "{} ranks a process",
       "io_threads": "{} I/O threads", "attempts_max": "attempts_max {}", "timeout_s": "timeout {} s",
       "pace_max_s": "pace down to one in {} s"}
P64 = {"part_bytes": 64 * MIB}
# Ranks, state of each, and what is not as by default.
QUICK = [
    (512, GIB, {}),
    (512, GIB, {"io_threads": 4}),
    (512, GIB, {**BEFORE, "io_threads": 16}),
    (512, GIB, BEFORE),
    (512, GIB, P64),
    (512, GIB, {**P64, "io_threads": 4}),
    (10_000, 64 * MIB, P64),
    (10_000, 64 * MIB, {**P64, **BEFORE}),
    (10_000, 64 * MIB, {**P64, "start_spread_s": 1}),
    (10_000, 64 * MIB, {**P64, "start_spread_s": 10}),
    (10_000, 64 * MIB, {**P64, "tried": True}),
    (10_000, 64 * MIB, {**P64, "folders": SPREAD}),
    (10_000, 64 * MIB, {**P64, "ranks_per_process": 8}),
    (10_000, 64 * MIB, {**P64, "io_threads": 64}),
    (10_000, 64 * MIB, {**P64, "receipts": False}),
    (10_000, 64 * MIB, {}),
    (10_000, 64 * MIB, BEFORE),
]
LONG = [
    (10_000, 64 * MIB, {"io_threads": 4}),
    (10_000, 64 * MIB, {"start_spread_s": 1}),
    (10_000, 64 * MIB, {"start_spread_s": 10}),
    (10_000, 64 * MIB, {"part_bytes": 16 * MIB}),
    (10_000, 64 * MIB, {"tried": True}),
    (10_000, 64 * MIB, {"pace_max_s": 10}),
    (10_000, 64 * MIB, {"folders": SPREAD}),
    (10_000, 64 * MIB, {"ranks_per_process": 8}),
    (10_000, GIB, P64),
    (10_000, GIB, {**P64, **BEFORE}),
    (10_000, GIB, {**P64, "folders": SPREAD}),
    (10_000, GIB, {**P64, "ranks_per_process": 8}),
    (10_000, GIB, {}),
    (10_000, GIB, {"attempts_max": 20}),
    (10_000, GIB, {"timeout_s": 600}),
    (10_000, GIB, {"io_threads": 4}),
    (20_000, 64 * MIB, P64),
    (20_000, 64 * MIB, {}),
    (40_000, 64 * MIB, P64),
    (40_000, 64 * MIB, {**P64, **BEFORE}),
]


def name_of(how):
    words = [text.format(how[name]) for name, text in HOW.items() if name in how]
    words += ["conditions tried before"] if how.get("tried") else []
    words += ["no receipts"] if not how.get("receipts", True) else []
    words += ["the policy before"] if how.get("as_it_was") else []
    return ", ".join(words) or "as by default"


def simulate(c, ranks, state, how, seed=1):
    plan = Plan(c, ranks, state, **how)
    return {"ranks": ranks, "state_bytes": state, "part_bytes": plan.part_bytes, "how": name_of(how),
            **Simulation(plan, seed).run().told()}


def table_of_simulations(rows):
    table = [["ranks", "state", "part", "how", "requests", "503s", "most attempts", "shards s", "committed s",
              "ranks lost"]]
    for row in rows:
        table.append([f"{row['ranks']:,}", size(row["state_bytes"]), size(row["part_bytes"]), row["how"],
                      f"{row['requests']:,}", f"{row['refusals']:,}", row["attempts_most"],
                      seconds_text(row["saved_s"]), seconds_text(row["committed_s"]),
                      f"{row['lost_ranks']:,}" + (" and the finalizer" if row["finalizer_lost"] else "")])
    return table


def tables(c, simulated):
    """Each by its name, which is also that of its place in the document."""
    return {
        "a node": table_of_node(c),
        "s3 on paper": table_of_paper(c, "s3"),
        "azure on paper": table_of_paper(c, "azure"),
        "one object": table_of_one_object(c),
        "the finalizer": table_of_finalizer(c),
        "the manifest": table_of_manifest(c),
        "a shared filesystem": table_of_files(c),
        "simulated": table_of_simulations(simulated),
        "constants": table_of_constants(c),
    }


def table_of_constants(c):
    rows = [["constant", "value", "kind", "where from"]]
    for kind, table in [("measured", MEASURED), ("counted", COUNTED), ("documented", DOCUMENTED), ("assumed", ASSUMED)]:
        for name, (value, source) in table.items():
            rows.append([name, f"{c[name]:,}", kind, source if c[name] == value else "given"])
    rows += [[name, f"{c[name]:,}", "setting", "src/limits.rs"] for name in LIMITS]
    return rows


def aligned(rows):
    widths = [max(len(str(row[column])) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(str(cell).ljust(width) for cell, width in zip(row, widths)).rstrip()


def markdown(rows):
    for number, row in enumerate(rows):
        yield "| " + " | ".join(map(str, row)) + " |"
        if number == 0:
            yield "|" + "---|" * len(row)


def update(found):
    """Puts the tables into the document, between the marks that name them."""
    text = DOCUMENT.read_text()
    for name, rows in found.items():
        start, end = f"<!-- table: {name} -->\n", "<!-- end -->"
        head, mark, rest = text.partition(start)
        if not mark:
            sys.exit(f"scaling.py: {DOCUMENT.name} has no place for the table {name!r}")
        text = head + start + "\n".join(markdown(rows)) + "\n" + end + rest.partition(end)[2]
    DOCUMENT.write_text(text)


def check(c):
    """Whether the simulator and the counts hold."""
    assert sum(requests(saving(Plan(c, 6, 1000, tried=True), 0))) + 1 == c.s3_each_rank
    plan = Plan(c, 6, 1000)
    assert sum(requests(look(plan, 6) + committing(plan))) == c.s3_fixed
    few, many = (sum(azure_requests(Plan(c, ranks, 1000))) for ranks in (6, 12))
    assert ((many - few) // 6, 2 * few - many) == (c.azure_each_rank, c.azure_fixed)
    assert (len(trial_of_put(0)), len(trial_of_complete(0))) == (c.s3_trial_put, c.s3_trial_complete)

    for how in ({"admits": (20, 20)}, {"admits": (20, 20), "folders": 4, "start_spread_s": 1},
                {"admits": (40, 40), "ranks_per_process": 4, "attempts_max": 1}):
        first, again, other = (Simulation(Plan(c, 200, 40 * MIB, **how), seed).run() for seed in (1, 1, 2))
        assert first.told() == again.told(), "a seed gives one outcome"
        assert first.told() != other.told() or "attempts_max" in how, "chance is in it"
        for run in (first, other):
            assert run.begun == run.done + run.given_up + run.withdrawn, "every request ends once"
            assert run.attempts == run.done + run.refusals, "so does every attempt"
            assert run.attempts_most <= run.plan.throttled_attempts_max
            admitted = sum(sum(rates) for rates in run.rate) * (run.ended_s + c.burst_s)
            assert run.done <= admitted, "no more is admitted than there is"
            assert (run.committed_s is None) == (run.lost > 0 or run.processes[0].failed)
    assert (first.attempts_most, first.lost > 0) == (1, True), "one attempt is one, and too few"
    assert Plan(c, 1, 1).throttled_attempts_max == c.ATTEMPTS_DEFAULT * c.THROTTLED_ATTEMPTS_FACTOR

    process = Process([])
    for started, expected in [(1.0, 1), (1.0, 1), (1.9, 1), (2.0, 2), (2.5, 4)]:  # Refused at 2, and at 2.5.
        process.slow_down(started, max(2.0, started), c.PACE_FIRST, c.PACE_MAX)
        assert process.interval == c.PACE_FIRST * expected, "a burst counts once"

    endless = {"admits": (1e12, 1e12)}
    alone, many = (Plan(c, ranks, 40 * MIB, **endless) for ranks in (1, 500))
    expected = alone_s(c, saving(alone, 0))
    for plan in (alone, many):
        run = Simulation(plan).run()
        assert abs(run.saved_s - expected) < 1e-6, (run.saved_s, expected)
        assert (run.refusals, run.attempts_most, run.lost) == (0, 1, 0)
        assert run.committed_s > run.saved_s
    print("scaling.py: the checks hold")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--constants", metavar="FILE.json", help="newer values, by name")
    parser.add_argument("--json", action="store_true", help="print everything for machines")
    parser.add_argument("--full", action="store_true", help="also the simulations that take minutes")
    parser.add_argument("--update", action="store_true", help=f"all of it, into {DOCUMENT.relative_to(ROOT)}")
    parser.add_argument("--check", action="store_true", help="test the simulator and nothing else")
    options = parser.parse_args()
    c = constants(options.constants)
    if options.check:
        return check(c)
    chosen = QUICK + (LONG if options.full or options.update else [])
    simulated = [simulate(c, ranks, state, how) for ranks, state, how in chosen]
    found = tables(c, simulated)
    if options.json:
        as_dicts = {name: [dict(zip(rows[0], row)) for row in rows[1:]] for name, rows in found.items()}
        print(json.dumps(as_dicts | {"simulated": simulated}, indent=1))
    elif options.update:
        update(found)
        print(f"updated {DOCUMENT.relative_to(ROOT)}")
    else:
        for name, rows in found.items():
            print(f"# {name}", *aligned(rows), "", sep="\n")


if __name__ == "__main__":
    main()
