"""What the command line says, and with which exit code: whatever its stdout and stderr are, what
names it meets, what its files do meanwhile. Over a plain folder, from outside."""

import base64
import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import pty
import re
import select
import shlex
import shutil
import signal
import struct
import subprocess
import termios
import unittest

from folder_cli import SIPHON, CliTest, clean_environment
from cli import (CONFIRM, FATAL, LIMIT, NEEDS_CONFIRMATION, NOTHING_TO_DO, NOT_FOUND, OK, OTHER,
                 TEMPORARY, USAGE)

REPO = pathlib.Path(__file__).resolve().parents[2]
CLOSED_PIPE, INTERRUPTED = 141, 130
VERBS = ("put", "get", "seal", "rm", "ls", "stat", "blocks", "verify", "copy", "move", "daemons",
         "transfers", "watch", "cancel", "doctor")


class Runner:
    def run_with(self, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, close=None):
        """The process; `close`: a descriptor that it begins without."""
        process = subprocess.Popen(
            [SIPHON, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr,
            env=clean_environment(), preexec_fn=(lambda: os.close(close)) if close else None)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        for stream in (process.stdout, process.stderr):
            if stream:
                self.addCleanup(stream.close)
        return process


class EveryEnd(Runner):
    """Whatever stdout and stderr are: for each of self.every_end(), commands with an output each,
    and the exit codes that they have; they can be run again and again."""

    def says_nothing(self, words, code):
        """Nothing but an error, which stderr has for itself."""
        process = self.run_with(*words)
        said, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, code, said + errors)
        return not said

    def test_a_stderr_that_is_full_or_closed_changes_no_code(self):
        with open("/dev/full", "wb") as full:
            for words, code in self.every_end():
                with self.subTest(words=words):
                    self.assertEqual(self.run_with(*words, stderr=full).wait(60), code)
                    self.assertEqual(self.run_with(*words, stderr=None, close=2).wait(60), code)
                    self.assertEqual(self.run_with(*words, "--progress", "terminal",
                                                   stderr=full).wait(60), code)

    def test_a_stdout_that_is_full_or_closed_is_an_error_with_a_sentence(self):
        with open("/dev/full", "wb") as full:
            for words, code in self.every_end():
                for more in ((), ("-f", "json")):
                    with self.subTest(words=words + more):
                        expected = OTHER if code in (OK, NOTHING_TO_DO) else code
                        silent = self.says_nothing(words + more, code)
                        if silent:
                            expected = code
                        process = self.run_with(*words, *more, stdout=full)
                        said = process.stderr.read()
                        self.assertEqual(process.wait(60), expected, said)
                        if not silent:
                            self.assertIn(b"write to stdout: No space left on device", said)
                        process = self.run_with(*words, *more, stdout=None, close=1)
                        self.assertEqual(process.wait(60), expected)

    def test_a_closed_pipe_is_141_in_every_verb(self):
        for words, code in self.every_end():
            for more in ((), ("-f", "json")):
                with self.subTest(words=words + more):
                    if self.says_nothing(words + more, code):
                        continue
                    read_end, write_end = os.pipe()
                    os.close(read_end)
                    process = self.run_with(*words, *more, stdout=write_end)
                    os.close(write_end)
                    self.assertEqual(process.wait(60), CLOSED_PIPE)


class WordsTest(Runner, CliTest):
    def many_blocks(self):
        """An extent whose list of blocks is more than a pipe holds."""
        self.put("blocks", self.content(1000 * 4096), "--block-size", "4K")
        return self.address("blocks")


def nonblocking_pipe():
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    return read_end, write_end


def read_slowly(descriptor):
    """All that comes, in pieces that keep the pipe full."""
    got = bytearray()
    while piece := os.read(descriptor, 1000):
        got += piece
    os.close(descriptor)
    return bytes(got)


