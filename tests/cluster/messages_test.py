#!/usr/bin/python3
"""Every field of every message is set by somebody: what requesters, targets, sources and a folder's
daemon send is looked at as they send it (tests/support/field_witness.cc), while they do all that
there is to do. A field that nobody sets fails here: it is to be set, or to go.
"""

import os
import unittest

import harness
from cli import BIN_DIR, CONFIRM, FATAL, NOTHING_TO_DO, OK, PARTIAL
from formats import MIB
from waiting import wait_until

from lane_proxy import Fault, LaneProxy, RawConnection

WITNESS = BIN_DIR / "field_witness.so"
REDIRECT = BIN_DIR / "redirect_connect.so"

# {field: why none of this can set it}
EXCEPTIONS = {
    "siphon.v1.DescribeResponse.journal_in_memory": "the journals here are on a disk",
    "siphon.v1.ExtentOutcome.left_for_good": "of a copy that fails where the register is full",
}


@unittest.skipIf(os.environ.get("SIPHON_SANITIZER"), "preloads what uses libprotobuf")
class Messages(harness.ClusterTest):

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        c = cls.cluster
        # One group each, so that all of a pool's extents go in one transfer; and from OSD to OSD.
        c.create_pool("a", pg_num=1)
        cls.target = next(pool for pool in map("b{}".format, range(20))
                          if c.place(c.create_pool(pool, pg_num=1), "e")[0] != c.place("a", "e")[0])
        c.create_key("sender", "allow class siphon hello, allow class siphon grant_read pool=a, "
                               f"allow class siphon grant_write pool={cls.target}, "
                               "allow r pool=a")  # it may not look at the target
        cls.fields = c.scratch / "fields"
        cls.environment = {"LD_PRELOAD": str(WITNESS), "SIPHON_TEST_FIELDS": str(cls.fields)}

    def told(self):
        """(all fields, those that were set)."""
        lines = {line for line in self.fields.read_text().splitlines()}
        return ({line[4:] for line in lines if line.startswith("has ")},
                {line[4:] for line in lines if line.startswith("set ")})

    def siphon(self, *words, code=OK, key=None):
        ran = self.cluster.siphon(*words, check=False, key=key, environment=self.environment)
        self.assertEqual(ran.code, code, str(ran))
        return ran

    def start(self, *words):
        return self.start_siphon(*words, environment=self.environment)

    def test_every_field_of_every_message_is_set_by_somebody(self):
        c, first, last = self.cluster, *self.cluster.data_ports
        for i in range(1, 6):
            c.put(f"a/e{i}", MIB + i, i)
        c.put("a/ns/long", 32 * MIB, 7)
        with self.companion_environment(
                LD_PRELOAD=f"{WITNESS} {REDIRECT}", SIPHON_TEST_FIELDS=self.fields,
                SIPHON_TEST_REDIRECT_PORTS=f"{first}-{last}",
                SIPHON_TEST_REDIRECT_WHILE=c.scratch / "proxied", SIPHOND_TRASH_KEEP=1):
            self.new_companions()
            self.a_long_transfer_while_the_primaries_move()
            self.a_wire_that_is_cut_and_unproven_peers_before_it()
            self.names_that_are_taken_and_rot()
            self.a_name_whose_trash_is_full()
            self.a_target_that_writes_in_order()
            self.a_cancel()
            self.a_folders_daemon()
        self.new_companions()
        fields, are_set = self.told()
        self.assertGreater(len(fields), 100, "of which messages?")
        unset = fields - are_set
        self.assertEqual(unset - set(EXCEPTIONS), set(), "nobody sets these")
        self.assertEqual(set(EXCEPTIONS) - unset, set(), "these are set: no exceptions")

    def a_long_transfer_while_the_primaries_move(self):
        """Into a namespace, with everything that one asks for of it meanwhile; once the source's
        primary goes elsewhere in its midst, once the target's."""
        c, target = self.cluster, self.target
        for pool in ("a", target):
            run = self.start("copy", "a/ns/long", f"{target}/elsewhere/{pool}", "--bwlimit", "1M",
                             "--lanes", "2", "--replace", CONFIRM)
            run.wait_streaming()
            (transfer,) = self.siphon("transfers").document["transfers"]  # those elsewhere, too
            watch = self.start("watch", transfer["id"], f"{target}/elsewhere/")
            self.siphon("daemons", "a", target)
            primary = c.place(pool, "e")[0]
            c.ceph("osd", "primary-affinity", primary, "0")
            wait_until(lambda pool=pool, was=primary: c.place(pool, "e")[0] != was,
                       what="another primary")
            ran = run.wait()
            self.assertEqual(ran.code, OK, str(ran))
            self.assertGreater(ran.document["summary"]["fallback_parts"], 0, str(ran))
            self.assertEqual(watch.wait().code, OK)
            c.ceph("osd", "primary-affinity", primary, "1")
            wait_until(lambda pool=pool, was=primary: c.place(pool, "e")[0] == was,
                       what="the primary of before")

    def a_wire_that_is_cut_and_unproven_peers_before_it(self):
        c = self.cluster
        proxy = LaneProxy(range(c.data_ports[0], c.data_ports[1] + 1))
        self.addCleanup(proxy.close)
        told = []

        def before(lane):
            if lane.number == 0:
                RawConnection(lane.port, b"GET / HTTP/1.1\r\n" * 8).wait_closed()
                told.extend(self.siphon("daemons", self.target).document["devices"])
        proxy.before_connect = before
        fault = proxy.add(Fault("cut", "payload", 300_000))
        (c.scratch / "proxied").touch()
        ran = self.siphon("copy", "a/e1", f"{self.target}/cut")
        (c.scratch / "proxied").unlink()
        self.assertTrue(fault.fired.is_set(), str(ran))
        self.assertTrue(any(d["open_data_port"] for d in told), told)
        self.siphon("transfers", "--all", self.target)

    def names_that_are_taken_and_rot(self):
        """By a key that may not look at the target, so that the devices find it all out."""
        c, target = self.cluster, self.target
        self.siphon("copy", "a/e2", target)
        c.put(f"{target}/e3", MIB, 33)
        extent = harness.Extent(c, "a", "e4")
        with c.io("a", locator="e4") as io:
            io.write(extent.object_names()[0], b"rot", 1000)
        ran = self.siphon("copy", *(f"a/e{i}" for i in range(1, 6)), target,
                          code=PARTIAL, key="client.sender")
        self.assertEqual([e["status"] for e in ran.extents],
                         ["copied", "already there", "failed", "failed", "copied"], str(ran))
        self.assertTrue(ran.extents[1]["receipt"]["already_there"])
        self.siphon("copy", "--deep", "a/e5", f"{target}/deep")
        self.siphon("verify", "a", code=PARTIAL)
        self.siphon("copy", "a/e1", target, code=NOTHING_TO_DO)

    def a_name_whose_trash_is_full(self):
        """It keeps one generation: the one before leaves for good, whether the copy ends well or
        not."""
        name = f"{self.target}/kept"
        for source in ("e1", "e2", "e5"):
            ran = self.siphon("copy", "--replace", CONFIRM, f"a/{source}", name)
        self.assertEqual(len(ran.extents[0]["receipt"]["left_for_good"]), 1, str(ran))
        self.siphon("copy", "--replace", CONFIRM, "a/e4", name, code=FATAL)

    def a_target_that_writes_in_order(self):
        """A pool of erasure code without overwrites."""
        c = self.cluster
        c.ceph("osd", "erasure-code-profile", "set", "two_one", "k=2", "m=1",
               "crush-failure-domain=osd")
        c.ceph("osd", "pool", "create", "ec", "4", "4", "erasure", "two_one")
        c.ceph("osd", "pool", "application", "enable", "ec", "siphon")
        wait_until(lambda: c.pool_is_clean("ec"), what="a clean pool")
        self.siphon("copy", "a/e5", "ec")

    def a_cancel(self):
        target = self.target
        run = self.start("copy", "a/ns/long", f"{target}/long", "--bwlimit", "1M")
        run.wait_streaming()
        (transfer,) = self.siphon("transfers", target).document["transfers"]
        self.siphon("cancel", transfer["id"], target)
        self.assertNotEqual(run.wait().code, OK)
        self.siphon("transfers", "--all", target)

    def a_folders_daemon(self):
        with harness.folder_daemon(self.cluster, "folder", self.environment) as (_, port, secret):
            there = f"127.0.0.1:{port}/"
            self.siphon("copy", "--secret-file", secret, "a/e1", "a/e2", there)
            self.siphon("daemons", "--secret-file", secret, there)


if __name__ == "__main__":
    harness.main()
