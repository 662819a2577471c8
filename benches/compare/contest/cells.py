"""What is compared: each cell is one kind of work, with the contestants that can do it."""

import json
import os
from dataclasses import dataclass

from .race import Contestant

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MIB = 1 << 20
PART_BYTES = 16 * MIB
SHARD_BYTES = 64 << 10
# Of large objects.
STREAMS_MAX = 4
# Stands for the contestant's own folder in its job.
OWN_FOLDER = "OWN-FOLDER"


@dataclass
class Tools:
    """Where things are."""

    program: str
    python: str
    folder: str
    host: str = "127.0.0.1"
    port: int = 0


@dataclass(frozen=True)
class Where:
    """Where an endpoint is."""

    about: str
    title: str = ""
    gbit: int = 0
    delay_ms: int = 0
    connection_mb_per_s: int = 0
    threads: int = 4


NEAR = Where("An endpoint on the same machine")
LINK = Where("An endpoint in another network namespace, behind a link of 10 Gbit/s (tbf)", " over 10 Gbit/s", gbit=10)
# Amazon says 85 to 90 MB/s a request, and first bytes after 100 to 200 ms for small objects: this is nearer.
FAR = Where("An endpoint that waits 30 ms before it answers and takes and gives 90 MB/s a connection",
            " at a distance", delay_ms=30, connection_mb_per_s=90, threads=16)


@dataclass
class Cell:
    title: str
    work: str
    storage: str
    contestants: list
    size_bytes: int
    # What one line under the heading says of the rows.
    about: str = ""
    # Objects of a pass.
    objects: int = 1
    # Whether all rows do the same work, so that their ratios mean something.
    alike: bool = True

    @property
    def object_bytes(self):
        return self.size_bytes // self.objects


class Maker:
    """Makes the contestants of one cell: all get the same job."""

    def __init__(self, tools, **job):
        self.tools, self.job = tools, job

    def _job(self, more):
        return json.dumps({**self.job, **more})

    def rust(self, name, client, kind="ours", note="", **more):
        return Contestant(name, [self.tools.program, "run", self._job({"client": client, **more})], kind, note)

    def peer(self, name, script, note="", **more):
        path = os.path.join(HERE, "peers", f"{script}.py")
        return Contestant(name, [self.tools.python, "-B", path, self._job(more)], "peer", note)

    def program(self, name, client, note="", **more):
        return self.peer(name, "programs", note, client=client, **more)


OURS_CHECKED = "CRC32C of every byte"
SYNCED = "no checksum; synced by the harness"
NOTHING = "no checksum"
FRESH = "no checksum; into memory of its own, as the peers"


def local(tools, storage, work, size_bytes, streams):
    """Large objects on a local disk."""
    make = Maker(tools, storage=storage, work=work, folder=OWN_FOLDER, size_bytes=size_bytes, streams=streams)
    rows = [
        make.rust("syncline", "local", note=OURS_CHECKED),
        make.rust("plain loop, 1 thread", "raw", "limit", NOTHING),
        make.rust("plain loop, 4 threads", "raw", "limit", NOTHING, threads=4),
        make.program("fio psync", "fio", NOTHING, way="psync:1"),
        make.program("fio io_uring, depth 4", "fio", NOTHING, way="io_uring:4"),
        make.program("dd", "dd", NOTHING + ("; from a file in memory" if work == "write" else "")),
    ]
    if work == "write":
        rows.insert(1, make.rust("syncline, write_chunk", "local", note=OURS_CHECKED, way="write_chunk"))
    else:
        rows.insert(1, make.rust("syncline, fresh memory", "local", note=FRESH, way="fresh"))
    if streams == 1:
        rows.append(make.rust("io_uring, depth 4", "ring", "limit", NOTHING, threads=4))
        rows.append(make.rust("io_uring, depth 4, registered", "ring", "limit", NOTHING, threads=4, way="registered"))
    note = SYNCED if work == "write" else NOTHING
    rows.append(make.peer("s3dlio, put_bytes" if work == "write" else "s3dlio", "s3dlio_client", note))
    if work == "write":
        rows.append(make.peer("s3dlio, streaming writer", "s3dlio_client", note, way="writer"))
    if storage == "file":
        rows.append(make.peer("obstore", "obstore_client", note, part_bytes=PART_BYTES, threads=4))
        rows.append(make.peer("opendal", "opendal_client", note, part_bytes=PART_BYTES, threads=4))
        rows.append(make.peer("safetensors", "safetensors_client", note))
    return Cell(f"{storage}, {work}, {objects(streams)}", work, storage, rows, size_bytes)


