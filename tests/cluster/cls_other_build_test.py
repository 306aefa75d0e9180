#!/usr/bin/python3
"""libcls_siphon.so in a ceph-osd of another build than it was compiled for.

The library in build/.../testlib is the same code, which believes that it was compiled for another
commit of Ceph: no method may touch a bufferlist there, and everything says so.
"""

import errno
import mmap
import os
import pathlib
import re
import struct

import rados

import harness
from cli import NOT_FIT, REPO
from formats import BOOT_NONCE_AT, BULK_METHODS_AT, METHODS, MIB
from processes import region_of
from waiting import wait_until

OTHER_BUILD = pathlib.Path(os.environ.get(
    "SIPHON_TEST_LIB_DIR", REPO / "build" / "release" / "testlib")) / "libcls_siphon.so"


class OtherBuild(harness.ClusterTest):

    cluster_options = {"osds": 1, "size": 1, "store": "memstore", "plugin": OTHER_BUILD}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        for pool in ("a", "b"):
            cls.cluster.create_pool(pool, size=1)

    def test_the_osd_says_so(self):
        log = (self.cluster.dir / "log" / "osd.0.log").read_text()
        self.assertIn("siphon: compiled for Ceph", log)
        self.assertIn("no methods here, siphond goes through librados", log)

    def test_no_method_is_there_and_all_else_works(self):
        with self.cluster.io("a") as io:
            io.write_full("x", b"data")
            for method in METHODS:
                with self.assertRaises(rados.Error) as raised:
                    io.execute("x", "siphon", method, b"")
                self.assertEqual(raised.exception.errno, errno.EOPNOTSUPP, method)
            self.assertEqual(io.read("x"), b"data")
            # Classes after ours in the OSD's list.
            self.assertGreater(io.execute("x", "version", "read", b"")[0], 0)
            io.remove_object("x")

    def test_the_companion_runs_all_the_same_is_told_and_says_so(self):
        c = self.cluster
        osd = c.osd_pid(0)
        wait_until(lambda: c.companion_pid(0), what="a companion")
        with open(region_of(osd), "rb") as file:
            with mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ) as header:
                bulk_methods, = struct.unpack_from("<I", header, BULK_METHODS_AT)
                boot_nonce, = struct.unpack_from("<Q", header, BOOT_NONCE_AT)
        self.assertEqual(bulk_methods, 0)
        self.assertNotEqual(boot_nonce, 0)
        wait_until(lambda: "(rados)" in (c.dir / "log" / "osd.0.out").read_text(),
                   what="the companion to say that it goes through librados")

    def test_a_copy_is_refused_clearly_and_the_osd_lives(self):
        c = self.cluster
        pid = c.osd_pid(0)
        c.put("a/e", 3 * MIB, 2)
        version, commit = c.ceph("osd", "metadata", "0", as_json=True)["ceph_version"].split()[2:4]
        self.assert_fails(c.siphon("copy", "a/e", "b/e", check=False), NOT_FIT, "plugin",
                          re.escape(f"osd.0 runs Ceph {version} {commit}"))
        # As a plain client one reads and writes on.
        c.siphon("verify", "--local", "a/e")
        self.assertEqual(c.osd_pid(0), pid)
        self.assert_nothing_left("a", "b")


if __name__ == "__main__":
    harness.main()
