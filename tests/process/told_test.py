#!/usr/bin/python3
"""What the command line says of transfers between two folders' daemons: that it is true, and all of
it. Text is what people read, so it is looked at as text."""

import contextlib
import itertools
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import threading

import two_daemons
from cli import (BIN_DIR, EXIT_CONFIG, FATAL, INTERRUPTED, NOTHING_TO_DO, NOT_FOUND, OK,
                 PERMISSION, SIPHON, SIPHOND, TEMPORARY, USAGE)
from formats import KIB, MIB
from ports import is_connected_to
from waiting import DEADLINE_S, wait_until
from two_daemons import TwoDaemonsTest

PARTIAL = 6


class ToldTest(TwoDaemonsTest):
    def setUp(self):
        super().setUp()
        self.source.start()
        self.target.start()

    def text(self, *words, code=OK):
        ran = self.start([SIPHON, *words, "--secret-file", self.secret]).wait()
        self.assertEqual(ran.code, code, str(ran))
        return ran

    def to_target(self, *names):
        return [*(f"{self.source.address}/{n}" for n in names), f"{self.target.address}/"]

    def rows(self, text):
        """The rows of a table, by the first column."""
        lines = text.splitlines()
        head = next(i for i, line in enumerate(lines) if line.startswith(("EXTENT", "SOURCE")))
        return {line.split()[0]: line for line in lines[head + 1:] if line.strip()}


class AlreadyThere(ToldTest):
    def setUp(self):
        super().setUp()
        for name, size in (("e1", 2 * MIB), ("e2", 20 * KIB), ("e3", 3 * MIB)):
            self.put(name, size)
        self.siphon("copy", *self.to_target("e1", "e2"))

    def copied_again(self):
        ran = self.siphon("copy", *self.to_target("e1", "e2", "e3"))
        return {e["transfer_id"] for e in ran.document["extents"]}.pop()

    def test_watch_tells_what_was_there_from_what_was_published(self):
        transfer = self.copied_again()
        said = self.text("watch", transfer, f"{self.target.address}/").stdout
        self.assertIn("1 extent published, 2 already there, 0 failed", said)
        document = self.siphon("watch", transfer, f"{self.target.address}/").document
        self.assertEqual((document["published"], document["already_there"], document["failed"]),
                         (1, 2, 0))
        # All of it was there: nothing to do, as for the copy itself.
        again = self.siphon("copy", *self.to_target("e1"), code=NOTHING_TO_DO)
        transfer = again.document["extents"][0]["transfer_id"]
        said = self.text("watch", transfer, f"{self.target.address}/", code=NOTHING_TO_DO).stdout
        self.assertIn("0 extents published, 1 already there, 0 failed", said)
        self.assertIn("1 extent published, 2 already there", self.target.log.read_text())

    def test_watch_tells_why_extents_failed_beside_others_that_did_not(self):
        there = self.source.folder / "e3"
        data = bytearray(there.read_bytes())
        data[MIB] ^= 1
        there.write_bytes(data)
        ran = self.siphon("copy", *self.to_target("e1", "e3", "none"), code=PARTIAL)
        (transfer,) = {e["transfer_id"] for e in ran.document["extents"] if e["transfer_id"]}
        ran = self.text("watch", transfer, f"{self.target.address}/", code=PARTIAL)
        self.assertIn("0 extents published, 1 already there, 2 failed", ran.stdout)
        for name in ("e3", "none"):
            told = re.findall(rf"^siphon: {name}: .*suspect: source", ran.stderr, re.MULTILINE)
            self.assertEqual(len(told), 1, ran.stderr)

    def test_transfers_tells_what_was_there_from_what_was_published(self):
        transfer = self.copied_again()
        progress = {t["id"]: t["progress"] for t in self.transfers("--all")}[transfer]
        self.assertEqual((progress["extents_total"], progress["extents_done"],
                          progress["extents_already_there"], progress["extents_failed"]),
                         (3, 3, 2, 0))
        said = self.text("transfers", "--all", f"{self.target.address}/").stdout
        head = next(line for line in said.splitlines() if line.startswith("TRANSFER"))
        self.assertRegex(head, " DONE +ALREADY THERE +FAILED ")
        row = next(line for line in said.splitlines() if line.startswith(transfer))
        self.assertRegex(row, " 3/3 +2 +0 ")

    def test_no_checksum_is_shown_that_nobody_computed(self):
        receipts = self.dir / "receipts"
        ran = self.siphon("copy", "--receipts", receipts, *self.to_target("e1", "e3"))
        lines = [json.loads(line) for line in receipts.read_text().splitlines()]
        for told in ([e["receipt"] for e in ran.document["extents"]], lines):
            by_name = {r["source_extent"]: r for r in told}
            there, copied = by_name["e1"], by_name["e3"]
            self.assertTrue(there["already_there"])
            self.assertIsNone(there["source_crc32"])
            self.assertIsNone(there["target_crc32"])
            self.assertTrue(there["header"]["crc32"])  # as it was sealed, and called that
            self.assertEqual(copied["source_crc32"], copied["header"]["crc32"])
        rows = self.rows(self.text("copy", *self.to_target("e1"), code=NOTHING_TO_DO).stdout)
        self.assertRegex(rows[f"{self.source.address}/e1"], r" - +- +\S+ -> \S+ +already there")

    def test_receipts_that_stdout_does_not_take_are_counted(self):
        with open("/dev/full", "wb") as full:
            run = subprocess.run([SIPHON, "copy", "--receipts", "-", *self.to_target("e1"),
                                  "--secret-file", self.secret], stdout=full,
                                 stderr=subprocess.PIPE, text=True)
        self.assertEqual(run.returncode, PARTIAL, run.stderr)
        self.assertIn("siphon: 1 receipt could not be written: write a receipt to stdout: No space",
                      run.stderr)

    def test_receipts_have_stdout_for_themselves(self):
        ran = self.text("copy", "--receipts", "-", *self.to_target("e1", "e3"))
        self.assertEqual([json.loads(line)["source_extent"] for line in ran.stdout.splitlines()],
                         ["e3", "e1"])
        self.assertIn("already there", ran.stderr)

    def test_what_was_read_for_a_check_is_shown(self):
        receipts = self.dir / "receipts"
        ran = self.siphon("copy", "--check", "--receipts", receipts, *self.to_target("e1"),
                          code=NOTHING_TO_DO)
        (line,) = [json.loads(line) for line in receipts.read_text().splitlines()]
        for receipt in (line, ran.receipt):
            self.assertTrue(receipt["already_there"])
            self.assertEqual(receipt["source_crc32"], receipt["header"]["crc32"])
            self.assertEqual(receipt["target_crc32"], receipt["header"]["crc32"])

    def test_no_receipt_is_written_of_what_a_check_finds_damaged(self):
        there = self.target.folder / "e1"
        data = bytearray(there.read_bytes())
        data[MIB] ^= 1
        there.write_bytes(data)
        receipts = self.dir / "receipts"
        ran = self.siphon("copy", "--check", "--receipts", receipts, *self.to_target("e1"),
                          code=FATAL)
        self.assertEqual(receipts.read_text(), "")
        self.assertIsNone(ran.document["extents"][0]["receipt"])


