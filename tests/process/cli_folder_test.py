"""A folder that is full, or that others wrote into, from outside."""

import os
import pathlib
import re
import shlex
import subprocess
import unittest

from folder_cli import SIPHON, CliTest
from cli import CONFIRM, FATAL, LIMIT, NOTHING_TO_DO, TEMPORARY


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


if __name__ == "__main__":
    unittest.main(verbosity=2)