# As seen in the requests of each.
HOW = {
    "write": "Parts of 16 MiB, for each object; the CRT chooses itself how many, s3dlio's put_bytes is one "
             "request to S3, and to Azure it takes blocks of 4 MiB. Nobody but s5cmd, which cannot do without, hashes "
             "payloads to sign them.",
    "read": "Ranges of 16 MiB, for each object; obstore's get is one request, s3dlio and the CRT choose "
            "themselves. Ours reads into memory that was touched before; the clients of others return memory of their own.",
}


def server(tools, storage, work, size_bytes, streams, where=NEAR):
    """Large objects, to an endpoint that discards what it gets and generates what it sends."""
    threads = where.threads
    make = Maker(tools, storage=storage, work=work, host=tools.host, port=tools.port, size_bytes=size_bytes, streams=streams,
                 part_bytes=PART_BYTES, threads=threads)
    rows = [
        make.rust("syncline", "server", note=OURS_CHECKED),
        make.rust("syncline, unchecked", "server", note=NOTHING, way="unchecked"),
        make.rust("bare socket, CRC32C", "socket", "limit", OURS_CHECKED),
        make.rust("bare socket", "socket", "limit", NOTHING, way="unchecked"),
        make.peer("obstore", "obstore_client", NOTHING),
        make.peer("opendal", "opendal_client", NOTHING),
        make.peer("s3dlio, put_bytes" if work == "write" else "s3dlio", "s3dlio_client", NOTHING),
    ]
    if work == "write":
        rows.insert(1, make.rust("syncline, write_chunk", "server", note=OURS_CHECKED, way="write_chunk"))
        rows.insert(5, make.rust("bare socket, CRC32C behind", "socket", "limit", OURS_CHECKED, way="fused"))
    else:
        rows.insert(2, make.rust("syncline, fresh memory", "server", note=FRESH, way="fresh"))
    if storage == "s3":
        checked = work == "write"
        if work == "write":
            rows.append(make.peer("s3dlio, MultipartUploadWriter", "s3dlio_client", NOTHING, way="writer"))
        rows += [
            make.peer("s3torchconnector (AWS CRT)", "s3torch_client", "CRC32C of parts" if checked else NOTHING),
            make.peer("boto3", "boto3_client", "CRC32 of parts" if checked else NOTHING),
            make.program("s5cmd", "s5cmd", "from and to files in memory" + ("; MD5 and SHA-256 of parts" if checked else "")),
        ]
    else:
        rows.append(make.peer("azure-storage-blob", "azure_client", NOTHING))
    return Cell(f"{storage}{where.title}, {work}, {objects(streams)}", work, storage, rows, size_bytes,
                f"{where.about}; {threads} parts at a time. {HOW[work]}", streams)


def objects(streams):
    return "one object" if streams == 1 else f"{streams} objects at a time"


def shards(tools, storage, work, count):
    """Many small objects."""
    local_medium = storage in ("file", "direct")
    make = Maker(tools, storage=storage, work=work, folder=OWN_FOLDER if local_medium else "", host=tools.host, port=tools.port,
                 size_bytes=count * SHARD_BYTES, count=count)
    rows = [make.rust("syncline, put_many" if work == "write" else "syncline, get_many", "shards", note=OURS_CHECKED)]
    if local_medium:
        rows.append(make.rust("one after the other", "raw-shards", "limit",
                              "fdatasync, rename and sync of the folder for each" if work == "write" else NOTHING))
        if work == "write":
            rows.append(make.rust("one after the other, not durable", "raw-shards", "limit", "rename alone", way="loose"))
    for name, script in (("obstore", "obstore_client"), ("opendal", "opendal_client"), ("s3dlio", "s3dlio_client")):
        if local_medium and work == "write":
            rows.append(make.peer(name, script, "fsync of each by the harness, of the folder once"))
            rows.append(make.peer(f"{name}, not durable", script, "nothing synced", way="loose"))
        else:
            rows.append(make.peer(name, script, NOTHING))
    if storage == "s3":
        rows.append(make.peer("boto3", "boto3_client", "CRC32" if work == "write" else NOTHING))
    return Cell(f"{storage}, {work}, {count:,} objects of 64 KiB", work, storage, rows, count * SHARD_BYTES,
                "obstore, opendal and boto3 are called by 16 threads, s3dlio by its put_many and get_many.", count)


