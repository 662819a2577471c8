"""What the drivers of this folder share: the program, data made from a seed, and what is counted.

The path of the `syncline` program stands in SYNCLINE; everything is written below the target folder it lies in.
SYNCLINE_TEST_SEED repeats the choices of an earlier run, SYNCLINE_TEST_LONG asks for many more of them.
"""

import functools
import json
import os
import pathlib
import random
import select
import shutil
import subprocess
import sys
import tempfile
import threading

SYNCLINE = pathlib.Path(os.environ["SYNCLINE"]).resolve()
SCRATCH = SYNCLINE.parent.parent / "survival"
LONG = bool(os.environ.get("SYNCLINE_TEST_LONG"))
SEED = os.environ.get("SYNCLINE_TEST_SEED") or str(random.SystemRandom().randrange(10**9))

# No command of these tests takes this long; one that does is stuck.
STUCK_S = 120

# How the command line is told of the test servers.
SERVERS = {
    "AWS_ENDPOINT_URL": "S3_ENDPOINT",
    "AWS_ACCESS_KEY_ID": "S3_ACCESS_KEY",
    "AWS_SECRET_ACCESS_KEY": "S3_SECRET_KEY",
    "AZURE_STORAGE_BLOB_ENDPOINT": "AZ_ENDPOINT",
    "AZURE_STORAGE_ACCOUNT": "AZ_ACCOUNT",
    "AZURE_STORAGE_KEY": "AZ_KEY",
}


class Broken(Exception):
    """What must not be."""


def expect(holds, why):
    if not holds:
        raise Broken(why() if callable(why) else why)


def server(name):
    """What tests/servers/ says of a server; ends the driver if it does not run."""
    value = os.environ.get(f"SYNCLINE_TEST_{name}")
    if value is None:
        sys.exit(f"SYNCLINE_TEST_{name} is not set: start the servers, see tests/servers/")
    return value


@functools.cache
def environment():
    """What this machine's user has set is not what is tested."""
    ours = ("SYNCLINE_", "AWS_", "AZURE_")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(ours) and not name.lower().endswith("_proxy")
    }
    for name, theirs in SERVERS.items():
        if value := os.environ.get(f"SYNCLINE_TEST_{theirs}"):
            kept[name] = value
    return {**kept, "AWS_EC2_METADATA_DISABLED": "true", "HOME": str(SCRATCH)}


class Done:
    """How a command ended."""

    def __init__(self, arguments, status, out, err):
        self.line = " ".join(str(argument) for argument in arguments)
        self.status, self.out, self.err = status, out, err.decode(errors="replace")

    def __str__(self):
        return f"syncline {self.line[:300]} -> {self.status}: {self.err.strip()[:600]}"


def start(arguments, before=()):
    command = [*before, SYNCLINE, *arguments]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([str(word) for word in command], env=environment(), **pipes)


def await_end(process, seconds):
    """Until the process has ended, or for so long: closer to the moment than Popen.wait comes."""
    descriptor = os.pidfd_open(process.pid)
    try:
        select.select([descriptor], [], [], seconds)
    finally:
        os.close(descriptor)


def finish(process, arguments):
    try:
        out, err = process.communicate(timeout=STUCK_S)
    except subprocess.TimeoutExpired:
        process.kill()
        _, err = process.communicate()
        raise Broken(f"hangs: syncline {' '.join(map(str, arguments))}: {err.decode(errors='replace')}") from None
    return Done(arguments, process.returncode, out, err)


def run(*arguments, before=()):
    """Runs a command to its end."""
    return finish(start(arguments, before), arguments)


def ok(*arguments):
    """Runs a command that must succeed."""
    done = run(*arguments)
    expect(done.status == 0, lambda: str(done))
    return done


def ok_json(*arguments):
    return json.loads(ok(*arguments, "--json").out)


def noise(name, size_bytes):
    """The same bytes for the same name."""
    return random.Random(name).randbytes(size_bytes)


def write_files(folder, contents):
    """Files of these contents, named by their place."""
    folder.mkdir(parents=True)
    paths = []
    for rank, content in enumerate(contents):
        path = folder / f"state-{rank:03}"
        path.write_bytes(content)
        paths.append(path)
    return paths


def expect_files(folder, contents):
    """Fails unless the folder holds these files and nothing else."""
    names = sorted(path.name for path in folder.iterdir())
    expect(names == [f"state-{rank:03}" for rank in range(len(contents))], lambda: f"{folder} holds {names}")
    for name, content in zip(names, contents):
        expect((folder / name).read_bytes() == content, lambda: f"{name} was restored with other bytes")


def scratch(prefix, in_memory=False):
    """A folder that goes with its `with` block: below the target folder, or in memory where that can be had."""
    SCRATCH.mkdir(parents=True, exist_ok=True)
    memory = pathlib.Path("/dev/shm")
    parent = memory if in_memory and os.access(memory, os.W_OK) else SCRATCH
    return tempfile.TemporaryDirectory(prefix=f"syncline-{prefix}-", dir=parent)


def empty(folder):
    """The folder, with nothing in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


class Results:
    """Named tests, each of which passes if it never failed."""

    def __init__(self):
        self._lock = threading.Lock()
        self._names = {}

    def passed(self, name):
        with self._lock:
            self._names.setdefault(name, True)

    def failed(self, name, why):
        with self._lock:
            self._names[name] = False
            print(f"FAILED {name}: {why}", flush=True)

    def case(self, name, test, *arguments):
        """Runs a test and says whether it passed. Whatever goes wrong in it is its failure: others go on."""
        try:
            test(*arguments)
        except Exception as why:
            self.failed(name, f"{type(why).__name__}: {why}")
            return False
        self.passed(name)
        return True

    def withdraw(self, name):
        """As if it had not been run."""
        with self._lock:
            self._names.pop(name, None)

    def close(self):
        """Prints the closing line; returns the exit status."""
        passed = sum(self._names.values())
        failed = len(self._names) - passed
        print(f"{passed} passed, {failed} failed")
        return 0 if passed and not failed else 1


def figure(name, number):
    """A count for the end of tests/run."""
    if path := os.environ.get("SYNCLINE_TEST_FIGURES"):
        with open(path, "a", encoding="ascii") as file:
            file.write(f"{name}\t{number}\n")