class Streams(EveryEnd, WordsTest):
    def every_end(self):
        self.put("a", b"a")
        self.put("gone", b"a")
        self.siphon("rm", self.address("gone"), CONFIRM)
        self.kill_a_put()
        everything = self.address()
        yield ("ls", everything), OK
        yield ("ls", "-l", everything), OK
        yield ("stat", self.address("a")), OK
        yield ("blocks", self.address("a")), OK
        yield ("verify", everything), OK
        yield ("verify", self.address("a"), self.address("a")), OK
        yield ("seal", "--dry-run", self.address("a")), NOTHING_TO_DO
        yield ("put", "--dry-run", self.address("b"), __file__), OK
        yield ("put", "--replace", self.address("c"), __file__, CONFIRM), OK
        yield ("rm", "--dry-run", self.address("a")), OK
        yield ("trash", "ls", everything), OK
        yield ("trash", "ls", self.address("a")), OK
        yield ("trash", "ls", self.address("none")), NOT_FOUND
        yield ("trash", "restore", "--dry-run", self.address("gone")), OK
        yield ("trash", "restore", self.address("none")), NOT_FOUND
        yield ("trash", "purge", "--dry-run", everything), OK
        yield ("trash", "purge", self.address("a"), CONFIRM), NOTHING_TO_DO
        yield ("trash", "purge", self.address("none"), CONFIRM), NOT_FOUND
        yield ("trash", "purge", everything), NEEDS_CONFIRMATION
        yield ("scratch", "ls", everything), OK
        yield ("scratch", "ls", self.address("a")), OK
        yield ("scratch", "ls", self.address("none")), NOT_FOUND
        yield ("scratch", "purge", "--dry-run", "--all", everything), OK
        yield ("scratch", "purge", everything), NOTHING_TO_DO
        yield ("config", "show"), OK
        yield ("stat", self.address("none")), NOT_FOUND
        yield ("rm", CONFIRM, self.address("none")), NOT_FOUND
        yield ("rm", self.address("a")), NEEDS_CONFIRMATION
        yield ("cp",), USAGE
        yield ("--help",), OK
        yield ("put", "--help"), OK
        yield ("--version",), OK

    def test_a_pipe_that_does_not_block_is_waited_for(self):
        address = self.many_blocks()
        for words in (("blocks", address), ("blocks", "-f", "json", address),
                      ("get", address, "-")):
            with self.subTest(words=words):
                expected = self.siphon(*words).stdout
                self.assertGreater(len(expected), 65536)
                read_end, write_end = nonblocking_pipe()
                process = self.run_with(*words, stdout=write_end)
                os.close(write_end)
                self.assertEqual(read_slowly(read_end), expected)
                self.assertEqual(process.wait(60), OK)

    def test_a_stderr_that_does_not_block_keeps_the_code_and_every_line(self):
        names = [self.address(f"none-{i:04}") for i in range(800)]
        read_end, write_end = nonblocking_pipe()
        process = self.run_with("rm", CONFIRM, *names, stderr=write_end)
        os.close(write_end)
        said = read_slowly(read_end)
        self.assertGreater(len(said), 65536)
        self.assertEqual(process.wait(60), NOT_FOUND)
        self.assertEqual(sum(line.startswith(b"siphon: ") for line in said.splitlines()), 800)

    def test_a_stdin_that_does_not_block_is_waited_for(self):
        read_end, write_end = os.pipe()
        os.set_blocking(read_end, False)
        process = subprocess.Popen([SIPHON, "put", "--progress", "plain", self.address("a"), "-"],
                                   stdin=read_end, stderr=subprocess.PIPE, env=clean_environment())
        os.close(read_end)
        data = self.content(5_000_000)
        with open(write_end, "wb") as to:
            to.write(data[:4_500_000])
            to.flush()
            self.assertTrue(process.stderr.readline())  # it has come so far and waits
            to.write(data[4_500_000:])
        process.stderr.read()
        process.stderr.close()
        self.assertEqual(process.wait(60), OK)
        self.assertEqual(self.siphon("get", self.address("a")).stdout, data)

    def test_data_that_a_full_stdout_does_not_take_is_that_error_too(self):
        for name, size in (("small", 10), ("large", 5_000_000)):
            self.put(name, self.content(size))
            for more in ((), ("-f", "json")):
                with self.subTest(name=name, more=more), open("/dev/full", "wb") as full:
                    process = self.run_with("get", *more, self.address(name), "-", stdout=full)
                    said = process.stderr.read()
                    self.assertEqual(process.wait(60), OTHER, said)
                    self.assertIn(b"write to stdout: No space left on device", said)
                    # A FILE that has no room is a limit, as it is of a store.
                    run = self.siphon("get", self.address(name), "/dev/full", expect=LIMIT)
                    self.assertIn(b"write to /dev/full: No space left on device", run.stderr)

    def test_a_pipe_that_is_closed_in_the_midst_is_141(self):
        address = self.many_blocks()
        for more in ((), ("-f", "json")):
            process = self.run_with("blocks", *more, address)
            os.read(process.stdout.fileno(), 10)  # no more, as a buffer would
            process.stdout.close()
            self.assertEqual(process.stderr.read(), b"")
            self.assertEqual(process.wait(60), CLOSED_PIPE)

    def test_without_standard_descriptors_no_other_file_is_written_to(self):
        self.put("a", b"content")
        out = self.home / "out"
        for close in (1, 2):
            process = self.run_with("get", "-f", "json", "--progress", "terminal", "--force",
                                    self.address("a"), out, stdout=None, stderr=None, close=close)
            self.assertIn(process.wait(60), (OK, OTHER))
            self.assertEqual(out.read_bytes(), b"content")

    def test_an_interrupt_ends_a_wait_for_a_reader_that_does_not_read(self):
        address = self.many_blocks()
        for words in (("blocks", address), ("get", address, "-")):
            process = self.run_with(*words)
            select.select([process.stdout], [], [])  # it writes, and nobody reads
            process.send_signal(signal.SIGINT)
            self.assertEqual(process.wait(60), INTERRUPTED)


