"""Checkpoints cross over: the s3dlio wheel reads what Syncline saved, and the other way round.

Needs the wheel (requirements.txt) and the path of the `syncline` program in SYNCLINE.
The last line is `N passed, N failed`.
"""

import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import unittest

import s3dlio

SYNCLINE = os.environ["SYNCLINE"]

# Our names of the key strategies, and theirs.
STRATEGIES = [("flat", "flat"), ("round-robin", "round_robin"), ("binary", "binary")]

# Ranks of a distributed save: more than the 16 folders of round-robin.
WORLD_SIZE = 18


def syncline(*arguments, **environment):
    """Runs our command line; returns its exit status and standard output."""
    command = [SYNCLINE, *(str(argument) for argument in arguments)]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )
    print(f"$ {' '.join(command)}\n{done.stdout}{done.stderr}-> {done.returncode}", file=sys.stderr)
    return done.returncode, done.stdout


def noise(size_bytes, seed):
    return random.Random(seed).randbytes(size_bytes)


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def shards_of(base, suffix=".bin"):
    return sorted(base.glob(f"shards/**/*{suffix}"))


def theirs(base, strategy=None):
    return s3dlio.PyCheckpointStore(f"file://{base}", strategy)


class Case(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="syncline-interop-")
        self.addCleanup(scratch.cleanup)
        self.scratch = pathlib.Path(scratch.name)
        self.base = self.scratch / "base"

    def file(self, name, content):
        path = self.scratch / name
        path.write_bytes(content)
        return path

    def save_ours(self, contents, step, *options):
        files = [self.file(f"state-{rank}.bin", content) for rank, content in enumerate(contents)]
        status, _ = syncline("save", *files, self.base, "--step", step, *options)
        self.assertEqual(status, 0)

    def save_theirs(self, contents, step, strategy=None):
        store = theirs(self.base, strategy)
        world_size = len(contents)
        metas = [
            store.writer(world_size, rank).save_distributed_shard(step, 2, "torch", content)
            for rank, content in enumerate(contents)
        ]
        store.writer(world_size, 0).finalize_distributed_checkpoint(step, 2, "torch", metas, None)

    def restore_ours(self, *options):
        """What our restore writes, by rank, for a checkpoint without file names."""
        target = self.scratch / "restored"
        target.mkdir()
        status, _ = syncline("restore", self.base, target, *options)
        names = sorted(path.name for path in target.iterdir())
        return status, {name: (target / name).read_bytes() for name in names}


class TheWheelReadsOurs(Case):
    def test_one_shard(self):
        content = noise(3_000_017, seed=1)
        self.save_ours([content], 7, "--epoch", 2, "--framework", "torch", "--meta", "lr=0.1")
        self.assertEqual(bytes(theirs(self.base).load_latest()), content)

    def test_many_shards_under_every_strategy(self):
        contents = [noise(1000 + rank, seed=rank) for rank in range(WORLD_SIZE)]
        for strategy, _ in STRATEGIES:
            with self.subTest(strategy=strategy):
                self.base = self.scratch / strategy
                self.save_ours(contents, 11, "--epoch", 3, "--framework", "jax", "--strategy", strategy)
                reader = theirs(self.base).reader()
                manifest = reader.load_latest_manifest()
                head = {key: manifest[key] for key in ("global_step", "epoch", "framework", "world_size")}
                expected = {"global_step": 11, "epoch": 3, "framework": "jax", "world_size": WORLD_SIZE}
                self.assertEqual(head, expected)
                for rank, content in enumerate(contents):
                    self.assertEqual(bytes(reader.read_shard_by_rank(manifest, rank)), content)

    def test_the_newest_of_several(self):
        for step in (9, 100, 20):
            self.save_ours([b"step %d" % step], step)
        steps = [checkpoint.step for checkpoint in theirs(self.base).list_checkpoints()]
        self.assertEqual(sorted(steps), [9, 20, 100])

    def test_a_flipped_byte_is_refused(self):
        self.save_ours([noise(100_000, seed=2)], 7)
        (shard,) = shards_of(self.base)
        flip_a_byte(shard)
        with self.assertRaisesRegex(RuntimeError, "Integrity validation failed"):
            theirs(self.base).load_latest()

    def test_a_flipped_byte_in_one_of_many_is_refused(self):
        contents = [noise(5000, seed=rank) for rank in range(3)]
        self.save_ours(contents, 7)
        flip_a_byte(next(path for path in shards_of(self.base) if path.name == "rank-1.bin"))
        reader = theirs(self.base).reader()
        manifest = reader.load_latest_manifest()
        self.assertEqual(bytes(reader.read_shard_by_rank(manifest, 2)), contents[2])
        with self.assertRaisesRegex(RuntimeError, "Integrity validation failed"):
            reader.read_shard_by_rank(manifest, 1)


    def test_compressed_shards(self):
        # One that shrinks, in several frames of 8 MiB; one that does not; and a short one.
        contents = [b"the state of a simulation" * 800_000, noise(100_000, seed=6), b"short"]
        for level in ("zstd:1", "zstd:19"):
            with self.subTest(level=level):
                self.base = self.scratch / level
                self.save_ours(contents, 7, "--compress", level)
                self.assertEqual(len(shards_of(self.base, ".zst")), 3)
                reader = theirs(self.base).reader()
                manifest = reader.load_latest_manifest()
                for rank, content in enumerate(contents):
                    self.assertEqual(bytes(reader.read_shard_by_rank(manifest, rank)), content)

    def test_a_flipped_byte_of_a_compressed_shard_is_refused(self):
        self.save_ours([b"the state of a simulation" * 10_000], 7, "--compress", "zstd")
        (shard,) = shards_of(self.base, ".zst")
        flip_a_byte(shard)
        with self.assertRaises(RuntimeError):
            theirs(self.base).load_latest()

    def test_a_shuffled_shard_is_refused_by_its_checksum(self):
        self.save_ours([bytes(range(256)) * 100], 7, "--compress", "zstd", "--shuffle", 4)
        with self.assertRaisesRegex(RuntimeError, "Integrity validation failed"):
            theirs(self.base).load_latest()


