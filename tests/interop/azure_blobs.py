"""A second look at az://: Azure's own Python client reads what Syncline wrote, and the other way round.

Needs the package (requirements.txt), the path of the `syncline` program in SYNCLINE, and a server in
SYNCLINE_TEST_AZ_ENDPOINT, _ACCOUNT, _KEY and _CONTAINER (tests/servers/azurite.sh). Not named `azure.py`, which
would hide the package. The last line is `N passed, N failed`.
"""

import datetime
import json
import os
import pathlib
import sys
import tempfile
import unittest
import urllib.parse
import uuid

import azure.storage.blob
from azure.storage.blob import BlobServiceClient, ContainerSasPermissions, generate_container_sas

from interop import noise, run, syncline

ENDPOINT, ACCOUNT, KEY, CONTAINER = (
    os.environ[f"SYNCLINE_TEST_AZ_{name}"] for name in ("ENDPOINT", "ACCOUNT", "KEY", "CONTAINER")
)
CONNECTION = f"BlobEndpoint={ENDPOINT};AccountName={ACCOUNT};AccountKey={KEY}"
MIB = 1 << 20

# Keys that tell how each side encodes names. The client is given them as they are.
ODD_NAMES = ["with space", "a+b", "100%", "~tilde", "gr\u00fc\u00dfe/\u65e5\u672c", "q?x=1&y#z", "!$'()*,;:=@[]", "a%2Fb"]


def crc32c(content):
    value = 0xFFFFFFFF
    for byte in content:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 & -(value & 1))
    return f"{value ^ 0xFFFFFFFF:08x}"


def environment(**variables):
    """How our side reaches the server: by connection string unless told otherwise."""
    return variables or {"AZURE_STORAGE_CONNECTION_STRING": CONNECTION}


def sas(**permissions):
    """What our side needs to reach the container by a signature of the client's."""
    expiry = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
    allowed = ContainerSasPermissions(**permissions)
    token = generate_container_sas(ACCOUNT, CONTAINER, KEY, permission=allowed, expiry=expiry)
    return environment(AZURE_STORAGE_SAS_TOKEN=token, AZURE_STORAGE_BLOB_ENDPOINT=ENDPOINT)


class Case(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="syncline-azure-")
        self.addCleanup(scratch.cleanup)
        self.scratch = pathlib.Path(scratch.name)
        self.prefix = f"interop/{uuid.uuid4()}"
        self.base = f"az://{ACCOUNT}/{CONTAINER}/{self.prefix}"
        service = BlobServiceClient.from_connection_string(CONNECTION)
        self.addCleanup(service.close)
        self.container = service.get_container_client(CONTAINER)

    def ours(self, *arguments, status=0, **variables):
        found, output = syncline(*arguments, **(variables or environment()))
        self.assertEqual(found, status)
        return output

    def file(self, name, content):
        path = self.scratch / name
        path.write_bytes(content)
        return path

    def put_ours(self, name, content, *options, **variables):
        self.ours("put", self.file("put", content), f"{self.base}/{name}", *options, **variables)
        return self.container.get_blob_client(f"{self.prefix}/{name}")

    def put_theirs(self, name, content, **options):
        blob = self.container.get_blob_client(f"{self.prefix}/{name}")
        blob.upload_blob(content, **options)
        return blob

    def get_ours(self, name, status=0, **variables):
        target = self.scratch / "got"
        target.unlink(missing_ok=True)
        self.ours("get", f"{self.base}/{name}", target, status=status, **variables)
        return target.read_bytes() if status == 0 else None

    def names_theirs(self):
        return sorted(blob.name[len(self.prefix) + 1 :] for blob in self.container.list_blobs(self.prefix + "/"))


class TheClientReadsOurs(Case):
    def test_a_small_object(self):
        content = noise(100_003, seed=1)
        blob = self.put_ours("small", content)
        self.assertEqual(blob.download_blob().readall(), content)
        properties = blob.get_blob_properties()
        self.assertEqual((properties.blob_type, properties.size), ("BlockBlob", len(content)))
        self.assertIn(f"crc32c:{crc32c(content)}", properties.metadata.values())

    def test_an_empty_object(self):
        blob = self.put_ours("empty", b"")
        self.assertEqual(blob.download_blob().readall(), b"")
        self.assertIn("crc32c:00000000", blob.get_blob_properties().metadata.values())

    def test_an_object_of_many_blocks(self):
        content = noise(9 * MIB + 12_345, seed=2)
        blob = self.put_ours("large", content, "--part-size", "1MiB")
        self.assertEqual(blob.download_blob().readall(), content)
        committed, uncommitted = blob.get_block_list("all")
        self.assertGreater(len(committed), 1)
        self.assertEqual(len(uncommitted), 0)
        self.assertEqual(sum(block.size for block in committed), len(content))
        self.assertEqual(len({len(block.id) for block in committed}), 1)
        self.assertEqual(len({block.id for block in committed}), len(committed))

    def test_odd_names(self):
        for name in ODD_NAMES:
            with self.subTest(name=name):
                content = name.encode()
                self.assertEqual(self.put_ours(name, content).download_blob().readall(), content)
        self.assertEqual(self.names_theirs(), sorted(ODD_NAMES))

    def test_what_was_removed_is_gone(self):
        for name in ("one", "two", "other"):
            self.put_ours(name, b"x")
        self.ours("rm", f"{self.base}/one", f"{self.base}/two")
        self.assertEqual(self.names_theirs(), ["other"])

    def test_a_checkpoint(self):
        contents = [noise(50_000 + rank, seed=rank) for rank in range(4)]
        files = [self.file(f"rank{rank}.bin", content) for rank, content in enumerate(contents)]
        self.ours("save", *files, self.base, "--step", 7)
        manifests = [name for name in self.names_theirs() if name.startswith("manifests/")]
        self.assertEqual(len(manifests), 1)
        read = lambda name: self.container.download_blob(f"{self.prefix}/{name}").readall()
        manifest = json.loads(read(manifests[0]))
        self.assertEqual((manifest["global_step"], manifest["world_size"]), (7, len(contents)))
        for shard in manifest["shards"]:
            content = contents[shard["rank"]]
            self.assertEqual(read(shard["key"]), content)
            self.assertEqual(shard["checksum"], f"crc32c:{crc32c(content)}")

    def test_a_create_only_put_leaves_theirs(self):
        blob = self.put_theirs("taken", b"theirs")
        path = self.file("put", b"ours")
        self.ours("put", "--create-only", path, f"{self.base}/taken", status=3)
        self.assertEqual(blob.download_blob().readall(), b"theirs")