def compressed(tools, path, size_bytes):
    """Compression of a file, to the same medium."""
    make = Maker(tools, storage="file", work="write", folder=OWN_FOLDER, size_bytes=size_bytes)
    rows = []
    for level in (1, 3, 9):
        rows.append(make.rust(f"syncline, zstd:{level}", "local", note=OURS_CHECKED, way=f"zstd:{level}", source=path))
        rows.append(make.program(f"zstd -{level} -T2", "zstd", "checksum of frames; from a file in memory", way=str(level), threads=2, file=path))
    return Cell("file, write, compressed", "write", "file", rows, size_bytes, f"The file is {os.path.basename(path)}.", alike=False)


def safety(tools, size_bytes):
    """What each safety costs: the same work with and without it. `eatmydata` takes the syncs away."""
    make = Maker(tools, storage="direct", folder=OWN_FOLDER, size_bytes=size_bytes)
    files = Maker(tools, storage="file", folder=OWN_FOLDER, size_bytes=size_bytes)
    net = Maker(tools, storage="s3", host=tools.host, port=tools.port, size_bytes=size_bytes, part_bytes=PART_BYTES, threads=4)
    blobs = Maker(tools, storage="az", host=tools.host, port=tools.port, size_bytes=size_bytes, part_bytes=PART_BYTES, threads=4)

    def unsynced(row):
        row.command = ["eatmydata", *row.command]
        return row

    writes = [
        make.rust("direct://, CRC32C", "local", work="write"),
        make.rust("direct://, no checksum", "local", work="write", way="unchecked"),
        unsynced(make.rust("direct://, CRC32C, no sync", "local", work="write")),
        files.rust("file://, CRC32C", "local", work="write"),
        files.rust("file://, no checksum", "local", work="write", way="unchecked"),
        unsynced(files.rust("file://, CRC32C, no sync", "local", work="write")),
        net.rust("s3://, CRC32C confirmed", "server", work="write"),
        net.rust("s3://, no checksum", "server", work="write", way="unchecked"),
        net.rust("s3://, SHA-256 signed", "server", work="write", way="sha256"),
        blobs.rust("az://, CRC-64 and CRC32C", "server", work="write"),
        blobs.rust("az://, no checksum", "server", work="write", way="unchecked"),
        blobs.rust("az://, MD5", "server", work="write", way="md5"),
    ]
    reads = [
        make.rust("direct://, verified", "local", work="read"),
        make.rust("direct://, not verified", "local", work="read", way="unchecked"),
        files.rust("file://, verified", "local", work="read"),
        files.rust("file://, not verified", "local", work="read", way="unchecked"),
        net.rust("s3://, verified", "server", work="read"),
        net.rust("s3://, not verified", "server", work="read", way="unchecked"),
    ]
    return [Cell("the cost of safety, write", "write", "", writes, size_bytes, alike=False),
            Cell("the cost of safety, read", "read", "", reads, size_bytes, alike=False)]


def limits(tools, size_bytes):
    """The memory of the machine."""
    make = Maker(tools, work="write", size_bytes=size_bytes)
    rows = [
        make.rust("copy, 1 thread", "memory", "limit"),
        make.rust("copy, 2 threads", "memory", "limit", streams=2),
        make.rust("CRC32C, 1 thread", "crc32c", "limit"),
        make.rust("CRC32C, 2 threads", "crc32c", "limit", streams=2),
    ]
    return Cell("memory", "write", "", rows, size_bytes)


def ranks(tools, count):
    """A checkpoint of many ranks: the seconds of each step."""
    make = Maker(tools, storage="file", work="write", folder=OWN_FOLDER, count=count)
    return Cell(f"{count:,} ranks", "write", "file", [make.rust(f"{count:,} ranks", "ranks")], 0, "", count)


