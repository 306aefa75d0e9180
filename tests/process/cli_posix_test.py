"""The command line over a plain folder: every verb that needs no daemon, from outside."""

import hashlib
import json
import os
import pathlib
import random
import re
import shlex
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest
import zlib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from crc32c import crc32c  # noqa: E402 (after the path is known)

SIPHON = str(pathlib.Path(os.environ["SIPHON_BIN_DIR"]) / "siphon")
BLOCK_HEADER = 48
CONFIRM = "--yes-i-really-mean-it"

(OK, OTHER, USAGE, NOT_FOUND, PERMISSION, TEMPORARY, PARTIAL, FATAL, LIMIT, NOTHING_TO_DO,
 _, NEEDS_CONFIRMATION, NOT_FIT) = range(13)


def clean_environment(**more):
    environment = {k: v for k, v in os.environ.items()
                   if not k.startswith(("SIPHON_", "CEPH_"))}
    environment.update(more)
    return environment


class CliTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.home = pathlib.Path(folder.name)
        self.store = self.home / "store"
        self.store.mkdir()
        self.random = random.Random(20261122)

    def address(self, name=""):
        return f"posix:{self.store}" + (f"/{name}" if name else "")

    def siphon(self, *arguments, expect=OK, data=None, env=None):
        run = subprocess.run([SIPHON, *map(str, arguments)], input=data or b"",
                             capture_output=True, env=clean_environment(**(env or {})), timeout=60)
        self.assertEqual(run.returncode, expect,
                         f"siphon {arguments}\nstdout: {run.stdout[:2000]}\nstderr: {run.stderr}")
        return run

    def json(self, *arguments, expect=OK, **more):
        run = self.siphon(*arguments, "-f", "json", expect=expect, **more)
        document = json.loads(run.stdout)
        self.assertEqual(document["schema_version"], 1)
        self.assertEqual(document["exit_code"], expect)
        return document

    def content(self, size):
        return self.random.randbytes(size)

    def file(self, name, data):
        path = self.home / name
        path.write_bytes(data)
        return path

    def put(self, name, data, *arguments):
        self.siphon("put", *arguments, self.address(name), "-", data=data)

    def kill_a_put(self):
        """Of e1, when some of it is there."""
        writer = subprocess.Popen([SIPHON, "put", self.address("e1"), "-"], stdin=subprocess.PIPE,
                                  env=clean_environment())
        try:
            writer.stdin.write(self.content(8 << 20))
            writer.stdin.flush()
            deadline = time.monotonic() + 30
            while not self.json("scratch", "ls", self.address())["entries"]:
                self.assertLess(time.monotonic(), deadline)
        finally:
            writer.kill()
            writer.communicate()

    def backdate_trash(self, name, hours_of):
        """Rewrites when each generation got there: the youngest, the one before it, ... so many
        hours ago. In the head file, as docs/extent_format.md has it."""
        path = self.store / ".siphon" / "head" / name
        raw = path.read_bytes()
        sizes = struct.unpack_from("<II", raw, 8)
        registers, at, now = [], 16, time.time()
        for size in sizes:
            register = bytearray(raw[at:at + size])
            at += size
            if register:
                reservations, entries = register[62:64]
                for back, hours in enumerate(hours_of[:entries]):
                    entry = 128 + 48 * reservations + 96 * (entries - 1 - back)
                    struct.pack_into("<Q", register, entry + 56, int((now - hours * 3600) * 1000))
                struct.pack_into("<I", register, size - 4, crc32c(register[:-4]))
            registers.append(bytes(register))
        path.write_bytes(raw[:16] + b"".join(registers))

    def leftovers(self):
        """Files of scratch extents and half-written heads."""
        return [p for sub in ("data", "tmp") for p in (self.store / ".siphon" / sub).glob("*")]