class TakenNames(ToldTest):
    """That a name is taken at the target does not hide what is wrong with the source."""

    def assert_is_the_sources(self, source, code, words, exit_code):
        name = source.rpartition("/")[2]
        ran = self.siphon("copy", source, f"{self.target.address}/{name}", code=exit_code)
        self.assertEqual((ran.problem["code"], ran.problem["suspect"]), (code, "source"), str(ran))
        self.assertRegex(ran.problem["message"], f"extent {name} is already at the target, .*{words}")
        self.assertNotIn("--replace", ran.problem["next_step"] or "")

    def test_a_source_that_cannot_be_read_is_named_whatever_the_target_has(self):
        for name in ("e1", "gone", "damaged", "open"):
            self.put(name, MIB)
        self.siphon("copy", *self.to_target("e1", "gone", "damaged", "open"))
        at = {name: f"{self.source.address}/{name}" for name in ("e1", "gone", "damaged", "open")}
        for name in ("gone", "open"):
            self.start([SIPHON, "rm", f"posix:{self.source.folder}/{name}",
                        "--yes-i-really-mean-it"]).wait()
        self.start([SIPHON, "put", "--open", f"posix:{self.source.folder}/open", SIPHON]).wait()
        (self.source.folder / ".siphon" / "head" / "damaged").write_bytes(b"no head")
        self.assert_is_the_sources(at["gone"], "NOT_FOUND", "gone does not exist", NOT_FOUND)
        self.assert_is_the_sources(at["open"], "FAILED_PRECONDITION", "open", FATAL)
        self.assert_is_the_sources(at["damaged"], "DATA_LOSS", "damaged", FATAL)
        self.source.kill()
        self.assert_is_the_sources(at["e1"], "UNAVAILABLE", "does not answer", TEMPORARY)


class Counts(ToldTest):
    def test_every_extent_that_was_listed_is_counted_once(self):
        for name in ("new", "there", "differs"):
            self.put(name, MIB)
        self.siphon("copy", *self.to_target("there"))
        ran = self.start([SIPHON, "put", f"posix:{self.target.folder}/differs", SIPHON]).wait()
        self.assertEqual(ran.code, OK, str(ran))
        names = [*self.to_target("new", "there", "differs", "none")[:-1], "127.0.0.1:1/gone",
                 f"{self.target.address}/"]
        ran = self.siphon("copy", *names, code=PARTIAL)
        numbers = {k: ran.summary[k] for k in
                   ("listed", "copied", "already_there", "refused", "failed", "going_on")}
        self.assertEqual(numbers, {"listed": 5, "copied": 1, "already_there": 1, "refused": 0,
                                   "failed": 3, "going_on": 0}, str(ran))
        self.assertEqual([e["refused"] for e in ran.document["extents"]], [False] * 5)
        said = self.text("copy", *names, code=PARTIAL).stdout
        self.assertIn("5 extents listed: 0 copied and proven, 2 already there, 0 refused, "
                      "3 failed;", said)
        # A plan that asks the daemons knows which of them nobody need try.
        plan = self.siphon("copy", "--dry-run", *names, code=PARTIAL).document["extents"]
        self.assertEqual({e["source"].rpartition("/")[2] for e in plan if e["refused"]},
                         {"differs"})


