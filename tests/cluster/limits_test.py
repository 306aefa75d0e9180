#!/usr/bin/python3
"""What the cluster's settings do not allow, and registers that claim the impossible."""

import struct

import harness  # it knows the way to tests/lib
from cli import CONFIRM, NOT_FIT, OK
from formats import MIB, crc32c
from waiting import wait_until

TRASH_COUNT, FIXED, ENTRY = 63, 128, 96  # docs/extent_format.md: the head register, version 2
ENTRY_SIZE, ENTRY_PART_SIZE = 16, 40


class Limits(harness.ClusterTest):

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.cluster.create_pool("a")
        cls.cluster.create_pool("b")

    def assert_limit_is_told(self, setting, value, *words):
        c = self.cluster
        c.ceph("config", "set", "osd", setting, str(value))
        self.addCleanup(c.ceph, "config", "rm", "osd", setting)
        for osd in range(c.osds):
            wait_until(lambda osd=osd: c.admin_socket(osd, "config get", var=setting)[setting]
                       == str(value), what=f"{setting} at osd.{osd}")
        ran = c.siphon(*words, check=False)
        self.assert_fails(ran, NOT_FIT, setting)
        self.assertNotIn("again", ran.stderr)
        c.ceph("config", "rm", "osd", setting)

    def test_a_name_that_the_cluster_does_not_take_is_refused_with_its_setting(self):
        c, name = self.cluster, "n" * 90
        c.put(f"a/{name}", 2 * MIB, 1)
        self.assert_limit_is_told("osd_max_object_name_len", 60, "copy", f"a/{name}", "b")
        self.assertEqual(harness.list_objects(c, "b"), [])

    def test_a_register_that_the_cluster_does_not_take_is_refused_with_its_setting(self):
        c = self.cluster
        c.put("a/e", 9 * MIB, 2)
        self.assert_limit_is_told("osd_max_attr_size", 64, "copy", "a/e", "b")
        self.assert_nothing_left("b")

    def test_a_trash_entry_that_claims_2_to_63_bytes_is_purged_all_the_same(self):
        """Of a register that is sound otherwise: the parts that are there go, and nobody walks
        through those that cannot be."""
        c = self.cluster
        for field, layout, value in ((ENTRY_SIZE, "<Q", 1 << 63), (ENTRY_PART_SIZE, "<I", 1)):
            with self.subTest(offset=field):
                c.put("b/claims", 20 * MIB, 3)
                c.siphon("rm", "b/claims", CONFIRM)
                with c.io("b", locator="claims") as io:
                    raw = bytearray(io.get_xattr("siphon.claims", "siphon.head"))
                    self.assertEqual((raw[TRASH_COUNT], len(raw)), (1, FIXED + ENTRY + 4))
                    struct.pack_into(layout, raw, FIXED + field, value)
                    struct.pack_into("<I", raw, len(raw) - 4, crc32c(bytes(raw[:-4])))
                    io.set_xattr("siphon.claims", "siphon.head", bytes(raw))
                self.assertEqual(len([o for o in harness.list_objects(c, "b")
                                      if o[1] == "claims"]), 4)
                ran = c.siphon("trash", "purge", CONFIRM, "b/claims")
                self.assertEqual(ran.code, OK)
                self.assert_nothing_left("b")


if __name__ == "__main__":
    harness.main()
