"""System calls that fail: strace makes the n-th of a kind return EIO or EDQUOT, for each n, until a run is left
untouched. (A quota is not put on a real disk: many kernels are built without them.)"""

import common
import mounts
from common import expect, ok, run

# What a save asks of the disk: writes, syncs of files and of directories, names, space, folders; and where alone,
# on a filesystem that sets space aside.
CALLS = ("pwrite64", "fdatasync", "fsync", "renameat2", "fallocate", "ftruncate", "sync_file_range", "mkdir")
ONLY = {
    "fallocate": {("file", "large"), ("direct", "large")},
    "ftruncate": {("direct", "large"), ("direct", "tiny")},
    "sync_file_range": {("file", "large"), ("file", "tiny")},
}

# Of an object that is replaced.
CALLS_OF_PUT = ("pwrite64", "fdatasync", "fsync", "renameat")

# No run has more of one kind.
CALLS_MAX = 200

# What an error says of the cause, and what there is to do.
WORDS = {
    "EIO": ("Input/output error", ("see the kernel's log", "is visible, but may not survive a power cut")),
    "EDQUOT": ("quota exceeded", ("the quota is reached",)),
}


# Before a command whose syncs are told to be done and are not.
IGNORED_SYNCS = ("strace", "-f", "-qq", "-o", "/dev/null", "--seccomp-bpf", "-e", "trace=fdatasync,fsync",
                 "-e", "inject=fdatasync,fsync:retval=0")


class Injection:
    """One call of one kind fails, in each thread that comes so far; a filesystem may lack a call besides."""

    def __init__(self, call, number, log, error="EIO", lacking=None):
        self.log, self.error = log, error
        log.unlink(missing_ok=True)
        rules = [f"inject={call}:error={error}:when={number}"]
        if lacking:
            rules.append(f"inject={lacking}:error=EINVAL")
        traced = ",".join(filter(None, (call, lacking)))
        rules = [word for rule in (f"trace={traced}", *rules) for word in ("-e", rule)]
        self.before = ("strace", "-f", "-qq", "-y", "-o", log, "--seccomp-bpf", *rules)

    def hits(self):
        """The calls that failed, with what they were about."""
        return [line for line in self.log.read_text().splitlines() if f"{self.error} (" in line and "INJECTED" in line]

    def explained_by(self, done):
        cause, remedies = WORDS[self.error]
        return done.status == 3 and cause in done.err and any(remedy in done.err for remedy in remedies)


def available(memory):
    """Why calls cannot be made to fail here, if so."""
    injection = Injection("fsync", 1, memory / "trace")
    try:
        done = run("--version", before=injection.before)
    except FileNotFoundError:
        return "there is no strace"
    return None if done.status == 0 else f"strace: {done.err.strip()}"


def each_call_fails(base, count, kind, call, error="EIO", lacking=None):
    """A save whose n-th call fails is refused and leaves nothing behind, for each n; then one succeeds."""
    base.save_ok(1, kind)
    log = base.memory / "trace"
    for number in range(1, CALLS_MAX):
        step, before = number + 1, base.files()
        injection = Injection(call, number, log, error, lacking)
        base.before = injection.before
        # strace counts the calls of each thread: of one alone, none is passed over.
        done = base.save(step, kind, "--io-threads", "1")
        base.before = ()
        hits = injection.hits()
        if not hits:
            expect(done.status == 0, lambda: str(done))
            break
        count()
        if done.status == 0:
            # The hint is no part of a save.
            expect(all("latest.json" in hit or call == "fsync" and hit_is_of(hit, base) for hit in hits),
                   lambda: f"succeeded in spite of {hits}: {done}")
        else:
            expect(injection.explained_by(done), lambda: f"{hits}: {done}")
        listed = base.check()
        if done.status != 0:
            # Only what has a name that could not be made durable may be seen.
            expect(call == "fsync" or step not in listed, lambda: f"published in spite of {hits}")
            left = set(base.files()) ^ set(before)
            expect(call == "fsync" or not left, lambda: f"{hits[0]} leaves {left}: {done}")
        base.leftovers()
    if number == 1 and call in ONLY:
        raise mounts.NotHere(f"{call} is not called on this filesystem")
    expect(number > 1, f"{call} is not called")
    expect(number < CALLS_MAX, "no run was left untouched")
    base.check()


def hit_is_of(hit, base):
    """Whether it is the base's own folder that was synced: of the names in it, the hint alone is written last."""
    return f"<{base.folder}>" in hit


def each_call_of_a_put_fails(base, count, call):
    """An object that is replaced stays as it was, or is the new one whole."""
    uri, file, log = f"{base.uri}/x", base.memory / "object", base.memory / "trace"
    old = common.noise("put/0", 3_000_000)
    file.write_bytes(old)
    ok("put", file, uri)
    for number in range(1, CALLS_MAX):
        new = common.noise(f"put/{number}", 3_000_000 - number)
        file.write_bytes(new)
        injection = Injection(call, number, log)
        done = run("put", file, uri, "--part-size", "1MiB", "--io-threads", "1", before=injection.before)
        if not injection.hits():
            expect(done.status == 0, lambda: str(done))
            expect(ok("cat", uri).out == new, "another object")
            break
        count()
        expect(injection.explained_by(done), lambda: str(done))
        found = ok("cat", uri).out
        expect(found == old or call == "fsync" and found == new, lambda: f"the object changed: {injection.hits()}")
        old = found
        expect(base.files() == [str(base.folder / "x")], lambda: f"left behind: {base.files()}")
    expect(number > 1, f"{call} is not called")


def cases(scheme, count):
    """Tests as (name, function, arguments...)."""
    for call in CALLS:
        for kind in ("large", "tiny"):
            if (scheme, kind) in ONLY.get(call, {(scheme, kind)}):
                yield f"{call} fails with {kind} shards", each_call_fails, count, kind, call
    for call, kind in (("pwrite64", "large"), ("mkdir", "tiny")):
        yield f"{call} over a quota", each_call_fails, count, kind, call, "EDQUOT"
    yield "linkat fails where there is no renameat2", each_call_fails, count, "tiny", "linkat", "EIO", "renameat2"
    for call in CALLS_OF_PUT:
        yield f"{call} of a put fails", each_call_of_a_put_fails, count, call