class Replaced(ToldTest):
    """What nobody can bring back any more is told by whoever made it go."""

    target_settings = ("trash.keep=1",)
    CONFIRM = "--yes-i-really-mean-it"

    def replace(self, *more):
        self.start([SIPHON, "rm", f"posix:{self.source.folder}/e1", self.CONFIRM]).wait()
        self.put("e1", 2 * MIB)
        return self.text("copy", "--replace", self.CONFIRM, *self.to_target("e1"), *more)

    def kept(self):
        ran = self.start([SIPHON, "trash", "ls", f"posix:{self.target.folder}/e1", "-f",
                          "json"]).wait()
        return ran.document["entries"]

    def test_copy_says_which_generation_it_pushes_out_of_the_trash(self):
        self.put("e1", MIB)
        self.siphon("copy", *self.to_target("e1"))
        ran = self.replace("-f", "json")  # the first one is in the trash now
        self.assertEqual(ran.document["extents"][0]["left_for_good"], [])
        (oldest,) = self.kept()
        receipts = self.dir / "receipts"
        ran = self.replace("-f", "json", "--receipts", receipts)
        gone = [{k: oldest[k] for k in ("private_id", "since", "bytes")}]
        (extent,) = ran.document["extents"]
        self.assertEqual(extent["left_for_good"], gone)
        self.assertEqual(extent["receipt"]["left_for_good"], gone)
        self.assertEqual(json.loads(receipts.read_text())["left_for_good"], gone)
        (oldest,) = self.kept()
        ran = self.replace("--receipts", receipts)
        words = (f"an older generation left the trash for good, to make room: private id "
                 f"{oldest['private_id']}, ")
        self.assertIn(f"siphon: {self.target.address}/e1: {words}", ran.stderr)
        # And whoever asks later.
        transfer = json.loads(receipts.read_text().splitlines()[-1])["transfer_id"]
        self.assertIn(words, self.text("watch", transfer, f"{self.target.address}/").stderr)
        watched = self.siphon("watch", transfer, f"{self.target.address}/").document
        self.assertEqual([g["private_id"] for g in watched["extents"][0]["left_for_good"]],
                         [oldest["private_id"]])