class Names(WordsTest):
    def test_control_bytes_of_a_refused_name_are_escaped(self):
        for more in ((), ("-f", "json")):
            run = self.siphon("stat", self.address("a\x1b[2J\nb"), *more, expect=USAGE)
            self.assertNotIn(b"\x1b", run.stdout + run.stderr)
            self.assertIn(b"a\\x1b[2J\\nb", run.stderr)
        run = self.siphon("c\x1bp", expect=USAGE)
        self.assertIn(b"'c\\x1bp' is no verb", run.stderr)

    def test_json_loses_no_byte_of_a_name(self):
        self.put("a", b"a")
        seen = set()
        for odd in (b"out-\xff", b"out-\xfe", b"out-\x1b\n"):
            path = os.path.join(os.fsencode(self.home), odd)
            run = subprocess.run([SIPHON, "get", "-f", "json", self.address("a"), path],
                                 capture_output=True, env=clean_environment(), check=True)
            document = json.loads(run.stdout.decode())
            encoded = document.get("file_b64")
            got = base64.b64decode(encoded) if encoded else document["file"].encode()
            self.assertEqual(got, path)
            seen.add(got)
            text = subprocess.run([SIPHON, "get", "--force", self.address("a"), path],
                                  capture_output=True, env=clean_environment(), check=True)
            text.stdout.decode()  # shown as UTF-8
            self.assertNotIn(b"\x1b", text.stdout)
        self.assertEqual(len(seen), 3)

    def test_json_loses_no_byte_of_an_extents_name_or_place(self):
        name = "a\"b\\c'd <e>&{}"  # as odd as a name may be
        for odd in (b"store-\xff", b"store-\xfe", "store-\u00e9".encode(), b"store-\x1b\n"):
            place = b"posix:" + os.fsencode(self.home) + b"/" + odd
            os.mkdir(place.removeprefix(b"posix:"))
            extent = place + b"/" + name.encode()

            def ran(*words):
                run = subprocess.run([SIPHON, *words, "-f", "json"], capture_output=True,
                                     env=clean_environment(), stdin=subprocess.DEVNULL, check=True)
                self.assertNotIn(b"\x1b", run.stdout)
                return json.loads(run.stdout.decode())

            def field(document, key):
                encoded = document.get(f"{key}_b64")
                self.assertEqual(encoded is None, b"\xff" not in odd and b"\xfe" not in odd)
                return base64.b64decode(encoded) if encoded else document[key].encode()

            for words in (("put", extent, __file__), ("stat", extent), ("blocks", extent)):
                self.assertEqual(field(ran(*words), "extent"), extent)
            listed = ran("ls", "-l", place)
            self.assertEqual(field(listed, "store"), place)
            self.assertEqual([e["name"] for e in listed["extents"]], [name])
            self.assertEqual([e["name"] for e in ran("ls", place)["extents"]], [name])
            for words, rows in ((("verify", place), "extents"), (("rm", CONFIRM, extent), "extents"),
                                (("trash", "ls", place), "entries"),
                                (("trash", "purge", CONFIRM, place), "entries")):
                (row,) = ran(*words)[rows]
                self.assertEqual(field(row, "extent"), extent)

    def test_a_name_is_the_same_in_a_line_and_in_a_table(self):
        names = ["a\\x", "bs\\x41", "c\\\\n"]  # of a backslash and letters
        for name in names:
            self.put(name, b"a")
        self.assertEqual(self.siphon("ls", self.address()).stdout.decode().splitlines(), names)
        table = self.siphon("ls", "-l", self.address()).stdout.decode().splitlines()
        self.assertEqual([line.split()[0] for line in table[1:]], names)
        # What steers a terminal is escaped in both.
        place = b"posix:" + os.fsencode(self.home) + b"/\x1b[2J"
        os.mkdir(place.removeprefix(b"posix:"))
        for words in (("put", place + b"/e", __file__), ("rm", place + b"/e", CONFIRM),
                      ("trash", "ls", place)):
            run = subprocess.run([SIPHON, *words], capture_output=True, check=True,
                                 env=clean_environment(), stdin=subprocess.DEVNULL)
            self.assertNotIn(b"\x1b", run.stdout)
        self.assertIn(b"\\x1b[2J/e ", run.stdout)

    def test_a_foreign_file_of_an_odd_name_is_no_extent(self):
        self.put("a", b"a")
        for odd in (b"x\x1b[2J", b"x\xff", b"x\ny", b"x" * 250, "caf\u00e9".encode()):
            with open(os.path.join(os.fsencode(self.store), odd), "wb") as file:
                file.write(b"foreign")
        self.assertEqual(self.siphon("ls", self.address()).stdout, b"a\n")
        self.assertEqual([e["name"] for e in self.json("ls", "-l", self.address())["extents"]],
                         ["a"])


