#!/usr/bin/python3
"""What a copy proves, and what --deep proves beside: the source's bytes have rotted, and its sealed
header was written anew to fit them.
"""

import struct
import zlib

import two_daemons  # it knows the way to tests/support
from cli import FATAL, NOTHING_TO_DO
from formats import MIB, crc32c, sha256_of
from two_daemons import TwoDaemonsTest

PARTIAL = 6
HEAD_FIXED, REGISTER_CRC32 = 16, 48  # docs/extent_format.md: the head file, and the register's crc32


class DeepTest(TwoDaemonsTest):
    def setUp(self):
        super().setUp()
        self.source.start()
        self.target.start()

    def rot_and_hide_it(self, name, offset_bytes):
        """Flips a byte of the content and gives the sealed header the crc32 of what is there now."""
        public = self.source.folder / name
        data = bytearray(public.read_bytes())
        data[offset_bytes] ^= 0xFF
        public.write_bytes(data)
        path = self.source.folder / ".siphon" / "head" / name
        head = bytearray(path.read_bytes())
        at = HEAD_FIXED
        for size in struct.unpack_from("<II", head, 8):
            if size == 0:
                continue
            if head[at + 6] == 2:  # sealed
                struct.pack_into("<I", head, at + REGISTER_CRC32, zlib.crc32(data))
            struct.pack_into("<I", head, at + size - 4, crc32c(head[at:at + size - 4]))
            at += size
        path.write_bytes(head)
        self.digests[name] = sha256_of(public)

    def test_a_header_that_was_written_anew_passes_a_copy_which_says_what_it_proves(self):
        self.put("e1", 9 * MIB)
        self.rot_and_hide_it("e1", 5 * MIB)
        ran = self.copy("e1")
        self.assertFalse(ran.receipt["blocks_checked"])
        self.assertFalse(ran.summary["blocks_checked"])
        self.assertEqual(sha256_of(self.target.folder / "e1"), self.digests["e1"])
        self.assertEqual(self.source.public_names(), {"e1": self.digests["e1"]})

    def test_deep_refuses_it_before_it_is_published(self):
        for name, size, rot in (("large", 9 * MIB, 5 * MIB), ("small", 20_000, 10_000)):
            self.put(name, size)
            self.rot_and_hide_it(name, rot)
            ran = self.copy(name, "--deep", code=FATAL)
            message = ran.problem["message"]
            block = 1 if name == "large" else 0
            self.assertIn(f"block {block}", message)
            self.assertIn("SHA-256", message)
            self.assertIn(f"extent {name}", message)
            self.assertEqual(ran.problem["suspect"], "source")
            self.assertRegex(ran.problem["next_step"],
                             f"^siphon .*verify {self.source.address}/{name}, and bring it back")
            self.assertEqual(sha256_of(self.source.folder / name), self.digests[name])
        self.assertEqual(self.target.public_names(), {})
        self.assertEqual(self.target.leftovers(), [])
        # What is sound goes on beside it.
        self.put("sound", 3 * MIB)
        ran = self.siphon("copy", "--deep", f"{self.source.address}/sound",
                          f"{self.source.address}/large", f"{self.target.address}/", code=PARTIAL)
        self.assertEqual(self.target.public_names(), {"sound": self.digests["sound"]})
        receipts = [e["receipt"] for e in ran.document["extents"] if e["receipt"]]
        self.assertEqual([r["blocks_checked"] for r in receipts], [True])
        self.assertTrue(ran.summary["blocks_checked"])

    def test_deep_reads_what_is_there_already(self):
        self.put("e1", 2 * MIB)
        self.copy("e1", "--deep")
        self.copy("e1", "--deep", code=NOTHING_TO_DO)
        there = self.target.folder / "e1"
        data = bytearray(there.read_bytes())
        data[MIB] ^= 1
        there.write_bytes(data)
        self.copy("e1", code=NOTHING_TO_DO)  # by the sealed headers
        for flag in ("--check", "--deep"):
            with self.subTest(flag):
                ran = self.copy("e1", flag, code=FATAL)
                self.assertIn("already", ran.problem["message"])
                self.assertEqual(ran.problem["suspect"], "target")


if __name__ == "__main__":
    two_daemons.main()
