#!/usr/bin/python3
"""What the command line says of transfers between two folders' daemons: that it is true, and all of
it. Text is what people read, so it is looked at as text."""

import json
import re
import unittest

import two_daemons
from two_daemons import (FATAL, KIB, MIB, NOT_FOUND, NOTHING_TO_DO, OK, SIPHON, TwoDaemonsTest,
                         wait_for)

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
        self.assertIn("1 extents published, 2 already there", self.target.log.read_text())

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


if __name__ == "__main__":
    two_daemons.main()