class Verify(ToldTest):
    def test_what_could_not_be_read_has_no_checksum(self):
        self.put("e1", 2 * MIB)
        for where in (f"{self.source.address}/none", f"posix:{self.source.folder}/none"):
            (extent,) = self.siphon("verify", where, code=NOT_FOUND).document["extents"]
            for key in ("crc32", "bytes", "blocks", "content_digest", "private_id"):
                self.assertIsNone(extent[key], (where, key))
        both = ("verify", f"{self.source.address}/e1", f"{self.target.address}/e1")
        (pair,) = self.siphon(*both, code=NOT_FOUND).document["extents"]
        self.assertTrue(pair["source"]["crc32"])
        self.assertIsNone(pair["target"]["crc32"])
        row = self.rows(self.text(*both, code=NOT_FOUND).stdout)[f"{self.source.address}/e1"]
        self.assertNotIn("00000000", row)
        self.assertIn(f" {pair['source']['crc32']} ", row)
        # Damaged: opened, and not all of it read.
        there = self.source.folder / "e1"
        data = bytearray(there.read_bytes())
        data[MIB] ^= 1
        there.write_bytes(data)
        (extent,) = self.siphon("verify", both[1], code=FATAL).document["extents"]
        self.assertIsNone(extent["crc32"])
        self.assertTrue(extent["private_id"])


    def test_local_is_refused_where_it_cannot_be(self):
        self.put("e1", MIB)
        self.siphon("copy", *self.to_target("e1"))
        there, folder = f"{self.target.address}/e1", f"posix:{self.source.folder}/e1"
        for ends in ((there,), (there, folder), (folder, there)):
            ran = self.siphon("verify", "--local", *ends, code=USAGE)
            self.assertIn(there, ran.problem["message"])
        ran = self.siphon("verify", "--local", folder)
        self.assertEqual(ran.document["extents"][0]["where"], "here")

    def pairs(self, *words, code):
        """The rows of the document, by the source's name; what was said, line by line."""
        document = self.siphon("verify", *words, code=code).document
        said = self.text("verify", *words, code=code)
        rows = {e["source"]["extent"].rpartition("/")[2]: e for e in document["extents"]}
        return rows, self.rows(said.stdout), said.stderr

    def test_what_is_wrong_at_the_target_is_told_of_the_target(self):
        for name in ("rotten", "gone"):
            self.put(name, MIB)
            self.siphon("copy", *self.to_target(name))
        there = self.target.folder / "rotten"
        data = bytearray(there.read_bytes())
        data[MIB // 2] ^= 1
        there.write_bytes(data)
        (self.target.folder / "gone").unlink()
        for name, code, exit_code in (("rotten", "DATA_LOSS", FATAL), ("gone", "NOT_FOUND",
                                                                        NOT_FOUND)):
            ends = [f"{d.address}/{name}" for d in (self.source, self.target)]
            for source, target, side in ((*ends, "target"), (*ends[::-1], "source")):
                rows, table, said = self.pairs(source, target, code=exit_code)
                self.assertIs(rows[name]["same"], False)
                problem = rows[name]["problem"]
                self.assertEqual((problem["code"], problem["suspect"]), (code, side), problem)
                self.assertIn(f"siphon: {ends[1]}: ", said)
                self.assertIn(f"(suspect: {side})", said)
                self.assertNotIn(f"siphon: {ends[0]}: ", said)
                self.assertRegex(table[source], " NO$")

    def test_what_was_not_compared_is_neither_the_same_nor_not(self):
        self.put("e1", MIB)
        self.siphon("copy", *self.to_target("e1"))
        ends = [f"{self.source.address}/e1", f"{self.target.address}/e1"]
        self.target.kill()
        rows, table, said = self.pairs(*ends, code=TEMPORARY)
        self.assertIsNone(rows["e1"]["same"])
        self.assertEqual(rows["e1"]["problem"]["suspect"], "target")
        self.assertRegex(table[ends[0]], " -$")
        self.assertIn(f"siphon: {ends[1]}: ", said)


class DryRun(ToldTest):
    def put_open(self, folder, name):
        ran = self.start([SIPHON, "put", "--open", f"posix:{folder}/{name}", SIPHON]).wait()
        self.assertEqual(ran.code, OK, str(ran))

    def test_between_daemons_it_says_what_a_copy_would_do(self):
        for name in ("new", "there", "differs", "open-there"):
            self.put(name, 2 * MIB)
        self.siphon("copy", *self.to_target("there"))
        (self.source.folder / "other").write_bytes(b"")  # no extent: not one of its names
        ran = self.start([SIPHON, "put", f"posix:{self.target.folder}/differs", SIPHON]).wait()
        self.assertEqual(ran.code, OK, str(ran))
        self.put_open(self.source.folder, "open")
        self.put_open(self.target.folder, "open-there")
        before = self.target.public_names(), self.transfers("--all")
        names = self.to_target("new", "there", "differs", "open-there", "none", "open")
        ran = self.siphon("copy", "--dry-run", *names, code=PARTIAL)
        by_name = {e["source"].rpartition("/")[2]: e for e in ran.document["extents"]}
        self.assertEqual({name: e["status"] for name, e in by_name.items()},
                         {"new": "pending", "there": "already there", "differs": "failed",
                          "open-there": "failed", "none": "failed", "open": "failed"})
        size = (self.source.folder / "new").stat().st_size
        self.assertEqual(by_name["new"]["bytes"], size)
        self.assertEqual(ran.document["total_bytes"], size)
        self.assertEqual(ran.document["transfers"], 1)
        for name, code, suspect in (("none", "NOT_FOUND", "source"),
                                    ("open", "FAILED_PRECONDITION", "source"),
                                    ("differs", "ALREADY_EXISTS", "target"),
                                    ("open-there", "ALREADY_EXISTS", "target")):
            problem = by_name[name]["problem"]
            self.assertEqual((problem["code"], problem["suspect"]), (code, suspect), problem)
        said = self.text("copy", "--dry-run", *names, code=PARTIAL).stdout
        self.assertIn("would copy 1 extent, 2.00 MiB, in 1 transfer; nothing was changed", said)
        self.assertEqual((self.target.public_names(), self.transfers("--all")), before)
        # Nothing to copy is nothing, of a size that is known.
        none = self.to_target("there")
        ran = self.siphon("copy", "--dry-run", *none, code=NOTHING_TO_DO)
        self.assertEqual((ran.document["total_bytes"], ran.document["transfers"]), (0, 0))
        self.assertIn("would copy 0 extents, 0 B, in 0 transfers",
                      self.text("copy", "--dry-run", *none, code=NOTHING_TO_DO).stdout)
        # What it says is what happens.
        done = self.siphon("copy", *names, code=PARTIAL)
        self.assertEqual({e["source"].rpartition("/")[2] for e in done.document["extents"]
                          if e["status"] == "copied"}, {"new"})
        problems = [e["problem"]["message"] for e in done.document["extents"] if e["problem"]]
        self.assertTrue(any("extent differs is already at the target and differs" in p
                            for p in problems), problems)

    def test_of_what_is_damaged_or_foreign_it_says_what_a_copy_would(self):
        names = ("cut-here", "cut-there", "kept", "foreign")
        for name in names:
            self.put(name, 2 * MIB)
        self.siphon("copy", *self.to_target("cut-there", "kept"))
        for folder, name in ((self.source.folder, "cut-here"), (self.target.folder, "cut-there"),
                             (self.source.folder, "kept")):
            os.truncate(folder / name, MIB)
        (self.target.folder / "foreign").write_bytes(b"somebody's")

        def told(*words):
            ran = self.siphon("copy", *words, *self.to_target(*names), code=PARTIAL)
            return {e["source"].rpartition("/")[2]:
                    (e["status"], *((e["problem"] or {}).get(k) for k in ("code", "suspect")))
                    for e in ran.document["extents"]}
        plan = told("--dry-run")
        self.assertEqual(plan, {"cut-here": ("failed", "DATA_LOSS", "source"),
                                "cut-there": ("failed", "DATA_LOSS", "target"),
                                "kept": ("already there", None, None),
                                "foreign": ("failed", "FAILED_PRECONDITION", "target")})
        self.assertEqual(told(), plan)
        self.assertEqual((self.target.folder / "foreign").read_bytes(), b"somebody's")

    def test_a_daemon_that_cannot_be_asked_is_named(self):
        self.put("e1", MIB)
        for daemon, suspect in ((self.target, "target"), (self.source, "source")):
            daemon.kill()
            ran = self.siphon("copy", "--dry-run", *self.to_target("e1"), code=TEMPORARY)
            self.assertIn(daemon.address, ran.problem["message"])
            self.assertEqual(ran.problem["suspect"], suspect)
            daemon.start()

    def test_an_interrupt_ends_the_question(self):
        self.put("e1", MIB)
        proxy = DeafControl(self.source.port)
        self.addCleanup(proxy.close)
        run = self.start([SIPHON, "copy", "--dry-run", f"127.0.0.1:{proxy.port}/e1",
                          f"{self.target.address}/", "--secret-file", self.secret])
        wait_until(lambda: run.ended() or proxy.asked, DEADLINE_S, "the question")
        self.assertFalse(run.ended())
        run.send(signal.SIGINT)
        self.assertEqual(run.wait(15).code, INTERRUPTED)


class Interrupted(ToldTest):
    def test_an_interrupt_ends_the_connecting_to_a_silent_address(self):
        self.put("e1", MIB)
        for words in (("transfers", "{}/"), ("watch", "0" * 32, "{}/"), ("verify", "{}/e1"),
                      ("copy", f"{self.source.address}/e1", "{}/")):
            with socket.create_server(("127.0.0.1", 0)) as silent:
                address = f"127.0.0.1:{silent.getsockname()[1]}"
                run = self.start([SIPHON, *(word.format(address) for word in words),
                                  "--secret-file", self.secret])
                client, _ = silent.accept()
                with client:
                    run.send(signal.SIGINT)
                    ran = run.wait()
            self.assertEqual(ran.code, INTERRUPTED, str(ran))
            self.assertNotIn("does not answer", ran.stderr)  # as after the connect's own 5 s
            self.assertIn("interrupted", ran.stderr)

    def test_a_target_that_is_not_there_is_asked_for_no_transfer(self):
        self.put("e1", MIB)
        self.target.kill()
        ran = self.copy("e1", code=TEMPORARY)
        self.assertEqual((ran.summary["transfers"], ran.summary["lane_bytes"]), (0, 0), str(ran))
        self.assertNotIn("data ports", self.text(*self.copy_words("e1"), code=TEMPORARY).stdout)

    def test_what_no_target_was_asked_for_does_not_go_on(self):
        self.put("e1", MIB)
        proxy = DeafControl(self.target.port)
        self.addCleanup(proxy.close)
        run = self.start([SIPHON, "copy", f"{self.source.address}/e1", f"127.0.0.1:{proxy.port}/",
                          "--secret-file", self.secret, "-f", "json"])
        wait_until(lambda: run.ended() or proxy.asked, DEADLINE_S, "the question")
        self.assertFalse(run.ended())
        run.send(signal.SIGINT)
        ran = run.wait()
        self.assertEqual(ran.code, INTERRUPTED, str(ran))
        (extent,) = ran.document["extents"]
        self.assertEqual((extent["status"], extent["attempts"], extent["refused"]),
                         ("failed", 0, False))
        self.assertEqual(extent["problem"]["message"], "not started: interrupted")
        self.assertEqual(ran.document["going_on"], [])
        self.assertEqual((ran.summary["failed"], ran.summary["transfers"]), (1, 0))
        self.assertNotIn("goes on", ran.stderr)
        self.assertEqual(self.transfers("--all"), [])


    def test_a_transfer_whose_target_went_away_is_not_said_to_go_on(self):
        self.put("e1", 8 * MIB)
        run = self.start([SIPHON, *self.copy_words("e1", "--bwlimit", "2M"), "--secret-file",
                          self.secret, "-f", "json"])
        transfer = self.wait_streaming(run)["id"]
        self.target.kill()
        wait_until(lambda: run.ended() or not is_connected_to(self.target.port), DEADLINE_S,
                   "the requester to see that its target is gone")
        self.assertFalse(run.ended())
        run.send(signal.SIGINT)
        ran = run.wait()
        self.assertEqual(ran.code, INTERRUPTED, str(ran))
        (extent,) = ran.document["extents"]
        self.assertEqual((extent["status"], extent["transfer_id"]), ("failed", transfer))
        self.assertIn(f"interrupted; transfer {transfer} was at its target, and whether it goes "
                      "on is not known", extent["problem"]["message"])
        self.assertEqual((ran.document["going_on"], ran.summary["going_on"]), ([], 0))
        # Its account is gone with it.
        self.assertEqual([ran.summary[k] for k in ("transfers", "lane_bytes", "rpc_bytes",
                                                   "rejected_connections", "fallback_parts")],
                         [1, None, None, None, None])
        self.assertEqual(len(ran.summary["data_endpoints"]), 1)
        # What it says to run is what finds out, once the target is back.
        self.target.start()
        (step,) = re.findall(r"^next: (siphon .* watch .*)$", ran.stderr, re.MULTILINE)
        pasted = subprocess.run(shlex.split(step.replace("siphon", str(SIPHON), 1)),
                                capture_output=True, text=True)
        self.assertEqual(pasted.returncode, NOT_FOUND, pasted)


class DeafControl:
    """Before a daemon's control port. The first `heard` connections (what are you?) pass; whoever
    asks more is greeted, and nobody hears the question."""

    QUESTION_BYTES = 300  # more than a greeting of HTTP/2, less than that and a request

    def __init__(self, port, heard=1):
        self._target, self._heard = ("127.0.0.1", port), heard
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.asked = False
        self._sockets = [self._server]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            for hears in itertools.chain([True] * self._heard, itertools.repeat(False)):
                client, _ = self._server.accept()
                daemon = socket.create_connection(self._target)
                self._sockets += [client, daemon]
                threading.Thread(target=self._pass, args=(daemon, client), daemon=True).start()
                threading.Thread(target=self._pass if hears else self._swallow,
                                 args=(client, daemon), daemon=True).start()

    @staticmethod
    def _pass(source, sink):
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                sink.sendall(piece)

    def _swallow(self, client, _):
        got = 0
        with contextlib.suppress(OSError):
            while piece := client.recv(65536):
                got += len(piece)
                self.asked = self.asked or got > self.QUESTION_BYTES

    def close(self):
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


class Progress(ToldTest):
    def progress(self, *words, code=OK):
        ran = self.text(*words, "--progress", "json", code=code)
        told = [json.loads(line)["progress"] for line in ran.stderr.splitlines()
                if line.startswith("{")]
        self.assertTrue(told)
        return told

    def assert_total(self, told, total_bytes):
        """One total all along, and what is done grows up to it."""
        self.assertEqual({p["total_bytes"] for p in told}, {total_bytes})
        done = [p["done_bytes"] for p in told]
        self.assertEqual(done, sorted(done))
        self.assertTrue(told[-1]["finished"])
        self.assertEqual(done[-1], total_bytes)

    def bytes_of(self, *names):
        return sum((self.source.folder / name).stat().st_size for name in names)

    def test_a_copy_between_daemons_has_its_total_from_the_start(self):
        third = self.make_daemon_beside("third")
        names = [f"e{i}" for i in range(4)]
        for name in names:
            self.put(name, 2 * MIB)
        for name in ("e2", "e3"):
            (self.dir / f"content-{name}").rename(self.dir / "moved")
            ran = self.start([SIPHON, "put", f"posix:{third.folder}/{name}",
                              self.dir / "moved"]).wait()
            self.assertEqual(ran.code, OK, str(ran))
        # Two transfers, one after the other.
        told = self.progress("copy", "--bwlimit", "3M", "--max-transfers", "1",
                             f"{self.source.address}/e0", f"{self.source.address}/e1",
                             f"{third.address}/e2", f"{third.address}/e3",
                             f"{self.target.address}/")
        self.assertGreater(len(told), 1)
        self.assert_total(told, self.bytes_of(*names))
        self.assertEqual({p["total_extents"] for p in told}, {4})

    def test_a_name_that_is_not_there_does_not_hide_the_total(self):
        self.put("e1", 2 * MIB)
        told = self.progress("copy", *self.to_target("e1", "none"), code=PARTIAL)
        self.assertEqual({p["total_bytes"] for p in told}, {self.bytes_of("e1")})

    def test_what_is_tried_again_counts_from_its_first_byte(self):
        self.put("e1", 8 * MIB)
        run = self.start([SIPHON, *self.copy_words("e1", "--bwlimit", "2M", "--progress", "json"),
                          "--secret-file", self.secret])
        self.wait_streaming(run, 4 * MIB)
        self.source.restart()
        ran = run.wait()
        self.assertEqual(ran.code, OK, str(ran))
        told = [json.loads(line)["progress"] for line in ran.stderr.splitlines()
                if line.startswith("{")]
        first, again = ([p for p in told if p["retried"] == n] for n in (0, 1))
        self.assertGreater(first[-1]["done_bytes"], 0)
        self.assertLess(again[0]["done_bytes"], first[-1]["done_bytes"])
        self.assertEqual(again[-1]["done_bytes"], self.bytes_of("e1"))

    def make_daemon_beside(self, name):
        (self.dir / name).mkdir()
        return self.make_daemon(name, self.base_port + 2, range(
            self.base_port + 30, self.base_port + 34), ()).start()

    def test_a_verify_of_two_ends_has_one_total(self):
        names = [f"e{i}" for i in range(3)]
        for i, name in enumerate(names):
            self.put(name, (i + 1) * MIB)
        self.siphon("copy", *self.to_target(*names))
        total = self.bytes_of(*names)
        folders = [f"posix:{d.folder}/" for d in (self.source, self.target)]
        self.assert_total(self.progress("verify", folders[0]), total)
        self.assert_total(self.progress("verify", *folders), 2 * total)
        self.assert_total(self.progress("verify", folders[0], f"{self.target.address}/"),
                          2 * total)
        for one in (f"{self.source.address}/e2", f"posix:{self.source.folder}/e2"):
            self.assert_total(self.progress("verify", one), self.bytes_of("e2"))
            self.assert_total(self.progress("verify", one, f"{self.target.address}/e2"),
                              2 * self.bytes_of("e2"))

    def test_what_a_check_has_read_is_no_progress_of_the_copy(self):
        self.put("e1", 4 * MIB)
        self.put("e2", 2 * MIB)
        self.siphon("copy", *self.to_target("e1"))
        told = self.progress("copy", "--check", "--bwlimit", "1M", *self.to_target("e1", "e2"))
        total = self.bytes_of("e2")
        self.assertEqual([p["total_bytes"] for p in told if p["finished"]], [total])
        going = [p for p in told if p["total_bytes"] == total and not p["finished"]]
        self.assertLess(going[0]["done_bytes"], total)


class Daemons(ToldTest):
    def test_who_was_not_asked_is_told_from_who_refused_and_who_did_not_answer(self):
        other = self.dir / "other"
        other.write_bytes(b"o" * 32)
        other.chmod(0o600)
        where = f"{self.target.address}/"

        def said(secret, code):
            ran = self.start([SIPHON, "daemons", "--secret-file", secret, where]).wait()
            self.assertEqual(ran.code, code, str(ran))
            return ran.stdout
        self.assertRegex(said(self.dir / "none", FATAL), r" - +not asked ")
        self.assertRegex(said(other, PERMISSION), r" - +refused ")
        self.target.kill()
        self.assertRegex(said(self.secret, TEMPORARY), r" - +no answer ")


class NextSteps(ToldTest):
    def paste(self, command):
        """Runs it as who has copied it from a terminal."""
        return subprocess.run(["bash", "-c", command], capture_output=True, text=True,
                              timeout=3 * DEADLINE_S, env={**os.environ, "PATH":
                                                           f"{BIN_DIR}:{os.environ['PATH']}"})

    def test_what_ctrl_c_says_of_a_transfer_works_when_pasted(self):
        self.put("e1", 8 * MIB)
        copy = self.start([SIPHON, *self.copy_words("e1", "--bwlimit", "4M"), "--secret-file",
                           self.secret])
        self.wait_streaming(copy)
        copy.send(signal.SIGINT)
        ran = copy.wait()
        self.assertRegex(ran.stdout, "data ports: 127.0.0.1:[0-9]+; what went over the wire is not "
                                     "known")
        said = ran.stderr
        watch, cancel = re.search(r"^next: (siphon .* watch .*), or (siphon .* cancel .*)$", said,
                                  re.MULTILINE).groups()
        pasted = self.paste(watch)
        self.assertEqual(pasted.returncode, OK, pasted)
        self.assertIn("1 extent published", pasted.stdout)
        pasted = self.paste(cancel)
        self.assertEqual(pasted.returncode, NOTHING_TO_DO, pasted)  # it is over

    def test_the_last_words_of_who_is_interrupted_twice_work_when_pasted(self):
        self.put("e1", 8 * MIB)
        copy = self.start([SIPHON, *self.copy_words("e1", "--bwlimit", "2M"), "--secret-file",
                           self.secret])
        self.wait_streaming(copy)
        copy.send(signal.SIGINT)
        copy.send(signal.SIGTERM)
        ran = copy.wait()
        self.assertEqual(ran.code, INTERRUPTED)
        command = re.search(r"what runs at the devices goes on: (siphon .*)$", ran.stderr,
                            re.MULTILINE).group(1)
        pasted = self.paste(command)
        self.assertEqual(pasted.returncode, OK, pasted)
        self.assertIn("stream", pasted.stdout)

    def test_the_next_step_of_an_error_has_the_connection(self):
        self.put("e1", MIB)
        self.siphon("copy", *self.to_target("e1"))
        where = f"{self.target.address}/"
        for more in ((), ("-f", "json")):
            ran = self.text("watch", "0" * 32, where, *more, code=NOT_FOUND)
            step = re.search(r"^next: (siphon .* transfers --all \S+)", ran.stderr,
                             re.MULTILINE).group(1)
            if more:
                self.assertIn(step, json.loads(ran.stdout)["error"]["next_step"])
            self.assertIn(f"--secret-file {shlex.quote(str(self.secret))}", step)
            pasted = self.paste(step)
            self.assertEqual(pasted.returncode, OK, pasted)
            self.assertIn("succeeded", pasted.stdout)

    def test_the_daemon_that_did_not_answer_is_asked_by_the_next_step(self):
        self.target.kill()
        where = f"{self.target.address}/"
        said = self.text("transfers", where, code=TEMPORARY).stderr
        step = re.search(r"is siphond running there \((siphon .*) shows\)", said).group(1)
        self.assertIn(f"daemons {where}", step)
        pasted = self.paste(step)
        self.assertEqual(pasted.returncode, TEMPORARY, pasted)  # and no question to Ceph
        self.assertIn(f"device at {self.target.address} does not answer", pasted.stderr)

    def test_what_comes_from_the_environment_stays_there(self):
        run = subprocess.run([SIPHON, "watch", "0" * 32, f"{self.target.address}/"],
                             capture_output=True, text=True,
                             env={**os.environ, "SIPHON_SECRET_FILE": str(self.secret)})
        self.assertEqual(run.returncode, NOT_FOUND, run)
        self.assertIn("next: siphon transfers --all", run.stderr)


class OutputFiles(ToldTest):
    """No file is written into a Siphon folder, whichever option names it."""

    INPUTS = {"--conf", "--keyring", "--source-conf", "--source-keyring", "--target-conf",
              "--target-keyring", "--secret-file", "--tls-ca", "--tls-cert", "--tls-key"}
    OUTPUTS = {"--receipts", "--save"}  # and FILE of get, siphond's log.file

    def commands(self, file):
        """{option: the command that would write there}."""
        return {
            "--receipts": ["copy", "--secret-file", self.secret, "--receipts", file,
                           *self.to_target("e1")],
            "--save": ["rm", "--corrupt-head", "--save", file, "--yes-i-really-mean-it",
                       f"posix:{self.dir / 'broken'}/e1"],
            "FILE": ["get", "--force", f"posix:{self.source.folder}/e1", file]}

    def make_corrupt_head(self):
        folder = self.dir / "broken"
        folder.mkdir()
        ran = self.start([SIPHON, "put", f"posix:{folder}/e1", SIPHON]).wait()
        self.assertEqual(ran.code, OK, str(ran))
        (folder / ".siphon" / "head" / "e1").write_bytes(b"no head")

    def test_every_option_that_names_one_is_tried_here(self):
        words = self.start([SIPHON, "--help"]).wait().stdout
        verbs = re.findall(r"^  (\w+) ", re.split("(?i)subcommands:", words)[-1], re.MULTILINE)
        self.assertIn("copy", verbs)
        files = set()
        for verb in [[], *([v] for v in verbs), ["trash", "purge"], ["scratch", "purge"]]:
            said = self.start([SIPHON, *verb, "--help"]).wait().stdout
            files |= set(re.findall(r"(--[a-z-]+) FILE\b", said))
        self.assertEqual(files, self.INPUTS | self.OUTPUTS)
        settings = set(re.findall(r"^(\S+\.file) =", self.start(
            [SIPHOND, "--check-config"]).wait().stdout, re.MULTILINE))
        self.assertEqual(settings, {"journal.file", "log.file"})
        self.assertEqual(set(self.commands("x")), self.OUTPUTS | {"FILE"})

    def test_none_of_them_writes_into_a_siphon_folder(self):
        self.put("e1", MIB)
        self.make_corrupt_head()
        folder = self.target.folder
        self.siphon("copy", *self.to_target("e1"))
        (self.dir / "link").symlink_to(folder / "new")
        (self.dir / "there").symlink_to(folder / "e1")
        (self.dir / "inside").symlink_to(folder / ".siphon" / "data")
        (folder / ".siphon" / "data" / "deep").mkdir()
        before = self.target.public_names(), sorted(folder.rglob("*"))
        for file in (folder / "new", folder / "e1", folder / ".siphon" / "new",
                     folder / ".siphon" / "head" / "new", self.dir / "link", self.dir / "there",
                     folder / ".siphon" / "data" / "deep" / "new", self.dir / "inside" / "new"):
            for option, words in self.commands(file).items():
                ran = self.start([SIPHON, *words]).wait()
                self.assertEqual(ran.code, USAGE, str(ran))
                self.assertIn(f"{file} lies in a Siphon folder", ran.stderr, option)
            daemon = self.start([SIPHOND, "--check-config", "--set", f"log.file={file}"]).wait()
            self.assertEqual(daemon.code, EXIT_CONFIG, str(daemon))
            self.assertIn(f"log.file: {file} lies in a Siphon folder", daemon.stderr)
        self.assertEqual((self.target.public_names(), sorted(folder.rglob("*"))), before)
        for words in self.commands(self.dir / "elsewhere").values():
            (self.dir / "elsewhere").unlink(missing_ok=True)
            ran = self.start([SIPHON, *words]).wait()
            self.assertEqual(ran.code, NOTHING_TO_DO if words[0] == "copy" else OK, str(ran))
            self.assertTrue((self.dir / "elsewhere").exists())


class Since(ToldTest):
    def test_transfers_says_since_when_it_knows(self):
        self.put("e1", MIB)
        self.siphon("copy", *self.to_target("e1"))
        self.assertEqual(len(self.transfers("--all")), 1)
        self.target.restart()
        ran = self.siphon("transfers", "--all", f"{self.target.address}/")
        self.assertEqual(ran.document["transfers"], [])
        ((device, since),) = ran.document["known_since"].items()
        self.assertEqual(device, f"posix:{self.target.folder}")
        self.assertEqual(since, self.describe(self.target)["started_at"])
        said = self.text("transfers", "--all", f"{self.target.address}/").stdout
        self.assertIn(f"{device} knows those since its start at {since}", said)
        ran = self.text("watch", "0" * 32, f"{self.target.address}/", code=NOT_FOUND)
        self.assertIn("a device forgets its transfers when it is started again, and of those that "
                      "have ended it knows the last 64 at most", ran.stderr)


if __name__ == "__main__":
    two_daemons.main()