class Pasted(WordsTest):
    """A command in a `next:` line means the extent that it is about, whatever that is called."""

    NAMES = ("q r", "x;id", "it's", "$(id)", "e1")

    def next_step(self, *words, expect):
        said = self.siphon(*words, expect=expect).stderr.decode()
        return re.search(r"^next: (.*)$", said, re.M).group(1)

    def assert_names(self, step, *command):
        words = shlex.split(step)
        at = words.index(command[0])
        self.assertEqual(words[at:at + len(command)], list(command), step)

    def test_a_restore_of_the_generation_that_is_whole(self):
        for name in self.NAMES:
            self.put(name, b"older")
            self.siphon("rm", self.address(name), CONFIRM)
            older, = self.json("trash", "ls", self.address(name))["entries"]
            self.put(name, b"younger")
            (self.store / name).unlink()
            step = self.next_step("trash", "restore", self.address(name), expect=FATAL)
            self.assert_names(step, "siphon", "trash", "restore", "--private-id",
                              older["private_id"], self.address(name))

    def test_a_head_that_is_given_up(self):
        for name in self.NAMES:
            self.put(name, b"content")
            (self.store / ".siphon" / "head" / name).write_bytes(b"no head")
            step = self.next_step("stat", self.address(name), expect=FATAL)
            give_up = step.partition("or give it up: ")[2]
            self.assert_names(give_up, "siphon", "rm", "--corrupt-head", "--save", "FILE",
                              self.address(name))

    def test_what_to_do_instead_of_a_copy_from_a_folder_to_a_pool(self):
        for name in self.NAMES:
            step = self.next_step("copy", f"127.0.0.1:1/{name}", "p2", expect=USAGE)
            step = step.partition("host: ")[2]
            self.assert_names(step, "siphon", "get", f"posix:DIR/{name}", "-", "|", "siphon",
                              "put", f"p2/{name}", "-")

    def test_an_extent_instead_of_a_file_within_a_folder(self):
        self.put("e1", b"content")
        for name in self.NAMES[:-1]:
            step = self.next_step("get", self.address("e1"), self.store / name, expect=USAGE)
            step = step.partition("is made there by ")[2].partition(" FILE")[0]
            self.assert_names(step, "siphon", "put", self.address(name))


class DryRun(WordsTest):
    """Changes nothing, whatever it says: not a byte, not a name, not a time."""

    def tree(self):
        return {path.relative_to(self.home): (path.stat().st_mode, path.stat().st_mtime_ns,
                                              path.is_dir() or path.read_bytes())
                for path in self.home.rglob("*")}

    def setUp(self):
        super().setUp()
        for name in ("current", "gone", "corrupt"):
            for content in (b"older", b"newer"):
                self.put(name, content * 300_000, "--replace", CONFIRM)
        self.siphon("rm", self.address("gone"), CONFIRM)
        self.put("open", b"x" * 10_000, "--open")
        self.kill_a_put()
        head = self.store / ".siphon" / "head" / "corrupt"
        raw = bytearray(head.read_bytes())
        raw[40] ^= 0xFF
        head.write_bytes(raw)

    def test_no_verb_of_a_folder_writes_anything(self):
        record = self.home / "record"
        for words in (("put", self.address("new"), __file__),
                      ("put", "--replace", CONFIRM, self.address("current"), __file__),
                      ("seal", self.address("open")),
                      ("rm", CONFIRM, self.address("current"), self.address("open")),
                      ("rm", "--purge", CONFIRM, self.address("current"), self.address("gone")),
                      ("rm", "--corrupt-head", "--save", record, CONFIRM, self.address("corrupt")),
                      ("trash", "restore", self.address("gone")),
                      ("trash", "purge", CONFIRM, self.address("gone")),
                      ("trash", "purge", "--older-than", "0s", CONFIRM, self.address("current")),
                      ("scratch", "purge", "--all", CONFIRM, self.address("e1"))):
            for more in ((), ("-f", "json")):
                with self.subTest(words=words + more):
                    before = self.tree()
                    self.siphon(*words, *more, "--dry-run")
                    self.assertEqual(self.tree(), before)
            # What it said, it is: without the flag, something changes.
            shutil.copytree(self.store, self.home / "kept")
            before = self.tree()
            self.siphon(*words)
            self.assertNotEqual(self.tree(), before)
            shutil.rmtree(self.store)
            (self.home / "kept").rename(self.store)
            record.unlink(missing_ok=True)


