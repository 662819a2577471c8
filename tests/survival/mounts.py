"""Small filesystems of our own, in memory and on loop devices.

They are mounted in a mount namespace of the driver's own, and loop devices are given up as soon as they are mounted:
when the driver ends, however it ends, all of them are gone.
"""

import contextlib
import errno
import os
import pathlib
import subprocess
import sys
import time

import common
from common import Broken, expect

# Set by `enter_namespace` for the driver inside it.
MARK = "SYNCLINE_TEST_NAMESPACE"


class NotHere(Exception):
    """This machine does not offer what a test needs."""


def shell(*command):
    """Runs a system program, which must succeed; returns what it says."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=common.STUCK_S)
    except FileNotFoundError:
        raise Broken(f"there is no program {words[0]}") from None
    expect(done.returncode == 0, lambda: f"{' '.join(words)}: {done.stderr.strip() or done.returncode}")
    return done.stdout.strip()


@contextlib.contextmanager
def offered():
    """A program that fails in the `with` block is something this machine does not offer, and no failure."""
    try:
        yield
    except Broken as why:
        raise NotHere(str(why)) from None


def enter_namespace():
    """Starts this program again in a mount namespace: as root, else as root of a user namespace. Returns why there
    is none, and nothing inside it."""
    if os.environ.get(MARK):
        return None
    for flag in ("-m", "-rm"):
        try:
            with offered():
                shell("unshare", flag, "mount", "-t", "tmpfs", "tmpfs", "/mnt")
        except NotHere as error:
            why = error
            continue
        os.environ[MARK] = flag
        os.execvp("unshare", ["unshare", flag, sys.executable, "-B", *sys.argv])
    return why


class Disk:
    """A filesystem that is mounted while its `with` block lasts."""

    def __init__(self, kind, folder, size_mib, *, make=(), options="", sector_bytes=512):
        self.kind, self.size_mib, self.make, self.options = kind, size_mib, make, options
        self.sector_bytes = sector_bytes
        self.image = pathlib.Path(folder) / "image"
        self.root = pathlib.Path(folder) / "mounted"

    def __enter__(self):
        common.empty(self.root)
        if self.kind != "tmpfs":
            with open(self.image, "wb") as image:
                image.truncate(self.size_mib << 20)
        try:
            with offered():
                self.mount(make=True)
        except BaseException:
            self.__exit__()
            raise
        self.root.chmod(0o777)
        return self

    def __exit__(self, *_):
        if os.path.ismount(self.root):
            shell("umount", "--lazy", self.root)
        self.image.unlink(missing_ok=True)

    def mount(self, make=False):
        """Mounts it, freshly made or as it was."""
        options = ["-o", self.options] if self.options else []
        if self.kind == "tmpfs":
            shell("mount", "-t", "tmpfs", *options, "tmpfs", self.root)
            return
        device = shell("losetup", "--find", "--show", "--sector-size", self.sector_bytes, self.image)
        try:
            if make:
                shell(f"mkfs.{self.kind}", "-q", *self.make, device)
            shell("mount", "-t", self.kind, *options, device, self.root)
        finally:
            # It stays as long as it is mounted.
            shell("losetup", "--detach", device)

    def come_back(self):
        """Unmounts it, and mounts it as it was."""
        shell("umount", self.root)
        until = time.monotonic() + common.STUCK_S
        while shell("losetup", "--associated", self.image):
            expect(time.monotonic() < until, "the loop device stays")
            time.sleep(0.01)
        self.mount()

    def remount(self, options):
        shell("mount", "-o", f"remount,{options}", self.root)

    def free_bytes(self):
        state = os.statvfs(self.root)
        return state.f_bavail * state.f_frsize

    def leave_free(self, free_bytes):
        """Takes all but so many bytes with one file, as nearly as the filesystem's own needs let it."""
        with open(self.root / "ballast", "ab") as file:
            # Cut and not removed: xfs gives back the space of removed files when it has time.
            file.truncate(0)
            shell("sync", "--file-system", self.root)
            wanted = self.free_bytes() - free_bytes
            while wanted > 0:
                try:
                    os.posix_fallocate(file.fileno(), 0, wanted)
                    return
                except OSError as error:
                    expect(error.errno == errno.ENOSPC, lambda: str(error))
                    file.truncate(0)
                    wanted -= 64 << 10


@contextlib.contextmanager
def in_user_space(source, root):
    """A folder as a filesystem in a process shows it (FUSE), which ends when it is unmounted."""
    with offered():
        shell("bindfs", source, common.empty(root))
    try:
        yield
    finally:
        shell("umount", "--lazy", root)


def tmpfs(folder, size_mib=40, **inodes):
    limits = "".join(f",nr_inodes={count}" for count in inodes.values())
    return Disk("tmpfs", folder, size_mib, options=f"size={size_mib}m{limits}")


def ext4(folder):
    return Disk("ext4", folder, 160, make=("-F", "-m", "0"))


def xfs(folder):
    """Not much larger than the smallest that its tools make; in sectors of 4 KiB, to which O_DIRECT must keep."""
    return Disk("xfs", folder, 320, make=("-f", "-s", "size=4096"), sector_bytes=4096)