class WeReadTheWheels(Case):
    def test_one_shard_under_every_strategy(self):
        content = noise(2_000_003, seed=3)
        for _, strategy in STRATEGIES:
            with self.subTest(strategy=strategy):
                self.base = self.scratch / strategy
                theirs(self.base, strategy).save(7, 1, "torch", content)
                self.assertEqual(syncline("verify", self.base)[0], 0)
                status, files = self.restore_ours()
                self.assertEqual((status, files), (0, {"rank-0.bin": content}))
                (self.scratch / "restored" / "rank-0.bin").unlink()
                (self.scratch / "restored").rmdir()

    def test_a_distributed_save(self):
        contents = [noise(1000 + rank, seed=rank) for rank in range(WORLD_SIZE)]
        self.save_theirs(contents, 5, "binary")
        self.assertEqual(syncline("verify", self.base, "--all")[0], 0)
        status, files = self.restore_ours("--step", 5)
        self.assertEqual(status, 0)
        self.assertEqual(files, {f"rank-{rank}.bin": content for rank, content in enumerate(contents)})

    def test_the_manifest_is_shown(self):
        theirs(self.base).save(7, 1, "torch", b"123456789")
        status, text = syncline("show", self.base, "--json")
        self.assertEqual(status, 0)
        self.assertIn("crc32c:e3069283", json.dumps(json.loads(text)))

    def test_a_flipped_byte_is_damage(self):
        self.save_theirs([noise(50_000, seed=4), noise(50_000, seed=5)], 5)
        flip_a_byte(shards_of(self.base)[1])
        self.assertEqual(syncline("verify", self.base)[0], 1)
        status, files = self.restore_ours("--step", 5)
        self.assertEqual((status, "rank-1.bin" in files), (1, False))

    def test_a_missing_shard_is_damage(self):
        self.save_theirs([b"one", b"two"], 5)
        shards_of(self.base)[0].unlink()
        self.assertEqual(syncline("verify", self.base)[0], 1)

    def test_a_compressed_shard_is_refused_by_name_and_zstd_opens_it(self):
        content = b"the state of a simulation" * 10_000
        s3dlio.PyCheckpointStore(f"file://{self.base}", compression_level=3).save(7, 1, "torch", content)
        (shard,) = shards_of(self.base, ".zst")
        status, text = syncline("verify", self.base, "--json")
        self.assertNotEqual(status, 0)
        (found,) = json.loads(text)["checkpoints"][0]["shards"]
        self.assertEqual(found["state"], "unsupported")
        self.assertIn("zstd -d", found["why"])
        status, files = self.restore_ours("--step", 7)
        self.assertEqual(files, {})
        self.assertNotEqual(status, 0)
        opened = subprocess.run(["zstd", "-dcq", shard], capture_output=True, check=True, timeout=120)
        self.assertEqual(opened.stdout, content)


class BothShareABase(Case):
    def test_whoever_saved_last_is_the_latest_for_both(self):
        theirs(self.base).save(1, 0, "torch", b"theirs, step 1")
        self.save_ours([b"ours, step 2"], 2)
        self.assertEqual(bytes(theirs(self.base).load_latest()), b"ours, step 2")
        theirs(self.base).save(3, 0, "torch", b"theirs, step 3")
        self.assertEqual(syncline("verify", self.base, "--all")[0], 0)
        status, files = self.restore_ours()
        self.assertEqual((status, files), (0, {"rank-0.bin": b"theirs, step 3"}))


def run(module, title):
    """Runs a module's tests; returns the exit status."""
    # Output of the commands is kept back, and shown for a test that fails.
    suite = unittest.defaultTestLoader.loadTestsFromModule(module)
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2, buffer=True).run(suite)
    broken = len({test.id().split(" ")[0] for test, _ in result.failures + result.errors})
    print(title)
    print(f"{result.testsRun - broken} passed, {broken} failed")
    return 0 if broken == 0 and result.testsRun > 0 else 1


def main():
    title = f"s3dlio {s3dlio.__version__}" if hasattr(s3dlio, "__version__") else "s3dlio"
    return run(sys.modules[__name__], title)


if __name__ == "__main__":
    sys.exit(main())