class ChangingFiles(WordsTest):
    def put_while(self, change, *more, expect):
        """`change` happens when some of the file has been read, and not all."""
        self.path = self.file("f", self.content(64 << 20))
        process = self.run_with("put", "--progress", "plain", "--replace", CONFIRM, *more,
                                self.address("e"), self.path)
        self.assertTrue(process.stderr.readline())
        process.send_signal(signal.SIGSTOP)
        change(self.path)
        process.send_signal(signal.SIGCONT)
        said = process.stderr.read().decode()
        self.assertEqual(process.wait(60), expect, said)
        self.assertEqual(self.leftovers(), [])
        if expect != OK:
            self.siphon("stat", self.address("e"), expect=NOT_FOUND)
            self.assertIn(str(self.path), said)
            self.assertIn("nothing was published", said)
        return said

    @staticmethod
    def grow(path):
        with open(path, "ab") as file:
            file.write(b"more")

    @staticmethod
    def overwrite(path):
        with open(path, "r+b") as file:
            file.seek(60 << 20)
            file.write(b"other")

    def overwrite_and_put_the_time_back(self, path):
        before = os.stat(path)
        self.overwrite(path)
        with open(path, "r+b") as file:
            file.write(b"what was read before")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    def test_a_file_that_grows_is_not_put(self):
        self.assertIn("it had 67108864 bytes and has 67108868",
                      self.put_while(self.grow, expect=TEMPORARY))

    def test_a_file_that_is_written_to_is_not_put(self):
        self.assertIn("it was written to at", self.put_while(self.overwrite, expect=TEMPORARY))

    def test_a_file_that_is_cut_is_not_put(self):
        self.put_while(lambda path: os.truncate(path, 63 << 20), expect=TEMPORARY)

    def test_a_file_whose_times_were_put_back_is_read_again(self):
        self.assertIn("its content is another",
                      self.put_while(self.overwrite_and_put_the_time_back, expect=TEMPORARY))

    def test_a_rename_under_it_is_harmless(self):
        self.put_while(lambda path: path.rename(self.home / "renamed"), expect=OK)
        self.siphon("verify", self.address("e"))

    def test_a_new_mode_is_harmless(self):
        self.put_while(lambda path: path.chmod(0o400), expect=OK)

    def test_who_means_it_may(self):
        self.put_while(self.grow, "--allow-changing", expect=OK)
        self.siphon("verify", self.address("e"))

    def test_what_was_announced_of_a_stream_must_come(self):
        data = self.content(5_000_000)
        right = hashlib.sha256(data).hexdigest()
        put = ["put", self.address("e"), "-"]
        run = self.siphon(*put, "--expect-bytes", "10M", data=data, expect=TEMPORARY)
        self.assertIn(b"it ended after 5000000 of the 10485760 bytes that were announced",
                      run.stderr)
        self.siphon(*put, "--expect-bytes", "1M", data=data, expect=FATAL)
        self.siphon(*put, "--expect-bytes", "1", data=b"", expect=TEMPORARY)
        run = self.siphon(*put, "--expect-sha256", "0" * 64, data=data, expect=FATAL)
        self.assertIn(right.encode(), run.stderr)
        for wrong in ("0" * 63, "g" * 64):
            self.siphon(*put, "--expect-sha256", wrong, data=data, expect=USAGE)
        self.siphon("stat", self.address("e"), expect=NOT_FOUND)
        self.assertEqual(self.leftovers(), [])
        self.siphon(*put, "--expect-bytes", "5000000", "--expect-sha256", right.upper(), data=data)
        self.siphon("put", self.address("f"), self.file("f", data), "--expect-sha256", right)


    def test_a_dry_run_looks_at_what_was_announced(self):
        data = self.content(3_000_000)
        right = hashlib.sha256(data).hexdigest()
        path = self.file("f", data)
        put = ["put", "--dry-run", self.address("e"), path]
        self.siphon(*put, "--expect-bytes", "4M", expect=TEMPORARY)
        self.siphon(*put, "--expect-bytes", "1M", expect=FATAL)
        run = self.siphon(*put, "--expect-sha256", "0" * 64, expect=FATAL)
        self.assertIn(right.encode(), run.stderr)
        self.siphon(*put, "--expect-bytes", "2M", "--expect-sha256", right, expect=FATAL)
        for words in (["--expect-bytes", "3000000"], ["--expect-sha256", right],
                      ["--expect-bytes", "3000000", "--expect-sha256", right]):
            self.assertTrue(self.json(*put, *words)["expectation_checked"])
        self.assertIsNone(self.json(*put)["expectation_checked"])
        stream = ["put", "--dry-run", self.address("e"), "-", "--expect-bytes", "1"]
        run = self.siphon(*stream, data=data)
        self.assertIn(b"not checked: a stream", run.stdout)
        self.assertFalse(self.json(*stream, data=data)["expectation_checked"])
        self.siphon("stat", self.address("e"), expect=NOT_FOUND)