class PutAndGet(CliTest):
    def test_round_trips_of_all_sizes(self):
        for size in (1, 4096, 4 << 20, (4 << 20) + 1, (1 << 20) - 112, 1 << 20, 20_000_003):
            data = self.content(size)
            self.put(f"e{size}", data)
            got = self.siphon("get", self.address(f"e{size}"), "-")
            self.assertEqual(hashlib.sha256(got.stdout).digest(), hashlib.sha256(data).digest())
            target = self.home / "out"
            self.siphon("get", "--force", self.address(f"e{size}"), target)
            self.assertEqual(target.read_bytes(), data)
        self.assertEqual(self.leftovers(), [])

    def test_the_stored_bytes_are_blocks_index_and_footer(self):
        data = self.content(10_000)
        self.put("e1", data, "--block-size", "4K")
        stored = (self.store / "e1").read_bytes()
        info = self.json("stat", self.address("e1"))["info"]
        self.assertEqual(info["header"]["extent_bytes"], len(stored))
        self.assertEqual(info["header"]["crc32"], f"{zlib.crc32(stored):08x}")
        self.assertEqual(info["header"]["content_bytes"], len(data))
        self.assertEqual(info["header"]["content_digest"],
                         hashlib.sha256(stored[-64 - 3 * 48:-64]).hexdigest())
        blocks = self.json("blocks", self.address("e1"))["blocks"]
        self.assertEqual([b["length_bytes"] for b in blocks], [4096, 4096, 1808])
        content = b""
        for block in blocks:
            start = block["offset_bytes"] + BLOCK_HEADER
            piece = stored[start:start + block["length_bytes"]]
            self.assertEqual(hashlib.sha256(piece).hexdigest(), block["sha256"])
            content += piece
        self.assertEqual(content, data)

    def test_a_name_that_is_taken(self):
        self.put("e1", b"one")
        self.siphon("put", self.address("e1"), "-", data=b"two", expect=FATAL)
        self.siphon("put", "--replace", self.address("e1"), "-", data=b"two",
                    expect=NEEDS_CONFIRMATION)
        self.assertEqual(self.siphon("get", self.address("e1")).stdout, b"one")
        self.siphon("put", "--replace", CONFIRM, self.address("e1"), "-", data=b"two")
        self.assertEqual(self.siphon("get", self.address("e1")).stdout, b"two")
        self.assertEqual(self.json("stat", self.address("e1"))["info"]["trashed"], 1)

    def test_nothing_is_put_from_nothing(self):
        self.siphon("put", self.address("e1"), self.home / "none", expect=NOT_FOUND)
        self.siphon("put", self.address("e1"), self.home, expect=USAGE)
        self.assertEqual(self.siphon("ls", self.address()).stdout, b"")

    def test_an_empty_extent_is_one_like_another(self):
        for more in ((), ("--open",)):
            self.put("empty", b"", *more)
            if more:
                self.siphon("seal", self.address("empty"))
            self.assertEqual((self.store / "empty").stat().st_size, 64)
            header = self.json("stat", self.address("empty"))["info"]["header"]
            self.assertEqual((header["content_bytes"], header["blocks"]), (0, 0))
            self.assertEqual(header["content_digest"], hashlib.sha256(b"").hexdigest())
            self.siphon("verify", self.address("empty"))
            got = self.home / f"got{len(more)}"
            self.siphon("get", self.address("empty"), got)
            self.assertEqual(got.read_bytes(), b"")
            self.siphon("rm", "--purge", CONFIRM, self.address("empty"))

    def test_a_rotten_block_leaves_no_file(self):
        self.put("e1", self.content(9_000_000))
        path = self.store / "e1"
        stored = bytearray(path.read_bytes())
        stored[6_000_000] ^= 1
        path.write_bytes(stored)
        target = self.home / "out"
        run = self.siphon("get", self.address("e1"), target, expect=FATAL)
        self.assertIn(b"block 1", run.stderr)
        self.assertEqual([p.name for p in self.home.glob("out*")], [])
        target.write_bytes(b"older")
        self.siphon("get", "--force", self.address("e1"), target, expect=FATAL)
        self.assertEqual(target.read_bytes(), b"older")
        self.siphon("get", self.address("e1"), "-", expect=FATAL)

    def test_rot_in_the_index_or_the_footer(self):
        self.put("e1", self.content(100_000))
        path = self.store / "e1"
        whole = path.read_bytes()
        for offset in (len(whole) - 1, len(whole) - 30, len(whole) - 64 - 20, 3):
            stored = bytearray(whole)
            stored[offset] ^= 0x40
            path.write_bytes(stored)
            self.siphon("get", self.address("e1"), "-", expect=FATAL)
            document = self.json("verify", self.address("e1"), expect=FATAL)
            self.assertEqual(document["extents"][0]["problem"]["code"], "DATA_LOSS")
        path.write_bytes(whole)
        self.siphon("verify", self.address("e1"))

    def test_get_with_json_keeps_stdout_for_the_data(self):
        self.put("e1", b"content")
        run = self.siphon("get", "-f", "json", self.address("e1"), "-")
        self.assertEqual(run.stdout, b"content")
        self.assertEqual(json.loads(run.stderr)["info"]["name"], "e1")

    def test_dry_run_writes_nothing(self):
        document = self.json("put", "--dry-run", self.address("e1"), self.file("f", b"abc"))
        self.assertEqual(document["content_bytes"], 3)
        self.assertEqual(self.siphon("ls", self.address()).stdout, b"")

    def test_interrupt_leaves_nothing(self):
        process = subprocess.Popen([SIPHON, "put", "--progress", "plain", self.address("e1"), "-"],
                                   stdin=subprocess.PIPE, stderr=subprocess.PIPE,
                                   env=clean_environment())
        # The first line of progress says that it is at work.
        process.stdin.write(self.content(20_000_000))
        process.stdin.flush()
        self.assertNotEqual(process.stderr.readline(), b"")
        process.send_signal(signal.SIGINT)
        error = process.stderr.read()
        process.stderr.close()
        self.assertEqual(process.wait(30), 130)
        process.stdin.close()
        self.assertIn(b"interrupted", error)
        self.assertEqual(self.leftovers(), [])
        self.siphon("stat", self.address("e1"), expect=NOT_FOUND)

    def test_a_reader_that_goes_away(self):
        self.put("e1", self.content(9_000_000))
        process = subprocess.Popen([SIPHON, "get", self.address("e1"), "-"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   env=clean_environment())
        process.stdout.read(10)
        process.stdout.close()
        error = process.stderr.read()
        process.stderr.close()
        self.assertEqual(process.wait(30), 141)
        self.assertEqual(error, b"")


class Sealing(CliTest):
    def test_an_open_extent_is_sealed_after_its_last_whole_block(self):
        data = self.content(50_000)
        self.put("e1", data, "--open", "--block-size", "8K")
        self.assertEqual(self.json("stat", self.address("e1"))["info"]["state"], "open")
        self.siphon("get", self.address("e1"), "-", expect=FATAL)
        with open(self.store / "e1", "ab") as f:
            f.write(b"torn" * 300)
        self.assertEqual(self.json("blocks", self.address("e1"))["rest_bytes"], 1200)
        plan = self.json("seal", "--dry-run", self.address("e1"))
        self.assertEqual(plan["dropped_bytes"], 1200)
        self.assertEqual(self.json("stat", self.address("e1"))["info"]["state"], "open")
        done = self.json("seal", self.address("e1"))
        self.assertEqual(done["header"]["crc32"], plan["header"]["crc32"])
        self.assertEqual(self.siphon("get", self.address("e1")).stdout, data)
        self.siphon("verify", self.address("e1"))
        self.siphon("seal", self.address("e1"), expect=NOTHING_TO_DO)

    def test_a_torn_block_is_dropped_whole(self):
        data = self.content(3 * 8192)
        self.put("e1", data, "--open", "--block-size", "8K")
        path = self.store / "e1"
        os.truncate(path, path.stat().st_size - 1)
        self.siphon("seal", self.address("e1"))
        self.assertEqual(self.siphon("get", self.address("e1")).stdout, data[:2 * 8192])

    def test_whole_blocks_behind_a_damaged_one_are_not_cut_off_unasked(self):
        block = 8192 + 48
        data = self.content(8 * 8192)
        self.put("e1", data, "--open", "--block-size", "8K")
        path = self.store / "e1"
        whole = path.read_bytes()
        for at in (2 * block + 5000, 2 * block + 9):  # the content; the header
            spoilt = bytearray(whole)
            spoilt[at] ^= 1
            path.write_bytes(spoilt)
            for more in ((), ("--dry-run",), (CONFIRM,)):
                ran = self.siphon("seal", self.address("e1"), *more, expect=FATAL)
                said = ran.stderr.decode()
                self.assertIn(f"damaged at byte {2 * block}", said)
                self.assertIn(f"cuts {6 * block} bytes off", said)
                self.assertIn(f"{5 * block} are sound: 5 blocks from byte {3 * block}", said)
            self.siphon("seal", "--drop-damaged", self.address("e1"), expect=NEEDS_CONFIRMATION)
            self.assertEqual(path.read_bytes(), spoilt)
        drop = ("seal", "--drop-damaged", self.address("e1"))
        plan = self.json(*drop, "--dry-run")
        self.assertEqual((plan["dropped_bytes"], plan["dropped_sound_bytes"]),
                         (6 * block, 5 * block))
        self.assertEqual(self.json("stat", self.address("e1"))["info"]["state"], "open")
        done = self.json(*drop, CONFIRM)
        self.assertEqual(done["header"]["crc32"], plan["header"]["crc32"])
        self.assertEqual(self.siphon("get", self.address("e1")).stdout, data[:2 * 8192])

    def test_an_extent_that_begins_with_damage_is_not_sealed_away(self):
        self.put("e1", self.content(4 * 8192), "--open", "--block-size", "8K")
        path = self.store / "e1"
        spoilt = b"X" + path.read_bytes()[1:]
        path.write_bytes(spoilt)
        for more in ((), ("--drop-damaged", CONFIRM)):
            self.siphon("seal", self.address("e1"), *more, expect=FATAL)
        self.assertEqual(path.read_bytes(), spoilt)

    def test_sealed_from_open_equals_sealed_at_once(self):
        data = self.content(5_000_000)
        self.put("at-once", data)
        self.put("later", data, "--open")
        self.siphon("seal", self.address("later"))
        self.assertEqual((self.store / "at-once").read_bytes(),
                         (self.store / "later").read_bytes())


class Looking(CliTest):
    def test_ls(self):
        for name in ("b", "a", "c"):
            self.put(name, name.encode() * 100)
        self.put("open", b"x", "--open")
        self.assertEqual(self.siphon("ls", self.address()).stdout, b"a\nb\nc\nopen\n")
        document = self.json("ls", "-l", self.address())
        by_name = {e["name"]: e for e in document["extents"]}
        self.assertEqual(by_name["a"]["state"], "sealed")
        self.assertEqual(by_name["open"]["state"], "open")
        self.assertIsInstance(by_name["a"]["header"]["extent_bytes"], int)
        self.assertRegex(by_name["a"]["header"]["sealed_at"], r"^\d{4}-\d\d-\d\dT.*Z$")
        table = self.siphon("ls", "-l", self.address()).stdout.decode().splitlines()
        self.assertEqual(len(table), 5)
        self.assertTrue(table[0].startswith("NAME"))
        # Nobody has counted the bytes and the blocks of an open one.
        self.assertRegex(table[4], r"^open +- +open +- +- +\d+ +-$")

    def test_what_is_not_there(self):
        for verb in ("stat", "get", "blocks", "verify", "seal"):
            self.siphon(verb, self.address("none"), expect=NOT_FOUND)
        self.siphon("ls", f"posix:{self.home}/none", expect=NOT_FOUND)

    def test_verify(self):
        self.put("a", self.content(3_000_000))
        self.put("b", self.content(10))
        self.assertEqual(self.json("verify", self.address() + "/")["verified"], 2)
        path = self.store / "a"
        stored = bytearray(path.read_bytes())
        stored[1_000_000] ^= 4
        path.write_bytes(stored)
        document = self.json("verify", self.address() + "/", expect=PARTIAL)
        self.assertEqual((document["verified"], document["failed"]), (1, 1))
        self.siphon("verify", self.address("a"), expect=FATAL)

    def test_verify_both_ends(self):
        data = self.content(100_000)
        self.put("a", data)
        self.put("same", data)
        self.put("other", data[:-1])
        self.siphon("verify", self.address("a"), self.address("same"))
        self.siphon("verify", self.address("a"), self.address("other"), expect=FATAL)
        self.siphon("verify", self.address("a"), self.address("none"), expect=NOT_FOUND)

    def test_what_is_only_in_the_target_is_no_extent_that_failed(self):
        there = self.home / "there"
        there.mkdir()
        for name in ("a", "b"):
            self.put(name, b"a")
        for name, data in (("a", b"a"), ("b", b"b"), ("more", b"b")):
            self.siphon("put", f"posix:{there}/{name}", "-", data=data)
        ends = (self.address() + "/", f"posix:{there}/")
        for more in ((), ("--exact",)):
            document = self.json("verify", *more, *ends, expect=PARTIAL)
            self.assertEqual((document["verified"], document["failed"]), (1, 1))
            self.assertEqual(document["only_in_target"], [f"posix:{there}/more"])
        self.siphon("rm", CONFIRM, self.address("b"), f"posix:{there}/b")
        self.assertEqual(self.json("verify", *ends)["failed"], 0)
        document = self.json("verify", "--exact", *ends, expect=PARTIAL)
        self.assertEqual((document["verified"], document["failed"]), (1, 0))

    def test_twins_of_one_crc32_are_told_apart(self):
        self.put("a", b"0001cac0")
        self.put("b", b"0002a960")
        headers = [self.json("stat", self.address(n))["info"]["header"] for n in "ab"]
        self.assertEqual(headers[0]["crc32"], headers[1]["crc32"])
        self.assertNotEqual(headers[0]["content_digest"], headers[1]["content_digest"])
        ran = self.siphon("verify", self.address("a"), self.address("b"), expect=FATAL)
        self.assertIn(b"the two differ", ran.stderr)

    def test_a_truncated_extent_is_damage_and_no_crash(self):
        self.put("a", self.content(100_000))
        path = self.store / "a"
        for size in (99_000, 64, 1, 0):
            os.truncate(path, size)
            self.siphon("verify", self.address("a"), expect=FATAL)
            self.siphon("get", self.address("a"), "-", expect=FATAL)


class Removing(CliTest):
    def test_trash_then_purge(self):
        self.put("a", self.content(3_000_000))
        self.siphon("rm", self.address("a"), expect=NEEDS_CONFIRMATION)
        self.siphon("rm", "--dry-run", self.address("a"))
        self.siphon("stat", self.address("a"))
        self.siphon("rm", self.address("a"), CONFIRM)
        self.siphon("stat", self.address("a"), expect=NOT_FOUND)
        self.assertEqual(len(self.leftovers()), 1)
        self.siphon("rm", "--purge", self.address("a"), CONFIRM)
        self.assertEqual(self.leftovers(), [])
        self.siphon("rm", "--purge", self.address("a"), CONFIRM, expect=NOT_FOUND)

    def test_several_one_of_them_missing(self):
        self.put("a", b"a")
        self.put("b", b"b")
        run = self.siphon("rm", CONFIRM, self.address("a"), self.address("none"),
                          self.address("b"), expect=PARTIAL)
        self.assertIn(b"none", run.stderr)
        self.assertEqual(self.siphon("ls", self.address()).stdout, b"")

    def test_many_at_once_each_name_and_each_generation_once(self):
        """Side by side, but for what changes one register; told in the order they were named."""
        names = [f"e{number:03}" for number in range(40)]
        for name in names:
            self.put(name, name.encode())
        twice = [self.address(name) for name in names for _ in range(2)]
        ran = self.json("rm", CONFIRM, *twice)
        self.assertEqual([entry["extent"] for entry in ran["extents"]], twice[::2])
        for name in names:
            self.put(name, name.encode() * 2)
        self.siphon("rm", CONFIRM, *(self.address(name) for name in names))
        ran = self.json("trash", "purge", CONFIRM, self.address())
        self.assertEqual(len(ran["entries"]), 2 * len(names))
        self.assertEqual(self.leftovers(), [])


class CorruptHeads(CliTest):
    def corrupt(self, name):
        path = self.store / ".siphon" / "head" / name
        raw = bytearray(path.read_bytes())
        raw[40] ^= 0xFF
        path.write_bytes(raw)
        return bytes(raw)

    def test_ls_tells_of_a_head_that_does_not_decode(self):
        for name in "abc":
            self.put(name, name.encode())
        self.corrupt("b")
        run = self.siphon("ls", self.address(), expect=PARTIAL)
        self.assertEqual(run.stdout, b"a\nb\nc\n")
        self.assertIn(b"head file of extent b is damaged", run.stderr)
        for more in ((), ("-l",)):
            entries = self.json("ls", *more, self.address(), expect=PARTIAL)["extents"]
            self.assertEqual([bool(e.get("problem")) for e in entries], [False, True, False])
            self.assertEqual(entries[1]["problem"]["code"], "DATA_LOSS")
            self.assertIn("--corrupt-head", entries[1]["problem"]["next_step"])

    def test_a_corrupt_head_is_given_up_when_its_bytes_are_kept(self):
        self.put("a", b"content")
        raw = self.corrupt("a")
        record, address = self.home / "record", self.address("a")
        for verb in (("rm", CONFIRM), ("put", "--replace", CONFIRM), ("stat",)):
            self.siphon(*verb, address, expect=FATAL, data=b"other")
        give_up = ("rm", "--corrupt-head", address)
        self.siphon(*give_up, CONFIRM, expect=USAGE)
        self.siphon("rm", "--save", record, address, CONFIRM, expect=USAGE)
        self.siphon(*give_up, "--save", record, expect=NEEDS_CONFIRMATION)
        self.siphon(*give_up, "--save", record, "--dry-run")
        record.write_bytes(b"somebody's")
        self.siphon(*give_up, "--save", record, CONFIRM, expect=FATAL)
        self.assertEqual(record.read_bytes(), b"somebody's")
        self.siphon("stat", address, expect=FATAL)  # there still
        record.unlink()
        document = self.json(*give_up, "--save", record, CONFIRM)
        self.assertEqual(record.read_bytes(), raw)
        self.assertEqual(document["saved"], [str(record)])
        # The bytes are a plain file now, and nobody's: not overwritten, not removed.
        stored = (self.store / "a").read_bytes()
        self.assertIn(b"content", stored)
        self.siphon("put", address, "-", data=b"other", expect=FATAL)
        self.assertEqual((self.store / "a").read_bytes(), stored)
        (self.store / "a").rename(self.home / "aside")
        self.put("a", b"anew")
        self.assertEqual(self.siphon("get", address, "-").stdout, b"anew")

    def test_what_is_in_order_or_not_there_is_no_corrupt_head(self):
        self.put("a", b"content")
        record = self.home / "record"
        give_up = ("rm", "--corrupt-head", "--save", record, CONFIRM)
        self.siphon(*give_up, self.address("a"), expect=FATAL)
        self.siphon(*give_up, self.address("none"), expect=NOT_FOUND)
        (self.store / "foreign").write_bytes(b"somebody's")
        self.siphon(*give_up, self.address("foreign"), expect=NOT_FOUND)
        self.assertEqual((self.store / "foreign").read_bytes(), b"somebody's")
        self.assertFalse(record.exists())
        self.assertEqual(self.siphon("get", self.address("a"), "-").stdout, b"content")


class TrashAndScratch(CliTest):
    SURE = "--yes-i-really-mean-it"

    def put_and_get(self, name, data):
        self.put(name, data, "--replace", self.SURE)

    def test_looking_creates_nothing(self):
        for verb in ("ls", "trash ls", "scratch ls"):
            self.siphon(*verb.split(), self.address() + "/")
        self.siphon("stat", self.address("e1"), expect=NOT_FOUND)
        self.siphon("put", "--dry-run", self.address("e1"), self.file("in", b"x" * 5000))
        self.assertEqual(os.listdir(self.store), [])

    def test_restore_brings_an_older_generation_back(self):
        old, new = self.content(3 << 20), self.content(5 << 20)
        self.put_and_get("e1", old)
        self.put_and_get("e1", new)
        entry, = self.json("trash", "ls", self.address("e1"))["entries"]
        self.assertTrue(entry["restorable"])
        self.siphon("trash", "restore", self.address("e1"), expect=FATAL)
        self.siphon("rm", self.address("e1"), self.SURE)
        entries = self.json("trash", "ls", self.address() + "/")["entries"]
        self.assertEqual(len(entries), 2)
        before = sorted(os.listdir(self.store))
        self.siphon("trash", "restore", "--dry-run", self.address("e1"))
        self.assertEqual(sorted(os.listdir(self.store)), before)
        self.siphon("trash", "restore", self.address("e1"), "--private-id", entry["private_id"])
        self.assertEqual(self.siphon("get", self.address("e1"), "-").stdout, old)

    def test_purge_by_name_and_age_needs_a_confirmation(self):
        self.put_and_get("e1", self.content(2 << 20))
        self.siphon("rm", self.address("e1"), self.SURE)
        self.siphon("trash", "purge", self.address("e1"), expect=NEEDS_CONFIRMATION)
        self.siphon("trash", "purge", "--older-than", "1h", self.address("e1"), self.SURE,
                    expect=NOTHING_TO_DO)
        self.siphon("trash", "purge", "--older-than", "soon", self.address("e1"), expect=USAGE)
        self.siphon("trash", "purge", "--dry-run", self.address("e1"))
        self.assertEqual(len(self.json("trash", "ls", self.address("e1"))["entries"]), 1)
        self.siphon("trash", "purge", self.address("e1"), self.SURE)
        self.assertEqual(self.leftovers(), [])

    def test_purge_by_age_takes_the_old_and_leaves_the_young(self):
        for name in ("e1", "e2"):
            for i in range(4):
                self.put_and_get(name, bytes([i]) * 2_000_000)
        self.backdate_trash("e1", [0, 2, 49])
        self.backdate_trash("e2", [1, 30, 24 * 8])
        first, second = self.removed("e1"), self.removed("e2")
        words = ("trash", "purge", self.SURE, "--older-than")

        def gone(age, where, *more):
            ran = self.json(*words, age, where, *more)
            return [e["private_id"] for e in ran["entries"]]

        old = [first[0]["private_id"], *(e["private_id"] for e in second[:2])]
        self.assertEqual(sorted(gone("1d", self.address(), "--dry-run")), sorted(old))
        self.assertEqual(len(self.removed("e1") + self.removed("e2")), 6)
        self.assertEqual(gone("7d", self.address()), [second[0]["private_id"]])
        self.assertEqual(gone("90m", self.address("e1"), "--private-id",
                              first[1]["private_id"]), [first[1]["private_id"]])
        self.assertEqual(sorted(gone("24h", self.address())),
                         sorted([first[0]["private_id"], second[1]["private_id"]]))
        self.siphon(*words, "2h", self.address(), expect=NOTHING_TO_DO)
        self.assertEqual(self.removed("e1"), first[2:])
        self.assertEqual(self.removed("e2"), second[2:])
        self.assertEqual(len(self.leftovers()), 2)
        for name in ("e1", "e2"):
            self.siphon("rm", self.address(name), self.SURE)
            young = (first if name == "e1" else second)[2]["private_id"]
            self.siphon("trash", "restore", self.address(name), "--private-id", young)
            self.assertEqual(self.siphon("get", self.address(name), "-").stdout,
                             bytes([2]) * 2_000_000)

    def test_many_replacements_never_lock_the_name(self):
        for i in range(20):
            self.put_and_get("e1", bytes([i]) * 5000)
        self.assertEqual(len(self.removed("e1")), self.MOST_KEPT)
        self.siphon("rm", self.address("e1"), self.SURE)
        self.siphon("rm", "--purge", self.address("e1"), self.SURE)
        self.assertEqual(self.leftovers(), [])

    def removed(self, name):
        """Its generations in the trash, youngest last."""
        return self.json("trash", "ls", self.address(name))["entries"]

    # What the trash of one name holds at most, for who knows no trash.keep (which may be 15).
    MOST_KEPT = 15

    def test_rm_says_which_generation_it_pushes_out_of_the_trash(self):
        for i in range(self.MOST_KEPT):
            self.put("e1", bytes([i]) * (5000 + i))
            ran = self.json("rm", self.address("e1"), self.SURE)
            self.assertEqual(ran["extents"][0]["left_for_good"], [])
        oldest, second = self.removed("e1")[:2]
        self.put("e1", b"one more")
        dry = self.json("rm", "--dry-run", self.address("e1"))
        self.assertEqual([g["private_id"] for g in dry["extents"][0]["left_for_good"]],
                         [oldest["private_id"]])
        self.assertIn(f"would leave the trash for good, to make room: private id "
                      f"{oldest['private_id']}".encode(),
                      self.siphon("rm", "--dry-run", self.address("e1")).stdout)
        self.assertEqual(len(self.removed("e1")), self.MOST_KEPT)
        ran = self.json("rm", self.address("e1"), self.SURE)["extents"][0]
        self.assertEqual(ran["purged"], 1)
        self.assertEqual(ran["left_for_good"], [{k: oldest[k] for k in
                                                 ("private_id", "since", "bytes")}])
        self.put("e1", b"and one more")
        said = self.siphon("rm", self.address("e1"), self.SURE).stdout.decode()
        self.assertIn(f"left the trash for good, to make room: private id "
                      f"{second['private_id']}", said)
        self.assertEqual(len(self.removed("e1")), self.MOST_KEPT)

    def test_a_dry_removal_says_what_the_removal_does(self):
        for i in range(3):
            self.put_and_get("e1", bytes([i]) * 5000)
        self.put("only-trash", b"x")
        self.siphon("rm", self.address("only-trash"), self.SURE)
        names = [self.address("e1"), self.address("only-trash")]
        for words in (["rm", "--purge", *names], ["rm", names[0], names[0]]):
            dry = self.json(*words, "--dry-run")
            ran = self.json(*words, self.SURE)
            self.assertEqual(dry["extents"], ran["extents"], words)
            self.put("e1", b"y" * 5000)
        self.assertEqual([e["purged"] for e in self.json(
            "rm", "--purge", "--dry-run", names[0])["extents"]], [2])
        self.assertIn(b"(2 generations)",
                      self.siphon("rm", "--purge", "--dry-run", names[0]).stdout)
        self.siphon("rm", "--purge", "--dry-run", names[1], expect=NOT_FOUND)

    def test_a_name_that_is_given_twice_is_removed_once(self):
        self.put("e1", b"x")
        (self.home / "other").symlink_to(self.store)
        both = [self.address("e1"), self.address("e1"), f"posix:{self.home}/other/e1",
                f"posix:{self.home}/./store//e1"]
        for more in (["--dry-run"], [self.SURE]):
            ran = self.json("rm", *both, *more)
            self.assertEqual([e["extent"] for e in ran["extents"]], [self.address("e1")])

    def test_put_says_which_generation_it_pushes_out_of_the_trash(self):
        for i in range(self.MOST_KEPT + 1):
            self.put_and_get("e1", bytes([i]) * 5000)
        oldest = self.removed("e1")[0]
        source = self.file("in", b"x" * 5000)
        words = ("put", "--replace", self.address("e1"), source)
        for more in (("--dry-run",), (self.SURE,)):
            ran = self.json(*words, *more)
            self.assertEqual([g["private_id"] for g in ran["left_for_good"]],
                             [oldest["private_id"]])

    def test_nothing_leaves_the_trash_by_its_age_or_number_that_a_setting_may_keep(self):
        """trash.keep and trash.grace_hours are the devices': the command line cannot know them."""
        for i in range(12):
            self.put_and_get("e1", bytes([i]) * 5000)
        self.backdate_trash("e1", [24 * 30 * (i + 1) for i in range(11)])
        kept = [e["private_id"] for e in self.removed("e1")]
        self.assertEqual(len(kept), 11)
        for change in (("rm", self.address("e1"), self.SURE),
                       ("put", self.address("e1"), __file__),
                       ("put", "--replace", self.address("e1"), __file__, self.SURE)):
            for more in (("--dry-run",), ()):
                ran = self.json(*change, *more)
                self.assertEqual(ran.get("left_for_good", []), [], change)
                for extent in ran.get("extents", []):
                    self.assertEqual((extent["purged"], extent["left_for_good"]), (0, []))
            self.assertEqual([e["private_id"] for e in self.removed("e1")][:11], kept, change)
        self.assertEqual(len(self.removed("e1")), 13)
        said = self.siphon("trash", "ls", self.address("e1")).stdout.decode()
        self.assertIn(" 330 d ", said)
        self.assertNotIn("due", said)  # by which setting, nobody here knows

    def test_a_generation_whose_bytes_are_gone_is_marked_and_not_restored(self):
        self.put("e1", b"older" * 1000)
        self.siphon("rm", self.address("e1"), self.SURE)
        self.put("e1", b"younger" * 1000)
        (self.store / "e1").unlink()  # by somebody who knows nothing of Siphon
        older, younger = self.removed("e1")
        self.assertEqual((older["restorable"], younger["restorable"]), (True, False))
        self.assertIn("gone", younger["problem"]["message"])
        listed = self.siphon("trash", "ls", self.address() + "/").stdout.decode()
        self.assertEqual(sum("not whole" in line for line in listed.splitlines()), 1, listed)
        # As it says: when its file was moved away, and not removed, it comes back.
        moved = shlex.split(re.search(r"move that to (\S+);", younger["problem"]["next_step"])[1])
        self.assertEqual(moved, [f"{self.store}/e1"])
        for more in (["--dry-run"], []):
            run = self.siphon("trash", "restore", *more, self.address("e1"), expect=FATAL)
            self.assertIn(younger["private_id"].encode(), run.stderr)
            self.assertIn(f"--private-id {older['private_id']}".encode(), run.stderr)
        self.siphon("trash", "restore", self.address("e1"), "--private-id", older["private_id"])
        self.assertEqual(self.siphon("get", self.address("e1"), "-").stdout, b"older" * 1000)
        # Cut short is as bad as gone.
        self.siphon("rm", self.address("e1"), self.SURE)
        for kept in (self.store / ".siphon" / "data").iterdir():
            os.truncate(kept, 100)
        entries = self.removed("e1")
        self.assertEqual([e["restorable"] for e in entries], [False, False])
        run = self.siphon("trash", "restore", self.address("e1"), expect=FATAL)
        # What is left is not called gone, and where it is comes before how it goes.
        self.assertIn(f"whole up to byte 100 alone, of the {entries[-1]['bytes']} bytes".encode(),
                      run.stderr)
        self.assertNotIn(b"gone", run.stderr)
        said = run.stderr.decode().partition("next: ")[2]
        left, _, purge = said.partition("; or remove the entry: ")
        self.assertIn(f"/.siphon/data/e1.{entries[-1]['private_id']}", left)
        self.siphon(*shlex.split(purge)[1:], self.SURE, "--dry-run")
        self.siphon(*shlex.split(purge)[1:], self.SURE)
        self.siphon("trash", "purge", self.address("e1"), self.SURE)
        self.assertEqual(self.leftovers(), [])

    LOOKS = (("trash", "ls"), ("trash", "purge", SURE), ("scratch", "ls"), ("scratch", "purge"))

    def test_nothing_is_called_empty_that_is_not_there(self):
        for where in (self.address("none"), f"posix:{self.home}/no-folder",
                      f"posix:{self.home}/no/folder"):
            for words in self.LOOKS:
                run = self.siphon(*words, where, expect=NOT_FOUND)
                self.assertEqual(run.stdout, b"")
        self.put("e1", b"with nothing behind it")
        said = self.siphon("trash", "ls", self.address("e1")).stdout
        self.assertEqual(said, b"the trash is empty\n")
        self.siphon("trash", "purge", self.SURE, self.address("e1"), expect=NOTHING_TO_DO)

    def test_nothing_is_called_empty_that_could_not_be_looked_at(self):
        self.put("e1", b"e1")
        self.put("whole", b"whole")
        self.siphon("rm", self.address("e1"), self.SURE)
        (self.store / ".siphon" / "head" / "e1").write_bytes(b"no head")
        for words in self.LOOKS:
            run = self.siphon(*words, self.address("e1"), expect=FATAL)
            self.assertIn(b"the head file of extent e1 is damaged", run.stderr)
            self.assertEqual(run.stdout, b"")
        for words, said in ((("trash", "ls"), b"the trash is empty"),
                            (("scratch", "ls"), b"no attempts in progress or left over")):
            run = self.siphon(*words, self.address(), expect=PARTIAL)
            self.assertEqual(run.stdout, said + b", as far as it could be looked at\n")

    def test_a_purge_says_why_it_found_nothing(self):
        self.put("e1", b"e1")
        self.siphon("rm", self.address("e1"), self.SURE)
        purge = ("trash", "purge", self.SURE, self.address())
        run = self.siphon(*purge, "--private-id", "ab" * 16, expect=NOTHING_TO_DO)
        self.assertIn(b"nothing to remove: no entry in the trash has that private id", run.stdout)
        run = self.siphon(*purge, "--older-than", "1h", expect=NOTHING_TO_DO)
        self.assertIn(b"nothing to remove: nothing in the trash is as old as that", run.stdout)
        # A clock that was ahead makes no entry too young to be seen.
        self.backdate_trash("e1", [-24])
        self.siphon(*purge)
        self.assertIn(b"the trash is empty", self.siphon(*purge, expect=NOTHING_TO_DO).stdout)

    def test_what_a_killed_put_leaves_is_shown_and_purged(self):
        self.kill_a_put()
        listed = self.json("scratch", "ls", self.address() + "/")
        entry, = listed["entries"]
        self.assertEqual(entry["extent"], self.address("e1"))
        # Of a stream: nobody has counted what came, and that is not 0.
        self.assertIsNone(entry["bytes"])
        self.assertIsNone(listed["bytes"])
        said = self.siphon("scratch", "ls", self.address() + "/").stdout.decode()
        self.assertTrue(said.endswith("1 entry, 1 of a size not known\n"), said)
        self.siphon("scratch", "purge", self.address("e1"), expect=NOTHING_TO_DO)  # its lease
        self.siphon("scratch", "purge", "--all", self.address("e1"), expect=NEEDS_CONFIRMATION)
        self.siphon("scratch", "purge", "--all", self.address("e1"), self.SURE)
        self.assertEqual(self.json("scratch", "ls", self.address())["entries"], [])
        self.assertEqual(self.leftovers(), [])


class NothingBehindTheSlash(CliTest):
    """What "$POOL/$EXTENT" is when EXTENT is not set: never a whole store to who changes."""

    SURE = "--yes-i-really-mean-it"
    # Every verb that changes something, before and after the odd word.
    CHANGES = {"put": ((), (__file__,)), "seal": ((), ()), "rm": ((SURE,), ()),
               "copy": ((), ("p2/e",)), "move": ((SURE,), ("p2/e",)),
               "cancel": (("0" * 32,), ()),
               "trash restore": ((), ()), "trash purge": ((SURE,), ()),
               "scratch purge": (("--all", SURE), ())}
    READING = ("ls", "verify", "trash ls", "scratch ls")

    def test_the_verbs_that_change_something_are_these(self):
        said = self.siphon("xyzzy", expect=USAGE).stderr.decode()
        verbs = said.split("there are: ")[1].splitlines()[0].split(", ")
        verbs = [v for v in verbs if v not in ("trash", "scratch", "config")]
        verbs += ["trash ls", "trash restore", "trash purge", "scratch ls", "scratch purge"]
        changing = {v for v in verbs
                    if b"--dry-run" in self.siphon(*v.split(), "--help").stdout}
        self.assertEqual(changing, set(self.CHANGES))

    def refused(self, verb, *words, whole):
        """With what to write when all is meant; nothing was connected to."""
        for more in ((), ("--dry-run",)):
            run = self.siphon(*verb.split(), *words, *more, expect=USAGE,
                              env={"CEPH_CONF": "/dev/null"})
            self.assertIn(b"names nothing after the slash", run.stderr)
            self.assertIn(f"all of it: {whole}\n".encode(), run.stderr)

    def test_every_verb_that_changes_something_refuses_it(self):
        self.put("e2", b"kept")
        self.siphon("rm", self.address("e2"), self.SURE)
        self.kill_a_put()
        before = self.json("trash", "ls", self.address()), self.json("scratch", "ls",
                                                                     self.address())
        folder = self.address()
        for verb, (first, last) in self.CHANGES.items():
            for odd, whole in (("p1/", "p1"), ("ceph:p1/", "ceph:p1"), (f"{folder}/", folder),
                               (f"{folder}//", folder)):
                with self.subTest(verb=verb, odd=odd):
                    self.refused(verb, *first, odd, *last, whole=whole)
        self.assertEqual((self.json("trash", "ls", self.address()),
                          self.json("scratch", "ls", self.address())), before)

    def test_where_a_copy_or_a_removal_of_many_has_it_last_it_is_refused_too(self):
        self.refused("copy", "p1/e", "p2/", whole="p2")
        self.refused("move", self.SURE, "p1/e", "p1/", "p2", whole="p1")
        self.refused("rm", self.SURE, self.address("e"), self.address() + "/",
                     whole=self.address())

    def test_what_removes_for_good_refuses_a_namespace_too(self):
        for verb in ("trash purge", "scratch purge"):
            self.refused(verb, self.SURE, "p1/ns/", whole="--namespace ns p1")

    def test_who_reads_only_may_write_it(self):
        self.put("e1", b"a")
        for verb in self.READING:
            self.siphon(*verb.split(), self.address() + "/")

    def test_a_flag_with_an_empty_value_is_not_the_default(self):
        self.put("e1", b"kept")
        self.siphon("rm", self.address("e1"), self.SURE)
        for words, flag in ((("trash", "purge", self.SURE, self.address()), "--older-than"),
                            (("trash", "purge", self.SURE, self.address("e1")), "--private-id"),
                            (("trash", "restore", self.address("e1")), "--private-id"),
                            (("put", self.address("e2"), __file__), "--expect-sha256"),
                            (("put", self.address("e2"), __file__), "--expect-bytes"),
                            (("move", self.SURE, "p1/e", "p2"), "--receipts"),
                            (("rm", self.SURE, "p1/e"), "--conf"),
                            (("move", self.SURE, "p1/e", "p2"), "--source-conf")):
            for given in ((flag, ""), (f"{flag}=",)):
                with self.subTest(words=words, given=given):
                    run = self.siphon(*words, *given, expect=USAGE)
                    self.assertIn(flag.encode(), run.stderr)
        self.assertEqual(len(self.json("trash", "ls", self.address())["entries"]), 1)
        self.assertEqual(self.siphon("ls", self.address()).stdout, b"")


class WhatIsNotTheCommandLines(CliTest):
    """Files and bytes that a command must leave alone."""

    PRELOAD = str(pathlib.Path(SIPHON).parent / "plain_rename.so")

    def test_bytes_whose_head_is_lost_go_only_when_all_are_asked_for(self):
        data = self.content(100_000)
        self.put("e1", data)
        self.siphon("rm", self.address("e1"), CONFIRM)
        kept, = (self.store / ".siphon" / "data").iterdir()
        stored = kept.read_bytes()
        (self.store / ".siphon" / "head" / "e1").write_bytes(b"no head")
        self.siphon("rm", "--corrupt-head", "--save", self.home / "saved", CONFIRM,
                    self.address("e1"))
        for named in (False, True):
            for what in (self.address(), self.address("e1")):
                entry, = self.json("scratch", "ls", what)["entries"]
                self.assertEqual((entry["extent"], entry["named"], entry["bytes"]),
                                 (self.address("e1"), False, len(stored)))
                run = self.siphon("scratch", "purge", what, expect=NOTHING_TO_DO)
                self.assertIn(b"left alone, 1 private id: bytes that no head names", run.stderr)
            if not named:
                self.put("e1", b"a new one")  # with a head of its own
        self.put("e1", b"once more", "--replace", CONFIRM)
        self.siphon("trash", "purge", self.address("e1"), CONFIRM)
        self.assertEqual(kept.read_bytes(), stored)
        self.siphon("scratch", "purge", "--all", self.address("e1"), CONFIRM)
        self.assertFalse(kept.exists())
        self.assertEqual(self.siphon("get", self.address("e1"), "-").stdout, b"once more")

    def test_a_file_moved_over_an_extent_is_neither_taken_nor_removed(self):
        self.put("lo", self.content(100_000))
        mine = self.file("mine", b"somebody's notes\n" * 100)
        mine.rename(self.store / "lo")
        for words in (("rm",), ("rm", "--dry-run"), ("rm", "--purge"), ("put", "--replace")):
            run = self.siphon(*words, CONFIRM, self.address("lo"), data=b"other", expect=FATAL)
            self.assertIn(b"lo is not the file that its head names", run.stderr)
        self.assertEqual((self.store / "lo").read_bytes(), b"somebody's notes\n" * 100)
        # As it says: the file goes elsewhere, then what its head says.
        (self.store / "lo").rename(mine)
        purge = re.search(r"goes with: siphon (trash purge .*)$", run.stderr.decode(), re.M)[1]
        self.siphon(*shlex.split(purge), CONFIRM)
        self.put("lo", b"anew")
        self.assertEqual(self.siphon("get", self.address("lo")).stdout, b"anew")

    def test_an_extent_whose_file_was_moved_away_comes_back(self):
        """A current one, whatever its head file looks like, and one from the trash."""
        for size in (1000, 100_000, 2_000_000):
            data = self.content(size)
            self.put("e1", data)
            for removed in (False, True, False):
                if removed:
                    self.siphon("rm", self.address("e1"), CONFIRM)
                there, = (p for p in self.store.rglob("e1*") if p.parent.name != "head")
                there.rename(self.home / "aside")
                said = self.siphon("trash", "ls", self.address()).stderr.decode()
                self.assertEqual(re.search(r"move that to (\S+);", said)[1], str(there))
                (self.home / "aside").rename(there)
                if removed:
                    self.siphon("trash", "restore", self.address("e1"))
                self.assertEqual(self.siphon("get", self.address("e1")).stdout, data)
            self.siphon("rm", "--purge", self.address("e1"), CONFIRM)

    def test_a_put_that_fails_costs_no_generation(self):
        for i in range(16):
            self.put("e1", bytes([i]) * 2_000_000, "--replace", CONFIRM)
        before = self.json("trash", "ls", self.address("e1"))["entries"]
        self.assertEqual(len(before), 15)
        self.siphon("put", "--replace", CONFIRM, "--expect-bytes", "3000000", self.address("e1"),
                    "-", data=b"x" * 2_000_000, expect=TEMPORARY)
        self.assertEqual(self.json("trash", "ls", self.address("e1"))["entries"], before)

    def test_a_file_system_without_that_rename_is_enough(self):
        plain = {"LD_PRELOAD": self.PRELOAD}
        for size in (1000, 2_000_000):
            data, name = self.content(size), f"e{size}"
            self.siphon("put", self.address(name), "-", data=data, env=plain)
            self.siphon("put", "--replace", CONFIRM, self.address(name), "-", data=data, env=plain)
            self.siphon("rm", self.address(name), CONFIRM, env=plain)
            self.siphon("trash", "restore", self.address(name), env=plain)
            self.siphon("get", self.address(name), self.home / name, env=plain)
            self.assertEqual((self.home / name).read_bytes(), data)
        self.assertEqual(sorted(p.name for p in self.home.glob("e*")), ["e1000", "e2000000"])

    def test_a_file_that_appears_there_is_never_replaced(self):
        self.put("e1", b"e1")
        appears = {"LD_PRELOAD": self.PRELOAD, "SIPHON_TEST_APPEARS": "1"}
        out = self.home / "out"
        run = self.siphon("get", self.address("e1"), out, env=appears, expect=FATAL)
        self.assertIn(b"has appeared meanwhile", run.stderr)
        self.siphon("put", self.address("e2"), "-", data=b"x" * 2_000_000, env=appears,
                    expect=FATAL)
        run = self.siphon("rm", self.address("e1"), CONFIRM, env=appears, expect=FATAL)
        self.assertIn(b"is not the file that its head names", run.stderr)
        kept, = (p for p in self.leftovers() if p.name.startswith("e1."))
        for file in (out, self.store / "e2", kept):
            self.assertEqual(file.read_bytes(), b"mine", file)
        kept.unlink()
        self.assertEqual(self.siphon("get", self.address("e1"), "-").stdout, b"e1")
        self.assertEqual(list(self.home.glob("out.*")), [])


@unittest.skipUnless(os.geteuid() == 0, "needs the right to mount")
class FullFolder(CliTest):
    def setUp(self):
        super().setUp()
        self.disk = self.home / "disk"
        self.disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "siphon-test", self.disk],
                       check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", self.disk], check=False)
        self.store = self.disk / "store"
        self.store.mkdir()
        self.data = {name: self.content(500_000) for name in ("e1", "e2", "e3")}
        for name, data in self.data.items():
            self.put(name, data)

    def fill(self):
        with open(self.disk / "others", "ab", buffering=0) as file:
            with self.assertRaises(OSError):
                while True:
                    file.write(b"x" * 4096)
        self.assertEqual(self.free(), 0)

    def free(self):
        return os.statvfs(self.disk).f_bavail

    def test_rm_restore_and_purge_work_on_a_full_disk(self):
        self.fill()
        self.siphon("rm", self.address("e1"), CONFIRM)
        self.siphon("trash", "restore", self.address("e1"))
        self.assertEqual(self.siphon("get", self.address("e1"), "-").stdout, self.data["e1"])
        self.siphon("rm", self.address("e1"), self.address("e2"), CONFIRM)
        self.assertLessEqual(self.free(), 1)
        self.siphon("trash", "purge", self.address(), CONFIRM)
        self.assertGreaterEqual(self.free() * 4096, 1_000_000)
        self.fill()
        self.siphon("rm", "--purge", self.address("e3"), CONFIRM)
        self.assertGreaterEqual(self.free() * 4096, 500_000)
        self.assertEqual(self.leftovers(), [])

    def test_where_even_the_spare_room_is_gone_rm_says_what_to_do_and_purge_works(self):
        self.siphon("rm", self.address("e1"), CONFIRM)
        self.put("e2", self.content(400_000), "--replace", CONFIRM)  # its head is not settled
        (self.store / ".siphon" / "spare").unlink()
        self.fill()
        run = self.siphon("rm", self.address("e3"), CONFIRM, expect=LIMIT)
        self.assertIn(b"no space left", run.stderr.lower())
        self.assertIn(f"siphon trash purge {CONFIRM} posix:{self.store}".encode(), run.stderr)
        self.assertEqual(self.siphon("get", self.address("e3"), "-").stdout, self.data["e3"])
        self.siphon("trash", "purge", self.address("e2"), CONFIRM)
        self.assertGreaterEqual(self.free() * 4096, 400_000)
        self.fill()
        (self.store / ".siphon" / "spare").unlink()
        self.fill()
        self.siphon("trash", "purge", CONFIRM, f"posix:{self.store}")
        self.assertGreaterEqual(self.free() * 4096, 400_000)
        self.siphon("rm", self.address("e3"), CONFIRM)
        self.siphon("verify", self.address("e2"))
        self.siphon("trash", "restore", self.address("e3"))
        self.assertEqual(self.siphon("get", self.address("e3"), "-").stdout, self.data["e3"])


