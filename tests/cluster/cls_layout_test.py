#!/usr/bin/python3
"""libcls_siphon.so where it reads the OSD's operations wrong, or does not know how to read them.

The libraries in build/.../testlib/* are the same code with another table of layouts
(tests/support/wrong_layouts.cc). With each of them grants are refused, whoever asks, everything says
so and why, and the OSD serves on.
"""

import errno
import os
import pathlib
import re

import harness
from by_hand import ByHand
from cli import NOT_FIT, OK, REPO
from formats import MIB
from waiting import wait_until

TESTLIB = pathlib.Path(os.environ.get(
    "SIPHON_TEST_LIB_DIR", REPO / "build" / "release" / "testlib"))


class LayoutTest(ByHand, harness.ClusterTest):

    def osd_log(self):
        return (self.cluster.dir / "log" / "osd.0.log").read_text()

    def layouts(self):
        """What `siphon daemons` says of the layout, by device."""
        ran = self.cluster.siphon("daemons", "a")
        return {d.get("device"): d["layout"] for d in ran.document["devices"]}

    def layout_finding(self):
        ran = self.cluster.siphon("doctor", check=False)
        findings = ran.document["findings"]
        bad = {(f["check"], f["about"]) for f in findings if f["severity"] in ("warning", "error")}
        return bad, next(f for f in findings if f["check"] == "layout")


class RightLayout(LayoutTest):

    cluster_options = {"osds": 1, "size": 1}

    def test_the_first_copy_after_each_start_of_the_osd_finds_it_ready(self):
        c = self.cluster
        for pool in ("a", "b"):
            c.create_pool(pool, size=1)
        c.put("a/e", 3 * MIB, 1)
        c.siphon("copy", "a/e", "b/e")
        self.assertEqual(self.layouts(), {"osd.0": "fits"})
        self.assertRegex(self.osd_log(), r"siphon: layout \w+ of ceph-osd \S+ \([0-9a-f]{40}\) fits")
        self.assertEqual(self.layout_finding()[1]["severity"], "ok")
        c.tool("stop", "osd.0")
        c.tool("start", "osd.0")
        c.wait_companions()
        for pool in ("a", "b"):
            wait_until(lambda pool=pool: c.pool_is_clean(pool), what="clean pools")
        c.siphon("copy", "a/e", "b/again")
        self.assertEqual(len(re.findall(r"siphon: layout .* fits", self.osd_log())), 2)


class Refused:
    """For a LayoutTest with one OSD whose class must give no grant."""

    def test_grants_are_refused_the_osd_lives_and_everything_says_why(self):
        c = self.cluster
        for pool in ("a", "b"):
            c.create_pool(pool, size=1)
        pid, companion = c.osd_pid(0), c.companion_pid(0)
        c.put("a/e", 3 * MIB, 2)
        ran = c.siphon("copy", "a/e", "b/e", check=False)
        self.assert_fails(ran, NOT_FIT, r"osd\.0 refuses every grant", self.said)
        self.assertEqual(self.layouts(), {"osd.0": self.layout})
        ran = c.siphon("daemons", "a", as_json=False)
        self.assertRegex(ran.stdout, r"no grants")
        self.assertRegex(ran.stderr, r"osd\.0 refuses every grant")
        bad, finding = self.layout_finding()
        self.assertEqual(bad, {("layout", "osd.0")})
        self.assertIn("refuses every grant", finding["what"])
        self.assertTrue(finding["why"] and finding["mend"], finding)
        # By hand, too; also for a pool that is not the caller's, which is what it is about.
        for right in ("read", "write"):
            self.assertEqual(self.grant("client.admin", right, "a")[0], self.refusal)
            self.assertEqual(self.grant("client.admin", right, "a", claimed_pool="b")[0],
                             self.refusal)
        # Said once, with what runs and, where there was a probe, what it saw.
        lines = re.findall(r"siphon: layout .*", self.osd_log())
        self.assertEqual(len(lines), 1, lines)
        self.assertRegex(lines[0], r"of ceph-osd \S+ \([0-9a-f]{40}\)")
        self.assertRegex(lines[0], self.logged)
        # A companion that is started again changes nothing.
        os.kill(companion, 9)
        wait_until(lambda: c.companion_pid(0) not in (None, companion), what="a new companion")
        wait_until(lambda: c.siphon("daemons", "a", check=False).code == OK,
                   what="a companion that answers")
        self.assert_fails(c.siphon("copy", "a/e", "b/e", check=False), NOT_FIT,
                          r"osd\.0 refuses every grant")
        # All that needs no grant works.
        c.siphon("verify", "--local", "a/e")
        self.assertEqual(c.osd_pid(0), pid)
        self.assert_nothing_left("a", "b")


class WrongPool(Refused, LayoutTest):

    cluster_options = {"osds": 1, "size": 1, "store": "memstore",
                       "plugin": TESTLIB / "wrong_pool" / "libcls_siphon.so"}
    layout, refusal = "does not fit", errno.ELIBBAD
    said = "does not have the layout"
    # The length of the namespace siphon.probe.
    logged = (r"layout wrong pool .* does not fit: grants are refused\. Expected pool \d+, namespace "
              r"'siphon\.probe', .*, seen pool 12, namespace 'siphon\.probe'")


class WrongPointer(Refused, LayoutTest):

    cluster_options = {"osds": 1, "size": 1, "store": "memstore",
                       "plugin": TESTLIB / "wrong_pointer" / "libcls_siphon.so"}
    layout, refusal = "does not fit", errno.ELIBBAD
    said = "does not have the layout"
    logged = r"layout wrong pointer .* does not fit: .*seen nothing like an operation"


class NoLayout(Refused, LayoutTest):

    cluster_options = {"osds": 1, "size": 1, "store": "memstore",
                       "plugin": TESTLIB / "no_layout" / "libcls_siphon.so"}
    layout, refusal = "unverified", errno.ELIBSCN
    said = "not verified"
    logged = r"is not verified: grants are refused"


if __name__ == "__main__":
    harness.main()