class GetOverFiles(WordsTest):
    def setUp(self):
        super().setUp()
        self.data = self.content(100_000)
        self.put("e", self.data)
        self.out = self.home / "out"

    def others(self):
        return sorted(p.name for p in self.home.iterdir() if p.name != "store")

    def test_a_file_that_is_there_stays(self):
        self.out.write_bytes(b"mine")
        run = self.siphon("get", self.address("e"), self.out, expect=FATAL)
        self.assertIn(b"--force", run.stderr)
        self.assertEqual(self.out.read_bytes(), b"mine")
        self.assertEqual(self.others(), ["out"])

    def test_forced_it_keeps_mode_and_owner(self):
        self.out.write_bytes(b"mine")
        self.out.chmod(0o600)
        if os.geteuid() == 0:
            os.chown(self.out, 1234, 1235)
        before = self.out.stat()
        self.siphon("get", "--force", self.address("e"), self.out)
        after = self.out.stat()
        self.assertEqual(self.out.read_bytes(), self.data)
        self.assertEqual((after.st_mode, after.st_uid, after.st_gid),
                         (before.st_mode, before.st_uid, before.st_gid))

    def test_a_symbolic_link_is_followed(self):
        (self.home / "folder").mkdir()
        real = self.home / "folder" / "real"
        real.write_bytes(b"mine")
        self.out.symlink_to("folder/real")
        self.siphon("get", self.address("e"), self.out, expect=FATAL)
        self.siphon("get", "--force", self.address("e"), self.out)
        self.assertTrue(self.out.is_symlink())
        self.assertEqual(real.read_bytes(), self.data)
        real.unlink()
        for more in ((), ("--force",)):
            self.siphon("get", *more, self.address("e"), self.out, expect=FATAL)
        self.assertTrue(self.out.is_symlink())
        self.assertEqual(list((self.home / "folder").iterdir()), [])

    def test_an_interrupted_or_failed_get_leaves_nothing(self):
        stored = self.store / "e"
        whole = bytearray(stored.read_bytes())
        whole[50_000] ^= 1
        stored.write_bytes(whole)
        self.siphon("get", self.address("e"), self.out, expect=FATAL)
        self.siphon("get", self.address("e"), self.home / "no" / "out", expect=NOT_FOUND)
        self.assertEqual(self.others(), [])

    def test_no_file_of_a_siphon_folder_is_written_behind_its_back(self):
        self.put("other", b"other")
        (self.home / "link").symlink_to(self.store / "other")
        stored = (self.store / "other").read_bytes()
        before = sorted(os.listdir(self.store))
        for target in (self.store / "other", self.store / "new", self.home / "link"):
            for more in ((), ("--force",)):
                run = self.siphon("get", *more, self.address("e"), target, expect=USAGE)
                name = "new" if target.name == "new" else "other"
                self.assertIn(f"siphon put posix:{self.store}/{name} FILE".encode(), run.stderr)
        self.assertEqual((self.store / "other").read_bytes(), stored)
        self.assertEqual(sorted(os.listdir(self.store)), before)
        run = subprocess.run([SIPHON, "get", "--force", self.address("e"), "other"],
                             cwd=self.store, capture_output=True, env=clean_environment())
        self.assertEqual(run.returncode, USAGE, run.stderr)

    def test_pipes_and_devices_are_written_to(self):
        self.siphon("get", self.address("e"), "/dev/null")
        fifo = self.home / "fifo"
        os.mkfifo(fifo)
        process = self.run_with("get", self.address("e"), fifo)
        self.assertEqual(fifo.read_bytes(), self.data)
        self.assertEqual(process.wait(60), OK)


