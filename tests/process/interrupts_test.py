#!/usr/bin/python3
"""Ctrl-C ends the command line in whatever phase it comes: exit code 130, long before any timeout.
Over folders and their daemons; the waits are for devices that do not hear, pipes that nobody reads,
a turn at a device, and for what is many."""

import contextlib
import json
import os
import re
import select
import shlex
import shutil
import signal
import subprocess

import two_daemons
from cli import CONFIRM, INTERRUPTED, SIPHON
from folder_cli import CliTest, clean_environment
from told_test import DeafControl, ToldTest
from formats import KIB, MIB
from processes import end_with_parent
from waiting import DEADLINE_S, wait_until

# For what must take a second at most: nothing that it might wait for has a shorter timeout.
SOON_S = 15
NO_TRANSFER = "0" * 32


class Unread:
    """A process whose stdout is a pipe that nobody reads."""

    def __init__(self, test, words):
        read_end, self._write_end = os.pipe()
        for end in (read_end, self._write_end):
            test.addCleanup(os.close, end)
        self.process = subprocess.Popen(
            [str(w) for w in (SIPHON, *words)], stdin=subprocess.DEVNULL, stdout=self._write_end,
            stderr=subprocess.PIPE, env=clean_environment(), preexec_fn=end_with_parent)
        test.addCleanup(self.process.communicate)
        test.addCleanup(self.process.kill)

    def is_full(self):
        """The pipe: the process, if it has more to say, waits."""
        if self.process.poll() is not None:
            raise AssertionError(f"it ended: {self.process.communicate()}")
        return not select.select([], [self._write_end], [], 0)[1]


class DeafDevices(ToldTest):
    """The device greets and hears nothing: neither the Challenge (with a secret) nor the call."""

    def interrupted(self, *words):
        for secret in (("--secret-file", self.secret), ()):
            deaf = DeafControl(self.source.port, heard=0)
            self.addCleanup(deaf.close)
            at_it = [str(w).replace("DEAF", f"127.0.0.1:{deaf.port}") for w in words]
            with self.subTest(words=at_it, secret=bool(secret)):
                run = self.start([SIPHON, *at_it, *secret])
                wait_until(lambda: run.ended() or deaf.asked, DEADLINE_S, "the question")
                self.assertFalse(run.ended())
                run.send(signal.SIGINT)
                self.assertEqual(run.wait(SOON_S).code, INTERRUPTED)

    def test_an_interrupt_ends_every_verb_that_asks_it(self):
        for words in (("transfers", "DEAF/"), ("transfers", "--all", "DEAF/"), ("daemons", "DEAF/"),
                      ("cancel", NO_TRANSFER, "DEAF/"), ("watch", NO_TRANSFER, "DEAF/"),
                      ("verify", "DEAF/e1"), ("transfers", "DEAF/", "-f", "json"),
                      ("copy", f"{self.source.address}/e1", "DEAF/"),
                      ("copy", "DEAF/e1", f"{self.target.address}/")):
            self.interrupted(*words)


class UnreadReceipts(ToldTest):
    COUNT = 150  # of which the receipts are more than a pipe holds

    def setUp(self):
        super().setUp()
        self.put("e000", 4 * KIB)
        self.names = [f"e{i:03}" for i in range(self.COUNT)]
        for name in self.names[1:]:
            for sub in ("", ".siphon/head/"):
                shutil.copy(self.source.folder / f"{sub}e000", self.source.folder / f"{sub}{name}")

    def copy_words_unread(self):
        return ["copy", "--receipts", "-", "--secret-file", self.secret,
                *self.to_target(*self.names)]

    def interrupted(self):
        unread = Unread(self, self.copy_words_unread())
        wait_until(unread.is_full, DEADLINE_S, "a full pipe")
        unread.process.send_signal(signal.SIGINT)
        _, said = unread.process.communicate(timeout=SOON_S)
        self.assertEqual(unread.process.returncode, INTERRUPTED, said)
        return said.decode()

    def test_an_interrupt_ends_the_wait_for_who_reads_them(self):
        self.interrupted()  # as they come
        self.siphon("copy", *self.to_target(*self.names), code=None)
        self.assertEqual(len(self.target.public_names()), self.COUNT)
        said = self.interrupted()  # at the end, of what is there
        self.assertIn("could not be written", said)
        self.assertIn("interrupted", said)


