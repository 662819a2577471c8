"""The endpoint of a cell: on this machine, behind a link, or as if it were far away."""

import os
import subprocess
from contextlib import contextmanager

NAMESPACE = "syncline-compare"
NEAR, FAR = "10.213.77.1", "10.213.77.2"


@contextmanager
def serving(tools, read_bytes, where):
    """An endpoint; objects that nobody wrote have `read_bytes`."""
    distance = [str(where.delay_ms), str(where.connection_mb_per_s)]
    if where.gbit:
        with _link(where.gbit) as inside:
            with _process([*inside, tools.program, "serve", FAR, *distance], read_bytes) as port:
                tools.host, tools.port = FAR, port
                yield
        return
    with _process([tools.program, "serve", "127.0.0.1", *distance], read_bytes) as port:
        tools.host, tools.port = "127.0.0.1", port
        yield


@contextmanager
def _link(gbit):
    """A network namespace behind a link of so many Gbit/s in both directions; how to run in it."""
    near, far = f"sync{os.getpid()}a", f"sync{os.getpid()}b"
    namespace = f"{NAMESPACE}-{os.getpid()}"
    shape = ["tbf", "rate", f"{gbit}gbit", "burst", "4mb", "latency", "20ms"]
    inside = ["ip", "netns", "exec", namespace]
    try:
        _run("ip", "netns", "add", namespace)
        _run("ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", namespace)
        _run("ip", "address", "add", f"{NEAR}/30", "dev", near)
        _run("ip", "link", "set", near, "up")
        _run(*inside, "ip", "address", "add", f"{FAR}/30", "dev", far)
        _run(*inside, "ip", "link", "set", far, "up")
        _run("tc", "qdisc", "add", "dev", near, "root", *shape)
        _run(*inside, "tc", "qdisc", "add", "dev", far, "root", *shape)
        yield inside
    finally:
        subprocess.run(["ip", "link", "delete", near], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "delete", namespace], capture_output=True, check=False)


@contextmanager
def _process(command, read_bytes):
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        process.stdin.write(f"{read_bytes}\n")
        process.stdin.flush()
        yield int(process.stdout.readline())
    finally:
        process.stdin.close()
        process.wait(timeout=60)


def _run(*command):
    subprocess.run(command, check=True)