class Usage(WordsTest):
    def test_an_unknown_verb_is_named_with_the_closest(self):
        for word, meant in (("cp", "copy"), ("list", "ls"), ("mv", "move"), ("delete", "rm"),
                            ("verfy", "verify"), ("stats", "stat"), ("tranfers", "transfers")):
            said = self.siphon(word, "x", expect=USAGE).stderr.decode()
            self.assertIn(f"'{word}' is no verb of siphon; did you mean {meant}?", said)
        self.assertIn("there are: put, get", self.siphon("xyzzy", expect=USAGE).stderr.decode())
        self.assertIn("'set' is no verb of siphon config",
                      self.siphon("config", "set", expect=USAGE).stderr.decode())

    def test_help_is_a_verb(self):
        self.assertEqual(self.siphon("help").stdout, self.siphon("--help").stdout)
        self.assertEqual(self.siphon("help", "copy").stdout, self.siphon("copy", "--help").stdout)

    def test_an_unknown_option_is_named(self):
        for words, said in ((("put", "--bogus"), "siphon put has no option --bogus"),
                            (("copy", "--bwlimt", "5"), "did you mean --bwlimit?"),
                            (("ls", "-z", "p1"), "siphon ls has no option -z"),
                            (("--nonsense", "ls"), "siphon has no option --nonsense")):
            self.assertIn(said, self.siphon(*words, expect=USAGE).stderr.decode())

    def test_usage_lines_show_every_positional(self):
        for words, line in ((("copy",), "siphon copy [OPTIONS] SOURCE... TARGET"),
                            (("move",), "siphon move [OPTIONS] SOURCE... TARGET"),
                            (("verify",), "siphon verify [OPTIONS] SOURCE [TARGET]"),
                            (("put",), "siphon put [OPTIONS] EXTENT [FILE]"),
                            (("rm",), "siphon rm [OPTIONS] EXTENT..."),
                            (("daemons",), "siphon daemons [OPTIONS] [WHERE...]"),
                            (("watch",), "siphon watch [OPTIONS] ID [WHERE...]"),
                            (("doctor",), "siphon doctor [OPTIONS] [POOL...]"),
                            (("config", "show"), "siphon config show [OPTIONS]")):
            text = self.siphon(*words, "--help").stdout.decode()
            self.assertIn("Usage: " + line + "\n", text)
            self.assertNotIn("(1x)", text)

    def test_every_example_is_understood(self):
        for verb in [[v] for v in VERBS] + [["config", "show"]]:
            text = self.siphon(*verb, "--help").stdout.decode()
            examples = [e for e in text.split("Examples:\n")[1].splitlines() if "siphon" in e]
            self.assertEqual(len(examples), 3, verb)
            for example in examples:
                words = shlex.split(example)
                words = words[words.index("siphon") + 1:]
                if "|" in words:
                    words = words[:words.index("|")]
                self.siphon(*words, "--help")

    def test_exit_codes_are_one_table(self):
        header = (REPO / "plugin/cli/exit_codes.h").read_text()
        codes = sorted(map(int, re.findall(r"^  k\w+ = (\d+),", header, re.M)))
        helped = self.siphon("--help").stdout.decode().split("Exit status:")[1]
        self.assertEqual(sorted(map(int, re.findall(r"(?:^|; |;\n)\s*(\d+) ", helped))), codes)
        section = (REPO / "docs/operations.md").read_text().split("## Exit codes of siphon")[1]
        rows = re.findall(r"^\| (\d+) \|", section.split("\n## ")[0], re.M)
        self.assertEqual(sorted(map(int, rows)), codes)

    # Without these words on its line, no command loses, overwrites or lets pass anything.
    LINE_ONLY = {"--accept-degraded", "--all", "--allow-changing", "--corrupt-head",
                 "--drop-damaged", "--force", "--purge", "--replace", "--yes-i-really-mean-it"}

    def flags_of_every_verb(self):
        """{verb: its flags, but for --help}"""
        verbs = [*([v] for v in VERBS), ["config", "show"],
                 *([owner, verb] for owner, verb in (("trash", "ls"), ("trash", "restore"),
                                                     ("trash", "purge"), ("scratch", "ls"),
                                                     ("scratch", "purge")))]
        return {tuple(verb): set(re.findall(r"^ +(?:-\w, *)?(--[a-z0-9-]+)",
                                            self.siphon(*verb, "--help").stdout.decode(), re.M))
                - {"--help"} for verb in verbs}

    def test_what_loses_something_is_said_on_the_line_and_a_variable_for_it_is_refused(self):
        flags = self.flags_of_every_verb()
        self.assertLess(self.LINE_ONLY, set().union(*flags.values()))
        self.put("a", b"a")
        for verb, own in flags.items():
            words = {"watch": ["0" * 32], "cancel": ["0" * 32], "copy": [self.address("a")],
                     "move": [self.address("a")]}.get(verb[0], [])
            if verb[0] not in ("doctor", "daemons", "transfers", "config"):
                words = [*words, self.address("a")]
            for flag in self.LINE_ONLY & own:
                name = "SIPHON_" + flag[2:].upper().replace("-", "_")
                with self.subTest(verb=verb, flag=flag):
                    said = self.siphon(*verb, *words, expect=USAGE, env={name: "1"}).stderr.decode()
                    self.assertIn(f"{name} is set, and {flag} is taken from the command line alone",
                                  said)
        self.siphon("stat", self.address("a"), env={"SIPHON_PURGE": "1"})  # it has no such flag
        self.siphon("rm", self.address("a"), CONFIRM,
                    env={"SIPHON_YES_I_REALLY_MEAN_IT": "1"})  # the line says it

    def test_which_flags_no_variable_sets_is_told(self):
        for text in (self.siphon("--help").stdout.decode(),
                     (REPO / "docs/operations.md").read_text().split("## Settings of siphon\n")[1]):
            told = " ".join(text.split()).split("is refused:")[1].partition(".")[0]
            self.assertEqual(set(re.findall(r"--[a-z-]+", told)), self.LINE_ONLY)

    def test_config_show_has_all_that_a_variable_can_set(self):
        settable = set().union(*self.flags_of_every_verb().values()) - self.LINE_ONLY
        rows = self.json("config", "show")["settings"]
        self.assertEqual({r["flag"] for r in rows}, settable)
        values = {"--timeout": "7", "--lanes": "2", "--bwlimit": "65536", "--max-transfers": "3",
                  "--block-size": "65536", "--format": "json", "--progress": "none",
                  "--expect-bytes": "5", "--for": "copy,move"}
        switches = {r["flag"] for r in rows if r["value"] == "false"}
        environment = {r["environment"]: values.get(
            r["flag"], "true" if r["flag"] in switches else "/x") for r in rows}
        shown = self.siphon("config", "show", env=environment).stdout  # as SIPHON_FORMAT wants it
        for row in json.loads(shown)["settings"]:
            name = row["environment"]
            self.assertEqual((row["value"], row["from"]), (environment[name], name))

    def test_sizes_are_decimal_with_units(self):
        def rate(text):
            rows = self.json("config", "show", f"--bwlimit={text}")["settings"]
            return next(int(r["value"]) for r in rows if r["flag"] == "--bwlimit")
        for text, value in (("5.5M", 5767168), ("50M", 50 << 20), ("1.5 GiB", 3 << 29), ("0", 0),
                            ("010000", 10000), ("5kb", 5120), ("7000B", 7000)):
            self.assertEqual(rate(text), value)
        for text in ("010", "7B", "0x10", "-5", "-1M", "1e3", "5.", "M", "", "0.1", "99999999999999999999",
                     "9999999999999999T", "5 M B", "nan"):
            run = self.siphon("config", "show", f"--bwlimit={text}", expect=USAGE)
            self.assertIn(b"--bwlimit", run.stderr)
        self.siphon("config", "show", "--bwlimit", "-5", expect=USAGE)
        for flag in ("--lanes", "--max-transfers", "--timeout"):
            for text in ("0x2", "-1", "1.5", "4294967297"):
                self.siphon("config", "show", f"{flag}={text}", expect=USAGE)

    def test_ports_and_localhost(self):
        for text in ("127.0.0.1:99999/", "127.0.0.1:0/", "localhost:123456/"):
            run = self.siphon("daemons", text, expect=USAGE)
            self.assertIn(b"port from 1 to 65535", run.stderr)
        run = self.siphon("daemons", "localhost:1/", expect=TEMPORARY)
        self.assertIn(b"127.0.0.1:1", run.stderr)

    def test_verify_takes_a_folder_as_ls_does(self):
        self.put("a", b"a")
        self.put("b", b"b")
        self.assertEqual(self.json("verify", self.address())["verified"], 2)
        self.assertEqual(self.json("verify", self.address() + "/")["verified"], 2)

    def test_a_folder_to_a_pool_is_refused_with_what_works(self):
        run = self.siphon("copy", "127.0.0.1:7411/e1", "p2", expect=USAGE)
        self.assertIn(b"siphon get posix:DIR/e1 - | siphon put p2/e1 -", run.stderr)


