#!/usr/bin/python3
"""libcls_siphon.so in a ceph-osd of another build than it was compiled for.

Starts a cluster of one OSD of its own, with the library that build/.../testlib holds: the same
code, which believes that it was compiled for another commit of Ceph. SIPHON_TEST_OTHERBUILD names
it; SIPHON_TEST_PORT is the first of the 500 ports to use (18789).
"""

import errno
import mmap
import os
import pathlib
import shutil
import struct
import subprocess
import tempfile
import time
import unittest

import rados

LIBRARY = os.environ.get("SIPHON_TEST_OTHERBUILD", "")
PORT = os.environ.get("SIPHON_TEST_PORT", "18789")
CLUSTER_TOOL = pathlib.Path(__file__).resolve().parents[2] / "vstart-scripts" / "cluster"
DEADLINE_S = 30
METHODS = ("hello", "grant_read", "grant_write", "read_part", "write_part",
           "reserve", "publish", "condemn", "forget", "seal")


def companions(osd):
    """Pids of the live siphonds the process `osd` has started."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            stat = pathlib.Path(f"/proc/{name}/stat").read_text()
            command = pathlib.Path(f"/proc/{name}/cmdline").read_bytes()
        except OSError:
            continue
        state, parent = stat.rpartition(")")[2].split()[:2]
        if int(parent) == osd and state != "Z" and b"--companion" in command:
            found.append(int(name))
    return found


@unittest.skipUnless(LIBRARY, "SIPHON_TEST_OTHERBUILD names no library")
class OtherBuild(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="siphon-other-build-")
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        cls.addClassCleanup(cls.tool, "down")
        cls.tool("up", "--osds", "1", "--size", "1", "--port", PORT, "--plugin", LIBRARY)
        cls.cluster = rados.Rados(conffile=f"{cls.folder}/ceph.conf",
                                  conf={"rados_osd_op_timeout": "10"})
        cls.cluster.connect(timeout=DEADLINE_S)
        cls.addClassCleanup(cls.cluster.shutdown)
        cls.cluster.create_pool("other")
        cls.log = pathlib.Path(cls.folder, "log", "osd.0.log")

    @classmethod
    def tool(cls, verb, *arguments):
        subprocess.run([CLUSTER_TOOL, verb, "--dir", cls.folder, *arguments], check=True,
                       stdout=subprocess.DEVNULL, timeout=180)

    def osd_pid(self):
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                words = pathlib.Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[0].endswith(b"ceph-osd") and f"{self.folder}/ceph.conf".encode() in words:
                return int(name)
        self.fail("no OSD")

    def test_it_says_so(self):
        self.assertIn("siphon: compiled for Ceph", self.log.read_text())
        self.assertIn("no methods here, siphond goes through librados", self.log.read_text())

    def test_no_method_is_there_and_all_else_works(self):
        with self.cluster.open_ioctx("other") as io:
            io.write_full("x", b"data")
            for method in METHODS:
                with self.assertRaises(rados.Error) as raised:
                    io.execute("x", "siphon", method, b"")
                self.assertEqual(raised.exception.errno, errno.EOPNOTSUPP, method)
            self.assertEqual(io.read("x"), b"data")
            # Classes after ours in the OSD's list.
            self.assertGreater(io.execute("x", "version", "read", b"")[0], 0)

    def test_the_companion_runs_all_the_same_and_is_told(self):
        osd, deadline = self.osd_pid(), time.monotonic() + DEADLINE_S
        while not companions(osd):
            self.assertLess(time.monotonic(), deadline, "no companion")
            time.sleep(0.05)
        fd = next(name for name in os.listdir(f"/proc/{osd}/fd")
                  if os.readlink(f"/proc/{osd}/fd/{name}").startswith("/memfd:siphon-region"))
        with open(f"/proc/{osd}/fd/{fd}", "rb") as file:
            with mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ) as header:
                bulk_methods, = struct.unpack_from("<I", header, 20)
                boot_nonce, = struct.unpack_from("<Q", header, 48)
        self.assertEqual(bulk_methods, 0)
        self.assertNotEqual(boot_nonce, 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