class ATurn(ToldTest):
    PLACES = 32  # half of a daemon's threads, for calls that last

    def test_an_interrupt_ends_the_wait_for_one(self):
        self.put("e1", 16 * MIB)
        self.put("e2", MIB)
        copy = self.start([SIPHON, *self.copy_words("e1", "--bwlimit", "256K"), "--secret-file",
                           self.secret])
        transfer = self.wait_streaming(copy)["id"]
        # With the copy's own call that is one too many, which says when there is no place left.
        watchers = [self.start([SIPHON, "watch", transfer, f"{self.target.address}/",
                                "--secret-file", self.secret]) for _ in range(self.PLACES)]
        wait_until(lambda: any(w.ended() for w in watchers), DEADLINE_S, "one too many")
        waiting = Unread(self, [*self.copy_words("e2"), "--secret-file", self.secret]).process
        self.assertIn(b"busy; waiting for a turn", waiting.stderr.readline())
        waiting.send_signal(signal.SIGINT)
        _, said = waiting.communicate(timeout=SOON_S)
        self.assertEqual(waiting.returncode, INTERRUPTED, said)
        self.assertFalse((self.target.folder / "e2").exists())


class Many(CliTest):
    COUNT = 5000

    def setUp(self):
        super().setUp()
        self.names = [f"e{i:04}" for i in range(self.COUNT)]
        self.put(self.names[0], b"content")
        for name in self.names[1:]:
            for sub in ("", ".siphon/head/"):
                os.link(self.store / f"{sub}{self.names[0]}", self.store / f"{sub}{name}")

    def there(self):
        return set(os.listdir(self.store)) - {".siphon"}

    def start(self, *words):
        process = subprocess.Popen(
            [SIPHON, *words, "-f", "json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=clean_environment(), preexec_fn=end_with_parent)
        self.addCleanup(process.kill)
        return process

    def test_an_interrupt_ends_a_removal_of_many_and_each_that_went_is_told(self):
        process = self.start("rm", CONFIRM, *(self.address(n) for n in self.names))
        wait_until(lambda: len(self.there()) < self.COUNT, DEADLINE_S, "the first to go")
        process.send_signal(signal.SIGINT)
        said, errors = process.communicate(timeout=SOON_S)
        self.assertEqual(process.returncode, INTERRUPTED, errors)
        self.assertIn(b"interrupted; nothing was done to ", errors)
        told = {e["extent"].rpartition("/")[2] for e in json.loads(said)["extents"]}
        self.assertTrue(told)
        self.assertEqual(self.there(), set(self.names) - told)
        listed = self.json("trash", "ls", self.address())["entries"]
        self.assertEqual({e["extent"].rpartition("/")[2] for e in listed}, told)


class Twice(CliTest):
    """Two signals at once: what is left is told, and nothing else."""

    def ended_at_once(self, process):
        process.send_signal(signal.SIGSTOP)
        for end in (signal.SIGINT, signal.SIGTERM, signal.SIGCONT):
            process.send_signal(end)
        said = process.communicate(timeout=SOON_S)[1].decode()
        self.assertEqual(process.returncode, INTERRUPTED, said)
        return said

    def start(self, *words):
        process = subprocess.Popen([SIPHON, *words], stdin=subprocess.PIPE, stderr=subprocess.PIPE,
                                   env=clean_environment(), preexec_fn=end_with_parent)
        self.addCleanup(process.kill)
        return process

    def test_a_put_says_where_its_attempt_is(self):
        process = self.start("put", self.address("e 1"), "-")
        process.stdin.write(self.content(8 * MIB))
        process.stdin.flush()
        wait_until(lambda: self.json("scratch", "ls", self.address("e 1"))["entries"], DEADLINE_S,
                   "the attempt")
        said = self.ended_at_once(process)
        self.assertNotIn("devices", said)
        command = re.search(r"may be left: siphon (scratch ls .*)$", said, re.MULTILINE).group(1)
        (entry,) = self.json(*shlex.split(command))["entries"]
        self.assertEqual(entry["extent"], self.address("e 1"))

    def test_a_get_says_which_file_it_leaves(self):
        self.put("e1", bytes(64 * MIB))
        file = self.home / "file"

        def at_work():
            with contextlib.suppress(FileNotFoundError):  # it is done
                return [t for t in self.home.glob("file.siphon-*") if t.stat().st_size > 0]
            return []

        for _ in range(50):  # until it is met
            file.unlink(missing_ok=True)
            process = self.start("get", self.address("e1"), file)
            wait_until(lambda: process.poll() is not None or at_work(), DEADLINE_S, "its file")
            process.send_signal(signal.SIGSTOP)
            if process.poll() is None and at_work():
                break
            process.kill()
            process.communicate()
            for left in self.home.glob("file.siphon-*"):
                left.unlink()
        said = self.ended_at_once(process)
        (left,) = at_work()
        self.assertIn(f"ended at once; left behind: {left}", said)
        self.assertFalse(file.exists())

    def test_what_leaves_nothing_says_no_more(self):
        self.put("e1", self.content(1000 * 4096), "--block-size", "4K")
        unread = Unread(self, ["blocks", self.address("e1")])
        wait_until(unread.is_full, DEADLINE_S, "a full pipe")
        self.assertEqual(self.ended_at_once(unread.process), "siphon: ended at once\n")


if __name__ == "__main__":
    two_daemons.main()
