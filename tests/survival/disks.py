"""Real disks that fill up, become read-only and go away in the middle of a save.

Small filesystems (see mounts.py): a tmpfs, an ext4 and an xfs in sectors of 4 KiB, through file:// and direct://.
And system calls that fail, on the disk that is there (see errors.py). Whatever happens, the error says what is the
matter, nothing partial is visible, earlier checkpoints verify and restore, and when there is room again the next save
works. What the machine does not offer is told as `NOT RUN`.
Environment: see common.py. The last line is `N passed, N failed`.
"""

import ctypes
import errno
import fcntl
import os
import pathlib
import random
import struct
import sys
import time

import common
import errors
import mounts
from common import LONG, SEED, Broken, expect, figure, ok, ok_json, run

SCHEMES = ("file", "direct")

# Bytes left on a disk before it is filled with saves, and before it goes away.
ROOM_BYTES = 20 << 20
ROOM_BYTES_MAX = 100 << 20

# How often a disk goes away under each scheme.
LOSSES = 100 if LONG else 8

# XFS_IOC_GOINGDOWN, which ext4 knows as EXT4_IOC_SHUTDOWN, and not to write the journal before. Source: linux/fs.h.
GOING_DOWN, WITHOUT_JOURNAL = 0x8004587D, 2

NO_SPACE = ("No space left on device", "free space or choose another base")

MS_RDONLY, MS_REMOUNT = 1, 32

faults = 0


def fault():
    """Counts one thing that was done to a disk while or before it was written to."""
    global faults
    faults += 1


class Base:
    """One base, what was saved there, and what must therefore be there."""

    def __init__(self, root, scheme, memory, disk=None):
        self.folder = root / "base"
        self.disk, self.scheme, self.uri = disk, scheme, f"{scheme}://{self.folder}"
        self.memory, self.before = pathlib.Path(memory), ()
        self.kinds = {}
        self.required = set()

    def contents(self, step):
        """Shards by step and kind."""
        name = f"{self.folder}/{step}"
        match self.kinds[step]:
            case "small":
                return [common.noise(f"{name}/{rank}", 23_000 + 17 * rank) for rank in range(200)]
            case "compressed":
                halves = (common.noise(f"{name}/{rank}", 2_100_001) for rank in range(2))
                return [half + bytes(1_000_000) for half in halves]
            case "tiny":
                return [common.noise(name, 20_000), b"", b"x"]
            case "many":
                return [common.noise(f"{name}/{rank}", 300) for rank in range(1500)]
            case "large":
                return [common.noise(f"{name}/{rank}", size) for rank, size in enumerate((4_194_304, 777))]

    def next_step(self):
        return max(self.kinds, default=0) + 1

    def start(self, step, kind, *options):
        """A save on its way, and its command."""
        self.kinds[step] = kind
        files = common.write_files(common.empty(self.memory / "inputs") / str(step), self.contents(step))
        compress = ["--compress", "zstd:1"] if kind == "compressed" else []
        arguments = ["save", *files, self.uri, "--step", step, "--part-size", "1MiB", *compress, *options]
        return common.start(arguments, self.before), arguments

    def save(self, step, kind, *options):
        process, arguments = self.start(step, kind, *options)
        done = common.finish(process, arguments)
        if done.status == 0:
            self.required.add(step)
        return done

    def save_ok(self, step, kind):
        done = self.save(step, kind)
        expect(done.status == 0, lambda: str(done))

    def files(self):
        return sorted(str(path) for path in self.folder.rglob("*") if path.is_file())

    def listed(self):
        return {row["step"] for row in ok_json("list", self.uri)}

    def check(self):
        """Earlier checkpoints are there, verify, and the newest restores."""
        listed = self.listed()
        expect(self.required <= listed, lambda: f"of {self.required} only {listed} are there")
        report = ok_json("verify", self.uri, "--all")
        expect(report["good"] and len(report["checkpoints"]) == len(listed), lambda: f"verify: {report}")
        target = common.empty(self.memory / "restored")
        restored = ok_json("restore", self.uri, target)
        expect((restored["step"], restored["skipped"]) == (max(listed), []), lambda: f"restored {restored}")
        common.expect_files(target, self.contents(max(listed)))
        return listed

    def leftovers(self):
        """What gc finds; fails if it does not find all there is."""
        garbage = {found["uri"] for found in ok_json("gc", self.uri, "--older-than", "0s")["garbage"]}
        known = [f"{folder}/ckpt-{step}-" for step in self.listed() for folder in ("manifests", "shards")]
        for path in self.files():
            key = path.removeprefix(f"{self.folder}/")
            of_checkpoint = key == "latest.json" or key.startswith(tuple(known))
            expect(of_checkpoint or f"{self.scheme}://{path}" in garbage, lambda: f"gc does not know {path}")
        return garbage

    def clear(self):
        common.empty(self.folder).rmdir()


