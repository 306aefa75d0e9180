#!/usr/bin/python3
"""Pools of erasure code with allow_ec_optimizations, which Ceph has since 20.2, as source and as
target: every size goes in and out of one, by copy, verify and get, byte for byte.

On earlier releases this is left out, and says so.
"""

import subprocess
import sys

import harness
from formats import KIB, MIB, content_of
from waiting import wait_until

LEFT_OUT = 77  # tests/cluster/CMakeLists.txt
SIZES = (1, 4 * KIB, 700 * KIB, 3 * MIB + 1, 20 * MIB + 4097)


class EcOptimizations(harness.ClusterTest):

    cluster_options = {"size": 2}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        c = cls.cluster
        c.create_pool("a")
        c.create_pool("back")
        c.ceph("osd", "erasure-code-profile", "set", "two_one", "k=2", "m=1",
               "crush-failure-domain=osd")
        for pool in ("ec", "ec2"):
            c.ceph("osd", "pool", "create", pool, "8", "8", "erasure", "two_one")
            c.ceph("osd", "pool", "set", pool, "allow_ec_overwrites", "true")
            c.ceph("osd", "pool", "set", pool, "allow_ec_optimizations", "true")
            c.ceph("osd", "pool", "application", "enable", pool, "siphon")
            wait_until(lambda pool=pool: c.pool_is_clean(pool), what="a clean pool")
        cls.files = {f"e{size}": c.put(f"a/e{size}", size, size) for size in SIZES}

    def test_the_pools_have_it(self):
        for pool in ("ec", "ec2"):
            said = self.cluster.ceph("osd", "pool", "get", pool, "allow_ec_optimizations",
                                     as_json=True)
            self.assertTrue(said["allow_ec_optimizations"], said)

    def test_in_between_and_out_byte_for_byte(self):
        c = self.cluster
        for source, target in (("a", "ec"), ("ec", "ec2"), ("ec2", "back")):
            ran = c.siphon("copy", source, target)
            self.assertEqual({e["status"] for e in ran.extents}, {"copied"}, str(ran))
            self.assertEqual(len(ran.extents), len(SIZES))
            # The class writes there; what it cannot do, until 21, is to read.
            self.assertEqual(ran.document["summary"]["fallback_parts"] > 0, source != "a", str(ran))
            c.siphon("verify", source, target)
            for name, path in self.files.items():
                with self.subTest(source=source, target=target, name=name):
                    content = content_of(harness.Extent(c, target, name).read())
                    self.assertEqual(content, path.read_bytes())
                    got = c.scratch / "got"
                    c.siphon("get", f"{target}/{name}", got)
                    self.assertEqual(got.read_bytes(), path.read_bytes())
                    got.unlink()
            self.assert_nothing_left(source, target)

    def test_put_replace_and_remove(self):
        c = self.cluster
        for number, size in enumerate(SIZES):
            c.put(f"ec/put{number}", size, 50 + number)
            again = c.put(f"ec2/put{number}", size, 70 + number)
            c.siphon("copy", "--replace", "--yes-i-really-mean-it", f"ec2/put{number}",
                     f"ec/put{number}")
            self.assertEqual(content_of(harness.Extent(c, "ec", f"put{number}").read()),
                             again.read_bytes())
            for pool in ("ec", "ec2"):
                c.siphon("rm", "--purge", "--yes-i-really-mean-it", f"{pool}/put{number}")
                c.siphon("trash", "purge", "--yes-i-really-mean-it", f"{pool}/put{number}",
                         check=False)
        self.assert_nothing_left("ec", "ec2")


def release():
    said = subprocess.run(["ceph-osd", "--version"], check=True, capture_output=True, text=True)
    return said.stdout.split()[2]


if __name__ == "__main__":
    if int(release().partition(".")[0]) < 20:
        print(f"Ceph {release()} has no allow_ec_optimizations")
        sys.exit(LEFT_OUT)
    harness.main()