class Modes(CliTest):
    def mode_of(self, name):
        return (self.store / name).stat().st_mode & 0o777

    def put_file(self, name, mode, size):
        path = self.file(f"{name}.in", self.content(size))
        path.chmod(mode)
        self.siphon("put", self.address(name), path)
        with open(path, "rb") as file:
            subprocess.run([SIPHON, "put", self.address(f"{name}.stdin"), "-"], stdin=file,
                           check=True, capture_output=True, env=clean_environment())

    def test_an_extent_is_open_to_no_more_than_its_file_and_its_folder_are(self):
        for size in (1000, 3_000_000):  # with one operation, and through scratch
            for folder, source, wanted in ((0o755, 0o600, 0o600), (0o755, 0o644, 0o644),
                                           (0o755, 0o640, 0o640), (0o700, 0o644, 0o600),
                                           (0o750, 0o666, 0o640), (0o755, 0o400, 0o600)):
                self.store.chmod(folder)
                name = f"{folder:o}-{source:o}-{size}"
                self.put_file(name, source, size)
                self.assertEqual((oct(self.mode_of(name)), oct(self.mode_of(f"{name}.stdin"))),
                                 (oct(wanted), oct(wanted)), name)

    def test_what_comes_by_a_pipe_has_the_folders_mode(self):
        for folder, wanted in ((0o755, 0o644), (0o700, 0o600)):
            self.store.chmod(folder)
            self.put(f"e{folder}", b"x")
            self.assertEqual(self.mode_of(f"e{folder}"), wanted)

    def test_scratch_is_as_closed_as_what_will_be_published(self):
        self.store.chmod(0o700)
        writer = subprocess.Popen([SIPHON, "put", self.address("e1"), "-"], stdin=subprocess.PIPE,
                                  env=clean_environment())
        self.addCleanup(writer.communicate)
        self.addCleanup(writer.kill)
        writer.stdin.write(self.content(8 << 20))
        writer.stdin.flush()
        deadline = time.monotonic() + 30
        while not (found := list((self.store / ".siphon" / "data").glob("*"))):
            self.assertLess(time.monotonic(), deadline)
        self.assertEqual(found[0].stat().st_mode & 0o777, 0o600)