def expect_refused(done, *words):
    expect(done.status == 3, lambda: f"not status 3: {done}")
    expect(all(word in done.err for word in words), lambda: f"not all of {words}: {done}")


def expect_full(base, done, before):
    """The save was refused, says why, and has left nothing."""
    expect_refused(done, *NO_SPACE)
    after = base.files()
    expect(after == before, lambda: f"left behind: {set(after) ^ set(before)}")
    fault()


def fills_up(base, kind):
    """Saves until no more fit; then nothing is lost, pruning makes room, and saves work again."""
    base.save_ok(1, kind)
    step, before = 1, base.files()
    while True:
        step += 1
        done = base.save(step, kind)
        if done.status != 0:
            break
        before = base.files()
        expect(step < 50, "the disk does not fill up")
    expect(step > 3, "the disk was too small for this test")
    expect_full(base, done, before)
    take_the_rest(base.disk)
    expect_full(base, base.save(step + 1, kind), before)
    base.check()
    expect(base.leftovers() == set(), lambda: f"left behind: {base.leftovers()}")
    ok("prune", base.uri, "--keep", "1")
    base.required = {max(base.required)}
    base.check()
    base.save_ok(step + 2, kind)
    base.check()


def take_the_rest(disk):
    """To the last block."""
    with open(disk.root / "rest", "wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise


def every_little_room(base):
    """With room for any part of a save: it is whole, or refused and gone."""
    base.save_ok(1, "tiny")
    outcomes = set()
    for step, pages in enumerate(range(24), start=2):
        base.disk.leave_free(pages * 4096)
        before = base.files()
        done = base.save(step, "tiny")
        outcomes.add(done.status)
        if done.status != 0:
            expect_full(base, done, before)
        base.check()
        expect(base.leftovers() == set(), lambda: f"left behind: {base.leftovers()}")
        ok("prune", base.uri, "--keep", "1")
        base.required = {max(base.required)}
    expect(outcomes == {0, 3}, f"statuses {outcomes}")


def read_only_before(base):
    for step in (1, 2):
        base.save_ok(step, "large")
    base.disk.remount("ro")
    try:
        for command in (["put", __file__, f"{base.uri}/objects/x"], ["prune", base.uri, "--keep", "1"]):
            expect_refused(run(*command), "Read-only file system", "mounted read-only")
        expect_refused(base.save(3, "large"), "Read-only file system", "mounted read-only")
        fault()
        base.check()
        expect(base.leftovers() == set(), "leftovers of a save that wrote nothing")
    finally:
        base.disk.remount("rw")
    base.save_ok(4, "large")
    base.check()


def read_only_midway(base):
    """Remounted between two groups of small files, which is the only time when the kernel lets it be."""
    base.save_ok(1, "small")
    libc, root = ctypes.CDLL(None, use_errno=True), str(base.disk.root).encode()
    for step in range(2, 40):
        process, arguments = base.start(step, "many", "--io-threads", "1")
        shards = base.folder / "shards"
        while process.poll() is None and not any(shards.glob(f"ckpt-{step}-*/rank-*.bin")):
            pass
        caught = False
        while process.poll() is None and not caught:
            caught = libc.mount(None, root, None, MS_REMOUNT | MS_RDONLY, None) == 0
        done = common.finish(process, arguments)
        try:
            if done.status == 0:
                base.required.add(step)
                continue
            expect_refused(done, "Read-only file system", "mounted read-only")
            fault()
            base.check()
        finally:
            base.disk.remount("rw")
        expect(base.leftovers(), "a save that could remove nothing has left nothing")
        clean(base)
        return
    raise mounts.NotHere("the kernel never let the disk become read-only in the middle of a save")


def clean(base):
    """A checkpoint in a second of its own, and only that: gc removes what was left before it."""
    time.sleep(1.02 - time.time() % 1)
    base.save_ok(base.next_step(), "tiny")
    ok("gc", base.uri, "--older-than", "0s", "--delete")
    expect(base.leftovers() == set(), "gc leaves some")
    newest = max(base.check())
    ok("prune", base.uri, "--keep", "1")
    base.required = {newest}
    base.check()


def aligned_as_the_device_asks(base):
    """O_DIRECT on sectors of 4 KiB, by what the filesystem tells; smaller steps would be refused."""
    try:
        os.close(os.open(base.disk.root / "raw", os.O_CREAT | os.O_WRONLY | os.O_DIRECT))
    except OSError as error:
        raise mounts.NotHere(f"O_DIRECT: {error}") from None
    for size in (0, 1, 511, 512, 4095, 4097, 1_048_576, 3_000_001):
        file, back = base.memory / "object", base.memory / "back"
        file.write_bytes(common.noise(f"aligned/{size}", size))
        ok("put", file, f"{base.uri}/x", "--direct", "require", "--part-size", "1MiB")
        ok("get", f"{base.uri}/x", back, "--direct", "require")
        expect(back.read_bytes() == file.read_bytes(), f"{size} bytes came back otherwise")


def goes_away(base):
    """The disk is lost at any moment of a save, its journal unwritten: after recovery whatever was called saved is
    there, and everything that is visible is whole."""
    base.disk.leave_free(ROOM_BYTES_MAX)
    base.save_ok(1, "large")
    draw, seconds, leftovers, refused = random.Random(f"{SEED}/{base.uri}"), 0.1, set(), 0
    for _ in range(LOSSES):
        step = base.next_step()
        process, arguments = base.start(step, draw.choice(("large", "small", "compressed", "tiny")))
        started = time.monotonic()
        # Some come to their end first: the disk is lost right after they are told to be saved.
        common.await_end(process, draw.uniform(0, 1.4 * seconds))
        if process.poll() is not None:
            seconds = (seconds + time.monotonic() - started) / 2
        go_down(base.disk)
        done = common.finish(process, arguments)
        expect(done.status in (0, 3), lambda: str(done))
        refused += done.status
        fault()
        base.disk.come_back()
        if done.status == 0:
            base.required.add(step)
        listed = base.check()
        leftovers |= base.leftovers()
        if len(listed) > 4:
            clean(base)
    clean(base)
    print(f"   lost {LOSSES} times, {refused // 3} saves failed of it, {len(leftovers)} leftovers were found")


def shows_syncs_left_out(base):
    """The test above can fail: a save whose syncs are told to be done and are not is lost."""
    with mounts.offered():
        mounts.shell("strace", "-V")
    base.save_ok(1, "large")
    for _ in range(5):
        step = base.next_step()
        base.before = errors.IGNORED_SYNCS
        base.save_ok(step, "small")
        base.before = ()
        go_down(base.disk)
        base.disk.come_back()
        if step not in base.listed():
            return
    raise Broken("saves without syncs survive, so the loss of the disk tests nothing")


def go_down(disk):
    root = os.open(disk.root, os.O_RDONLY)
    try:
        fcntl.ioctl(root, GOING_DOWN, struct.pack("I", WITHOUT_JOURNAL))
    finally:
        os.close(root)


def works_in_user_space(base, plain):
    """A filesystem in a process: all works, and it is told beforehand that no power cut is withstood for sure."""
    caution = f"syncline: {base.uri}: on fuse it is not promised that a save survives a power cut"
    for kind in ("large", "small", "compressed", "tiny"):
        done = base.save(base.next_step(), kind)
        expect(done.status == 0 and done.err.count(caution) == 1, lambda: f"no caution: {done}")
        base.check()
    expect("not promised" in run("put", __file__, f"{base.uri}-object").err, "put tells nothing")
    expect(base.leftovers() == set(), lambda: f"left behind: {base.leftovers()}")
    ok("prune", base.uri, "--keep", "1")
    base.required = {max(base.required)}
    base.check()
    # The same folder, without the process between.
    behind = Base(plain, base.scheme, base.memory)
    behind.kinds, behind.required = dict(base.kinds), base.required
    done = behind.save(behind.next_step(), "tiny")
    expect(done.status == 0 and "promised" not in done.err, lambda: f"a caution on a local disk: {done}")
    behind.check()


class Driver:
    """Runs tests on disks, and tells which were not run."""

    def __init__(self, scratch, memory):
        self.results = common.Results()
        self.scratch, self.memory = pathlib.Path(scratch), pathlib.Path(memory)

    def not_run(self, name, why):
        print(f"NOT RUN: {name}: {why}", flush=True)

    def case(self, name, test, *arguments):
        """One test; what the machine lacks is no failure of it, and no success either."""
        lacking = []

        def attempt():
            try:
                test(*arguments)
            except mounts.NotHere as why:
                lacking.append(why)

        started = time.monotonic()
        passed = self.results.case(name, attempt)
        if lacking:
            self.results.withdraw(name)
            self.not_run(name, lacking[0])
        elif passed:
            print(f"{name}: ok, {time.monotonic() - started:.1f} s", flush=True)

    def on(self, title, disk, *tests):
        """A disk, and tests as (name, function, arguments...), each by both schemes and in a base of its own."""
        try:
            with disk:
                for scheme in SCHEMES:
                    for name, test, *arguments in tests:
                        disk.leave_free(ROOM_BYTES)
                        base = Base(disk.root, scheme, self.memory, disk)
                        self.case(f"{title}: {name}, {scheme}://", test, base, *arguments)
                        base.clear()
                        (disk.root / "rest").unlink(missing_ok=True)
        except mounts.NotHere as why:
            self.not_run(title, why)

    def in_user_space(self):
        plain, root = self.scratch / "behind", self.scratch / "in-user-space"
        try:
            with mounts.in_user_space(common.empty(plain), root):
                for scheme in SCHEMES:
                    base = Base(root, scheme, self.memory)
                    self.case(f"in user space: works and warns, {scheme}://", works_in_user_space, base, plain)
                    base.clear()
        except mounts.NotHere as why:
            self.not_run("a filesystem in user space", why)

    def failing_calls(self):
        if why := errors.available(self.memory):
            self.not_run("calls that fail", why)
            return
        for scheme in SCHEMES:
            for name, test, *arguments in errors.cases(scheme, fault):
                base = Base(self.scratch / "plain", scheme, self.memory)
                self.case(f"{name}, {scheme}://", test, base, *arguments)
                base.clear()

    def disks(self):
        filling = [(f"fills up with {kind} shards", fills_up, kind) for kind in ("large", "compressed", "small")]
        little = ("every little room", every_little_room)
        before = ("is read-only before a save", read_only_before)
        midway = ("becomes read-only in a save", read_only_midway)
        away = (("goes away in a save", goes_away), ("goes away, syncs left out", shows_syncs_left_out))
        aligned = ("O_DIRECT in its sectors", aligned_as_the_device_asks)
        self.on("tmpfs", mounts.tmpfs(self.scratch), *filling, little, before)
        self.on("ext4", mounts.ext4(self.scratch), *filling, little, before, midway, *away)
        self.on("xfs", mounts.xfs(self.scratch), *filling, before, midway, *away, aligned)
        self.on("tmpfs", mounts.tmpfs(self.scratch, inodes=900), ("runs out of inodes", fills_up, "small"))


def main():
    lacking = mounts.enter_namespace()
    print(f"SYNCLINE_TEST_SEED={SEED}")
    with common.scratch("disks") as scratch, common.scratch("disks", in_memory=True) as memory:
        for folder in (scratch, memory):
            os.chmod(folder, 0o755)
        driver = Driver(scratch, memory)
        driver.failing_calls()
        if lacking:
            driver.not_run("real disks", lacking)
        else:
            driver.disks()
            driver.in_user_space()
    figure("disk faults", faults)
    return driver.results.close()


if __name__ == "__main__":
    sys.exit(main())
