"""Kills the real program at random moments, and looks at what is left after each kill.

On each storage one command after the other is started and killed (SIGKILL) at a moment drawn evenly from the
time such a command takes: saves of large, compressed and many small shards, overwriting puts, prunes, garbage
collections and restores. After each kill the base is listed, verified and restored; what is visible must be whole, and
everything else must be known to gc. Environment: see common.py. The last line is `N passed, N failed`.
"""

import functools
import pathlib
import random
import subprocess
import sys
import threading
import time

import common
from common import LONG, SEED, Broken, expect, figure, ok, ok_json, run

KILLS = 3000 if LONG else 300

LOCAL = ("file", "direct")

# What is killed, and how often beside the others.
KINDS = {
    "save": 4,
    "save compressed": 3,
    "save small": 4,
    "put": 2,
    "prune": 2,
    "gc": 2,
    "restore": 2,
}

KEEP = 3
CHECKPOINTS_MAX = 6
KILLS_PER_SWEEP = 15

# Failures after which a storage is given up: one fault is told once, not at each kill after it.
FAILURES_MAX = 3

# The time that a kind of command takes is learnt: it is taken to be longer after each kill, so that the last moments
# are among those drawn, and what it was after each that ended before.
LONGER = 1.03

# All checkpoints are read this often, and after each command that removes some; else on servers only their sizes and
# checksums are asked for.
CHECKS_PER_READ = 5