class Conventions(CliTest):
    def test_usage_errors(self):
        for arguments in ([], ["nonsense"], ["ls"], ["ls", "--nonsense", "x"],
                          ["put", self.address("a"), "b", "c"], ["stat", "pool"],
                          ["stat", self.address("..")], ["ls", "-f", "xml", self.address()],
                          ["put", "--block-size", "1", self.address("a")],
                          ["copy", "one"], ["copy", self.address("a"), "p2/a"],
                          ["copy", "127.0.0.1:1/", "127.0.0.1:2/"],
                          ["copy", "p1", "p2/e1"]):
            with self.subTest(arguments=arguments):
                run = self.siphon(*arguments, expect=USAGE)
                self.assertEqual(run.stdout, b"")
                self.assertTrue(run.stderr.startswith(b"siphon: "), run.stderr)

    def test_errors_are_documents_too(self):
        document = self.json("stat", self.address("none"), expect=NOT_FOUND)
        self.assertEqual(document["error"]["code"], "NOT_FOUND")
        self.assertEqual(set(document["error"]), {"code", "message", "suspect", "next_step"})
        document = self.json("ls", expect=USAGE)
        self.assertEqual(document["error"]["code"], "INVALID_ARGUMENT")

    def test_every_verb_has_three_examples(self):
        verbs = ("put", "get", "seal", "rm", "ls", "stat", "blocks", "verify", "copy", "move",
                 "daemons", "transfers", "watch", "cancel")
        for verb in [[v] for v in verbs] + [["config", "show"]]:
            text = self.siphon(*verb, "--help").stdout.decode()
            examples = text.split("Examples:\n")[1].splitlines()
            self.assertEqual(len([e for e in examples if "siphon" in e]), 3, verb)

    def test_where_settings_come_from(self):
        def settings(*arguments, **env):
            rows = self.json("config", "show", *arguments, env=env)["settings"]
            return {row["flag"]: (row["value"], row["from"]) for row in rows}

        self.assertEqual(settings()["--lanes"], ("0", "default"))
        self.assertEqual(settings(SIPHON_LANES="3")["--lanes"], ("3", "SIPHON_LANES"))
        self.assertEqual(settings("--lanes", "2", SIPHON_LANES="3")["--lanes"], ("2", "flag"))
        self.assertEqual(settings(SIPHON_BWLIMIT="50M")["--bwlimit"],
                         (str(50 << 20), "SIPHON_BWLIMIT"))
        self.assertEqual(settings(CEPH_ARGS="--id x -k key --debug-ms 1")["--id"],
                         ("x", "CEPH_ARGS"))
        self.assertEqual(settings("-n", "client.y", CEPH_ARGS="--id x")["--id"], ("", "default"))
        self.siphon("config", "show", expect=USAGE, env={"SIPHON_LANES": "many"})

    def test_an_empty_value_is_no_value(self):
        """Of a variable that is not set: it must not mean "all of them"."""
        self.put("a", b"a")
        self.siphon("rm", self.address("a"), CONFIRM)
        trash = self.json("trash", "ls", self.address("a"))
        for words in (("trash", "purge", "--older-than", "", CONFIRM, self.address("a")),
                      ("trash", "purge", "--older-than=", CONFIRM, self.address("a")),
                      ("trash", "purge", "--private-id", "", CONFIRM, self.address("a")),
                      ("trash", "restore", "--private-id", "", self.address("a")),
                      ("put", "--expect-sha256", "", self.address("b"), self.file("f", b"b")),
                      ("put", "--expect-bytes", "", self.address("b"), self.file("f", b"b")),
                      ("copy", "--bwlimit", "", self.address("a"), self.address("b")),
                      ("copy", "--receipts", "", self.address("a"), self.address("b")),
                      ("ls", ""), ("ls", "--conf", "", self.address(""))):
            with self.subTest(words=words):
                self.siphon(*words, expect=USAGE)
        self.assertEqual(self.json("trash", "ls", self.address("a")), trash)

    def test_a_confirmation_is_never_taken_from_the_environment(self):
        self.put("a", b"a")
        self.siphon("rm", self.address("a"), expect=USAGE,
                    env={"SIPHON_YES_I_REALLY_MEAN_IT": "1"})
        self.siphon("stat", self.address("a"))

    def test_progress(self):
        path = self.file("f", self.content(5_000_000))
        quiet = self.siphon("put", self.address("a"), path)
        self.assertEqual(quiet.stderr, b"")
        plain = self.siphon("put", "--progress", "plain", self.address("b"), path).stderr.decode()
        self.assertRegex(plain.splitlines()[-1], r"^4\.8/4\.8 MiB 100% [\d.]+ [KMG]iB/s$")
        lines = self.siphon("put", "--progress", "json", self.address("c"), path).stderr
        last = json.loads(lines.splitlines()[-1])["progress"]
        self.assertEqual((last["done_bytes"], last["finished"]), (5_000_000, True))
        silent = self.siphon("put", "--progress", "plain", "--no-progress", self.address("d"),
                             path)
        self.assertEqual(silent.stderr, b"")

    def test_names_stay_inside_the_folder(self):
        (self.home / "secret").write_bytes(b"secret")
        for name in ("..", ".", ".siphon", "a\tb"):
            self.siphon("get", self.address(name), "-", expect=USAGE)
        (self.store / "link").symlink_to(self.home / "secret")
        run = self.siphon("get", self.address("link"), "-", expect=FATAL)
        self.assertEqual(run.stdout, b"")

    def test_random_bytes_as_an_extent(self):
        self.put("a", self.content(50_000))
        path = self.store / "a"
        size = path.stat().st_size
        for _ in range(20):
            path.write_bytes(self.random.randbytes(size - 64) + struct.pack("<Q", 0) * 8)
            self.siphon("blocks", self.address("a"), expect=FATAL)


if __name__ == "__main__":
    unittest.main(verbosity=2)