class Advice(WordsTest):
    def test_a_secret_file_is_never_to_be_overwritten(self):
        secret = self.home / "secret"
        ask = ["daemons", "--secret-file", secret, "127.0.0.1:1/"]

        def advice(said):
            text = self.json(*ask, expect=FATAL)["devices"][0]["problem"]
            self.assertIn(said, text["next_step"])
            self.assertNotIn(">", text["next_step"])
        advice("copy it from the daemon's host")
        secret.write_bytes(b"x" * 32)
        secret.chmod(0o644)
        advice(f"chmod 600 {secret}")
        secret.chmod(0o600)
        secret.write_bytes(b"short")
        advice("copy it from the daemon's host")
        self.assertEqual(secret.read_bytes(), b"short")


class Progress(WordsTest):
    def test_the_line_fits_the_terminal_and_leaves_nothing_behind(self):
        master, slave = pty.openpty()
        self.addCleanup(os.close, master)
        columns = 24
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 25, columns, 0, 0))
        process = subprocess.Popen([SIPHON, "put", self.address("e"), "-"], stdin=subprocess.PIPE,
                                   stderr=slave, env=clean_environment())
        os.close(slave)
        process.stdin.write(self.content(8 << 20))
        process.stdin.flush()
        said = os.read(master, 1000)  # the first line: it is at work
        process.stdin.write(self.content(8 << 20))
        process.stdin.close()
        with contextlib.suppress(OSError):  # EIO: the other end has closed
            while piece := os.read(master, 1000):
                said += piece
        self.assertEqual(process.wait(60), OK)
        lines = said.decode().split("\r\x1b[K")
        self.assertEqual(lines[0], "")
        self.assertNotIn("ETA", lines[1])
        for line in lines[1:]:
            self.assertLess(len(line.rstrip("\r\n")), columns)
        for line in lines[1:-1]:
            self.assertNotIn("\n", line)

    def test_units_are_one_family_and_one_is_singular(self):
        self.put("e", b"x" * 10_000)
        said = self.siphon("put", self.address("f"), "-", data=b"x" * 10_000).stdout.decode()
        self.assertRegex(said, r"9\.77 KiB in 1 block, .*, [\d.]+ [KMG]?i?B/s\)")
        for words in (("get", self.address("e"), "/dev/null"), ("verify", self.address("e")),
                      ("stat", self.address("e"))):
            said = self.siphon(*words).stdout.decode()
            self.assertNotIn("MB", said)
            self.assertIn("1 block", said)
            self.assertNotIn("1 blocks", said)


if __name__ == "__main__":
    unittest.main(verbosity=2)
