#!/usr/bin/python3
"""The verbs that talk to devices: their exit codes whatever stdout and stderr are, and that their
dry runs write nothing. Over two folders' daemons."""

import two_daemons
from cli import CONFIRM, NEEDS_CONFIRMATION, NOTHING_TO_DO, NOT_FOUND, OK, PERMISSION, SIPHON
from cli_words_test import EveryEnd
from told_test import ToldTest
from formats import KIB, MIB

NO_TRANSFER = "0" * 32


class Ends(EveryEnd, ToldTest):
    def every_end(self):
        for name in ("e1", "new"):
            self.put(name, 20 * KIB)
        transfer = self.siphon("copy", *self.to_target("e1")).document["extents"][0]["transfer_id"]
        where = f"{self.target.address}/"
        for words, code in (
                (("copy", "--dry-run", *self.to_target("new")), OK),
                (("copy", *self.to_target("e1")), NOTHING_TO_DO),
                (("copy", "--receipts", self.dir / "receipts", *self.to_target("e1")),
                 NOTHING_TO_DO),
                (("copy", *self.to_target("none")), NOT_FOUND),
                (("copy", "--replace", *self.to_target("e1")), NEEDS_CONFIRMATION),
                (("move", *self.to_target("e1")), NEEDS_CONFIRMATION),
                (("move", "--dry-run", *self.to_target("e1")), PERMISSION),
                (("move", CONFIRM, *self.to_target("e1")), PERMISSION),
                (("verify", *self.to_target("e1")), OK),
                (("daemons", where), OK),
                (("transfers", where), OK),
                (("transfers", "--all", where), OK),
                (("watch", transfer, where), OK),
                (("watch", NO_TRANSFER, where), NOT_FOUND),
                (("cancel", transfer, where), NOTHING_TO_DO),
                (("cancel", "--dry-run", transfer, where), NOTHING_TO_DO),
                (("cancel", NO_TRANSFER, where), NOT_FOUND)):
            yield (*words, "--secret-file", self.secret), code


class DryRun(ToldTest):
    def trees(self):
        """Both folders, but for the files of the journals, which their daemons keep open."""
        return {path: (path.stat().st_mode, path.stat().st_mtime_ns,
                       path.is_dir() or path.read_bytes())
                for daemon in (self.source, self.target) for path in daemon.folder.rglob("*")
                if not path.name.startswith("journal")}

    def test_no_copy_or_move_writes_anything(self):
        for name in ("new", "there", "replaced"):
            self.put(name, 2 * MIB)
        self.siphon("copy", *self.to_target("there"))
        ran = self.start([SIPHON, "put", f"posix:{self.target.folder}/replaced", SIPHON]).wait()
        self.assertEqual(ran.code, OK, str(ran))
        before = self.trees(), self.transfers("--all")
        for words, code in ((("copy", *self.to_target("new", "there")), OK),
                            (("copy", "--deep", *self.to_target("new", "there")), OK),
                            (("copy", "--replace", CONFIRM, *self.to_target("replaced")), OK),
                            (("copy", "--receipts", self.dir / "receipts",
                              *self.to_target("new")), OK),
                            (("move", CONFIRM, *self.to_target("new", "there")), PERMISSION)):
            with self.subTest(words=words):
                self.siphon(*words, "--dry-run", code=code)
                self.assertEqual((self.trees(), self.transfers("--all")), before)
                self.assertFalse((self.dir / "receipts").exists())

    def test_a_cancel_does_not_end_the_transfer(self):
        self.put("e1", 8 * MIB)
        copy = self.start([SIPHON, *self.copy_words("e1", "--bwlimit", "4M"), "--secret-file",
                           self.secret])
        transfer = self.wait_streaming(copy)["id"]
        ran = self.siphon("cancel", "--dry-run", transfer, f"{self.target.address}/")
        self.assertEqual(ran.document["phase"], "stream")
        self.assertEqual(copy.wait().code, OK)
        self.assertEqual(set(self.target.public_names()), {"e1"})
        self.assertEqual(self.siphon("cancel", transfer, f"{self.target.address}/",
                                     code=NOTHING_TO_DO).document["phase"], "succeeded")


if __name__ == "__main__":
    two_daemons.main()