class WeReadTheClients(Case):
    def test_whole_objects_of_both_kinds(self):
        small, large = noise(10_000, seed=3), noise(5 * MIB + 1, seed=4)
        self.put_theirs("small", small)
        blob = self.put_theirs("large", large, max_concurrency=1)
        self.assertEqual(self.get_ours("small"), small)
        self.assertEqual(self.get_ours("large"), large)
        blocks = [(f"{index:04}", large[index * MIB : (index + 1) * MIB]) for index in range(6)]
        for block_id, content in blocks:
            blob.stage_block(block_id, content)
        blob.commit_block_list([azure.storage.blob.BlobBlock(block_id) for block_id, _ in blocks])
        self.assertEqual(self.get_ours("large"), large)

    def test_odd_names(self):
        for name in ODD_NAMES:
            self.put_theirs(name, name.encode())
            self.assertEqual(self.get_ours(name), name.encode())
        listed = self.ours("ls", f"{self.base}/")
        for name in ODD_NAMES:
            self.assertIn(name.split("/")[0], listed)

    def test_a_flipped_byte_in_a_shard_is_damage(self):
        content = bytearray(noise(100_000, seed=5))
        self.ours("save", self.file("rank0.bin", bytes(content)), self.base, "--step", 7)
        self.ours("verify", self.base)
        (shard,) = [name for name in self.names_theirs() if name.endswith(".bin")]
        content[50_000] ^= 0x10
        self.put_theirs(shard, bytes(content), overwrite=True)
        self.ours("verify", self.base, status=1)


class WeUseTheClientsSignatures(Case):
    def test_a_signature_that_allows_all(self):
        allowed = sas(read=True, write=True, create=True, list=True, delete=True)
        content = noise(3 * MIB, seed=6)
        blob = self.put_ours("signed", content, "--part-size", "1MiB", **allowed)
        self.assertEqual(blob.download_blob().readall(), content)
        self.assertEqual(self.get_ours("signed", **allowed), content)
        self.assertIn("signed", self.ours("ls", f"{self.base}/", **allowed))

    def test_a_signature_that_allows_to_read_alone(self):
        self.put_theirs("theirs", b"theirs")
        allowed = sas(read=True, list=True)
        self.assertEqual(self.get_ours("theirs", **allowed), b"theirs")
        token = allowed["AZURE_STORAGE_SAS_TOKEN"]
        path = self.file("put", b"ours")
        status, output = syncline("put", path, f"{self.base}/new", "--json", **allowed)
        self.assertEqual(status, 3)
        signature = urllib.parse.parse_qs(token)["sig"][0]
        shown = urllib.parse.unquote(output + sys.stderr.getvalue())
        self.assertNotIn(signature, shown)
        self.assertEqual(self.names_theirs(), ["theirs"])

    def test_a_signature_that_is_wrong_is_told_and_not_shown(self):
        allowed = sas(read=True, list=True)
        token = allowed["AZURE_STORAGE_SAS_TOKEN"]
        signature = urllib.parse.parse_qs(token)["sig"][0]
        wrong = signature[:10] + signature[10:].swapcase()
        allowed["AZURE_STORAGE_SAS_TOKEN"] = token.split("sig=")[0] + f"sig={urllib.parse.quote(wrong, safe='')}"
        self.put_theirs("theirs", b"theirs")
        status, output = syncline("get", f"{self.base}/theirs", self.scratch / "got", **allowed)
        self.assertEqual(status, 3)
        shown = urllib.parse.unquote(output + sys.stderr.getvalue())
        self.assertIn("403", shown)
        self.assertNotIn(wrong[10:], shown)


if __name__ == "__main__":
    sys.exit(run(sys.modules[__name__], f"azure-storage-blob {azure.storage.blob.__version__}"))
