"""The command line over a plain folder, from outside: extents put, got, sealed and looked at."""

import hashlib
import json
import os
import signal
import struct
import subprocess
import time
import unittest
import zlib

from folder_cli import SIPHON, CliTest, clean_environment
from cli import CONFIRM, FATAL, NEEDS_CONFIRMATION, NOTHING_TO_DO, NOT_FOUND, PARTIAL, USAGE
from formats import BLOCK_HEADER


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