@functools.lru_cache(maxsize=32)
def contents_of(storage, step, kind, part_bytes):
    """The shards that a step saves: by its number and kind alone."""
    draw = random.Random(f"{SEED}/{storage}/{step}")
    name = f"{storage}/{step}"
    if kind == "save small":
        # A server takes a request for each, at each look.
        count = draw.randrange(20, 50) if storage in LOCAL else draw.randrange(5, 12)
        sizes = [draw.choice((0, 1, 100, 4096, draw.randrange(9000))) for _ in range(count)]
    elif kind == "save in between":
        sizes = [5000, 0]
    else:
        several = part_bytes * draw.choice((1, 2)) + draw.randrange(part_bytes)
        sizes = [draw.choice((0, 511, 4096, 70_000, several, several)) for _ in range(draw.randrange(1, 4))]
        sizes[draw.randrange(len(sizes))] = several
    if kind == "save compressed":
        # Half of it shrinks.
        halves = [common.noise(f"{name}/{rank}", size // 2) for rank, size in enumerate(sizes)]
        return [half + b"the state of a rank " * (len(half) // 20) for half in halves]
    return [common.noise(f"{name}/{rank}", size) for rank, size in enumerate(sizes)]


class Storage:
    """One base, what has been done to it, and what must therefore be there."""

    def __init__(self, name, base, part_bytes, scratch, memory):
        self.name, self.base, self.part_bytes = name, base, part_bytes
        self.scratch, self.memory = pathlib.Path(scratch), pathlib.Path(memory)
        self.local = pathlib.Path(base.split("://")[1]) if name in LOCAL else None
        self.random = random.Random(f"{SEED}/{name}")
        self.kinds = {}  # of every step that was begun
        self.required = set()  # steps that must be listed
        self.listed = set()  # steps that were listed last
        self.version, self.versions = 0, set()  # of the object: begun, and those that may be there
        self.seconds = {}  # that a command of a kind takes
        self.leftovers = set()
        self.checks = 0
        self.counts = dict.fromkeys(
            ("kills", "before the commit", "after the commit", "ended before the kill", "saves finished",
             "leftovers", "leftovers removed", "restores cut between two files"), 0)

    # What is killed. Each returns the command and what is to be done when it has ended or was killed.

    def save(self, kind):
        step, arguments = self.begin_save(kind)

        def after(killed):
            if not killed:
                self.saved(step)
                return
            stands = step in self.list_steps()
            self.counts["after the commit" if stands else "before the commit"] += 1
            if stands:
                self.required.add(step)

        return arguments, after

    def put(self):
        content = self.begin_put()
        file = self.memory / "object"
        file.write_bytes(content)
        version = self.version

        def after(killed):
            self.versions = self.versions | {version} if killed else {version}

        return ["put", file, f"{self.base}/objects/state", *self.options()], after

    def prune(self):
        while len(self.listed) < KEEP + 2:
            self.save_now()
        before = self.list_steps()
        keeps = set(sorted(before)[-KEEP:])

        def after(killed):
            self.required = keeps
            if not killed:
                left = self.list_steps()
                expect(left == keeps, lambda: f"prune left {left} of {before}")

        return ["prune", self.base, "--keep", KEEP], after

    def gc(self):
        self.settle()
        return ["gc", self.base, "--older-than", "0s", "--delete"], lambda killed: None

    def restore(self):
        target = common.empty(self.scratch / "restored")
        step = max(self.list_steps())

        def after(killed):
            wanted = self.contents(step)
            placed = [path for path in target.iterdir() if not path.name.startswith(".syncline-restore-")]
            for path in placed:
                # Files of the checkpoint by name, and each of them whole.
                expect(path.read_bytes() == wanted[int(path.name[-3:])], lambda: f"{path.name} is partial")
            if len(placed) == len(wanted):
                return
            expect(killed, "a restore that succeeded has left out files")
            self.counts["restores cut between two files"] += bool(placed)
            # What it leaves is in nobody's way.
            common.empty(self.memory / "none")
            ok("restore", self.base, target, "--step", step, "--force")
            for path in target.glob(".syncline-restore-*"):
                common.empty(path).rmdir()
            common.expect_files(target, wanted)

        return ["restore", self.base, target, "--step", step, *self.options()], after

    # Steps on the way.

    def options(self):
        return ["--part-size", str(self.part_bytes)]

    def contents(self, step):
        return contents_of(self.name, step, self.kinds[step], self.part_bytes)

    def begin_save(self, kind):
        step = len(self.kinds) + 1
        self.kinds[step] = kind
        folder = common.empty(self.memory / "inputs") / str(step)
        files = common.write_files(folder, self.contents(step))
        compress = ["--compress", "zstd:1"] if kind == "save compressed" else []
        return step, ["save", *files, self.base, "--step", step, *compress, *self.options()]

    def begin_put(self):
        self.version += 1
        return self.object_of(self.version)

    def object_of(self, version):
        draw = random.Random(f"{SEED}/{self.name}/object/{version}")
        return common.noise(f"{self.name}/object/{version}", draw.randrange(3 * self.part_bytes))

    def saved(self, step):
        self.counts["saves finished"] += 1
        self.required.add(step)
        self.listed.add(step)

    def save_now(self):
        step, arguments = self.begin_save("save in between")
        ok(*arguments)
        self.saved(step)

    def settle(self):
        """A checkpoint in a second of its own: what was left before it may go."""
        time.sleep(1.02 - time.time() % 1)
        self.save_now()

    def list_steps(self):
        return {row["step"] for row in ok_json("list", self.base)}

    # The kill, and what must hold after it.

    def begin(self):
        """One command of each kind to its end: how long it takes."""
        self.save_now()
        for kind in KINDS:
            self.kill(kind, in_time=False)
            self.check(kind)

    def kill(self, kind, in_time=True):
        """Whether the command was running when it was killed."""
        arguments, after = self.save(kind) if kind.startswith("save") else getattr(self, kind)()
        moment = self.random.uniform(0, self.seconds[kind]) if in_time else common.STUCK_S
        started = time.monotonic()
        process = common.start(arguments)
        common.await_end(process, moment)
        took = time.monotonic() - started
        process.kill()
        done = common.finish(process, arguments)
        killed = done.status == -9
        expect(killed or done.status == 0, lambda: str(done))
        if killed:
            self.seconds[kind] *= LONGER
        else:
            self.seconds[kind] = took
        self.counts["kills" if killed else "ended before the kill"] += in_time
        after(killed)
        return killed

    def check(self, kind):
        """Nothing that was saved is lost, nothing partial is visible, and all else is known to gc."""
        self.checks += 1
        listed = self.list_steps()
        expect(self.required <= listed, lambda: f"steps {self.required - listed} are gone")
        expect(listed <= self.kinds.keys(), lambda: f"steps {listed - self.kinds.keys()} were never saved")
        # A request that a server had before the kill may take effect after it; a system call does not.
        appeared = listed - self.listed - self.required
        expect(not (self.local and appeared), lambda: f"steps {appeared} appeared after their saves were dead")
        self.listed = listed

        read = self.local or kind in ("prune", "gc") or self.checks % CHECKS_PER_READ == 0
        report = ok_json("verify", self.base, "--all", *([] if read else ["--quick"]))
        verified = {checkpoint["step"] for checkpoint in report["checkpoints"]}
        expect(report["good"] and verified >= listed, lambda: f"{listed} are not all verified: {report}")
        self.check_restore(listed)
        if kind == "put":
            self.check_object()
        self.check_leftovers()
        if len(listed) > CHECKPOINTS_MAX:
            ok("prune", self.base, "--keep", KEEP)
            self.listed = self.required = set(sorted(listed)[-KEEP:])

    def check_restore(self, listed):
        target = common.empty(self.memory / "checked")
        restored = ok_json("restore", self.base, target)
        expect(restored["skipped"] == [], lambda: f"restore skipped {restored['skipped']}")
        expect(restored["step"] >= max(listed), lambda: f"restored {restored['step']} of {listed}")
        common.expect_files(target, self.contents(restored["step"]))

    def check_object(self):
        found = ok("cat", f"{self.base}/objects/state").out
        known = [version for version in self.versions if self.object_of(version) == found]
        expect(known, lambda: f"the object is none of the versions {self.versions} but {len(found)} bytes")

    def check_leftovers(self):
        """Every object belongs to a checkpoint or is garbage; gc knows all garbage, and the objects in it are whole."""
        report = ok_json("gc", self.base, "--older-than", "0s")
        garbage = {found["uri"]: found["kind"] for found in report["garbage"]}
        new = garbage.keys() - self.leftovers
        self.counts["leftovers"] += len(new)
        self.leftovers |= new
        visible = {found["uri"] for found in ok_json("ls", "-r", self.base)}
        files = self.files() if self.local else visible
        strangers = self.strangers(files - garbage.keys(), self.listed)
        if strangers and not self.local:
            # What a server finished meanwhile.
            strangers = self.strangers(strangers, self.list_steps())
        expect(not strangers, lambda: f"gc does not know {strangers}")
        hidden = [uri for uri, kind in garbage.items() if kind == "temporary" and uri in visible]
        expect(not hidden, lambda: f"listed as objects: {hidden}")
        shards = sorted(uri for uri in new if garbage[uri] == "shard" and uri in visible)
        for uri in self.random.sample(shards, min(3, len(shards))):
            self.check_shard(uri)

    def files(self):
        found = (path for path in self.local.rglob("*") if path.is_file())
        return {f"{self.name}://{path}" for path in found}

    def strangers(self, uris, steps):
        """Objects of no checkpoint that is listed, and not one of those that a base has once."""
        known = [f"{folder}/ckpt-{step}-" for step in steps for folder in ("manifests", "shards")]
        known = tuple(f"{self.base}/{key}" for key in ["latest.json", "objects/state", *known])
        return [uri for uri in uris if not uri.startswith(known)]

    def check_shard(self, uri):
        """A shard without a manifest is whole."""
        _, folder, name = uri.rsplit("/", 2)
        step, rank = int(folder.split("-")[1]), int(name.split(".")[0].split("-")[1])
        stored = ok("cat", uri).out
        if name.endswith(".zst") and stored:
            unzipped = subprocess.run(["zstd", "-dcq"], input=stored, capture_output=True, timeout=common.STUCK_S)
            expect(unzipped.returncode == 0, lambda: f"{uri}: {unzipped.stderr}")
            stored = unzipped.stdout
        expect(stored == self.contents(step)[rank], lambda: f"{uri} is partial: {len(stored)} bytes")

    def sweep(self):
        """gc removes all leftovers, where the medium lets it."""
        self.settle()
        report = ok_json("gc", self.base, "--older-than", "0s", "--delete")
        self.counts["leftovers removed"] += sum(found["removed"] for found in report["garbage"])
        left = ok_json("gc", self.base, "--older-than", "0s")["garbage"]
        if self.name == "az":
            # Blocks without a commit cannot be removed; Azure drops them after a week.
            left = [found for found in left if found["kind"] != "temporary"]
        expect(left == [], lambda: f"gc leaves {left}")


def kill_many(storage, kills, results):
    """So many kills of commands that run; fails if fewer than half hit one."""
    kinds, weights = list(KINDS), list(KINDS.values())
    if not results.case(f"{storage.name}: uninterrupted", storage.begin):
        return
    failures = attempts = 0
    while storage.counts["kills"] < kills and attempts < 2 * kills and failures < FAILURES_MAX:
        attempts += 1
        kind = storage.random.choices(kinds, weights)[0]

        def attempt(kind=kind):
            storage.kill(kind)
            storage.check(kind)
            if attempts % KILLS_PER_SWEEP == 0:
                storage.sweep()

        if not results.case(f"{storage.name}: {kind}", attempt):
            print(f"   that was attempt {attempts} on {storage.name}, SYNCLINE_TEST_SEED={SEED}", flush=True)
            failures += 1
    results.case(f"{storage.name}: all leftovers go", storage.sweep)
    hits = storage.counts["kills"]
    results.case(f"{storage.name}: at least half hit", expect, hits * 2 >= attempts, f"{hits} of {attempts}")


def storages(scratch, memory):
    """The four storages; those on servers under a name of their own."""
    name = f"kills-{time.time_ns()}"
    bases = {
        "file": (f"file://{scratch}/file/base", 1 << 20),
        "direct": (f"direct://{scratch}/direct/base", 1 << 20),
        # Parts of S3 have at least 5 MiB.
        "s3": (f"s3://{common.server('S3_BUCKET')}/{name}/base", 5 << 20),
        "az": (f"az://{common.server('AZ_ACCOUNT')}/{common.server('AZ_CONTAINER')}/{name}/base", 1 << 20),
    }
    for name, (base, part_bytes) in bases.items():
        own = [common.empty(pathlib.Path(folder) / name) for folder in (scratch, memory)]
        yield Storage(name, base, part_bytes, *own)


def main():
    print(f"{KILLS} kills, SYNCLINE_TEST_SEED={SEED}")
    results = common.Results()
    with common.scratch("kills") as scratch, common.scratch("kills", in_memory=True) as memory:
        all_storages = list(storages(scratch, memory))
        threads = [
            threading.Thread(target=kill_many, args=(storage, KILLS // len(all_storages), results))
            for storage in all_storages
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for storage in all_storages:
            run("rm", "-r", storage.base)
    total = {}
    for storage in all_storages:
        print(f"{storage.name}: " + ", ".join(f"{count} {name}" for name, count in storage.counts.items()))
        for name, count in storage.counts.items():
            total[name] = total.get(name, 0) + count
    wanted = KILLS // len(all_storages) * len(all_storages)
    results.case("all kills were made", expect, total["kills"] == wanted, f"{total['kills']} of {wanted}")
    figure("kills survived", total["kills"])
    figure("saves that had finished", total["saves finished"])
    figure("leftovers found", total["leftovers"])
    return results.close()


if __name__ == "__main__":
    sys.exit(main())
