#!/usr/bin/python3
"""Faults on a real cluster: companions and OSDs killed, rot, one bit flipped on the wire, the wire
cut (a pool that fills up: errors_test.py). Each acts from outside at a random point that the
progress shows to be mid-stream; then the invariants I1-I5 and I7 (docs/failure_model.md)
are read from the RADOS objects themselves, and the copy is tried again.

SIPHON_TEST_SEED repeats a run.
"""

import contextlib
import hashlib
import os
import random
import re
import secrets
import signal
import sys
import threading

import harness
from cli import BIN_DIR, FATAL, NOTHING_TO_DO, NOT_FIT, OK, TEMPORARY
from formats import MIB, Head
from waiting import wait_until

from lane_proxy import Fault, LaneProxy

SEED = int(os.environ.get("SIPHON_TEST_SEED", secrets.randbits(32)))
REDIRECT = BIN_DIR / "redirect_connect.so"
EXTENT_BYTES = 24 * MIB
SLOW = ("--bwlimit", "8M")
COPY_DEADLINE_S = 180  # for a copy that has to wait for a daemon to come back


def digest_of(cluster, pool, name):
    return hashlib.sha256(harness.Extent(cluster, pool, name).read()).hexdigest()


def open_data_ports(cluster):
    """The companions' own, at 127.0.0.1: a proxy of this file listens at 127.0.0.2."""
    rows = [line.split() for line in open("/proc/net/tcp", encoding="ascii")][1:]
    ports = {int(row[1][9:], 16) for row in rows
             if row[1].startswith("0100007F") and row[3] == "0A"}
    return ports & set(range(cluster.data_ports[0], cluster.data_ports[1] + 1))


class PublicNameWatch(threading.Thread):
    """Invariant I1: whenever the head is there and sealed, all of the extent is there."""

    def __init__(self, cluster, pool, name, digest):
        super().__init__(daemon=True)
        self._where, self._digest = (cluster, pool, name), digest
        self._over, self._seen = threading.Event(), None
        self.partial = None

    def run(self):
        while not self._over.wait(0.05):
            with contextlib.suppress(harness.rados.Error):
                head = harness.read_head(*self._where)
                if head is None or not head.current or head.current == self._seen:
                    continue
                if head.state != Head.SEALED or digest_of(*self._where) != self._digest:
                    self.partial = f"partial under its public name: {head}"
                    return
                self._seen = head.current

    def end(self):
        self._over.set()
        self.join()


class FaultTest(harness.ClusterTest):

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.cluster.create_pool("a")
        cls.cluster.create_pool("b")
        cls.osd_pids = {osd: cls.cluster.osd_pid(osd) for osd in range(cls.cluster.osds)}

    def setUp(self):
        c = self.cluster
        self.random = random.Random(f"{SEED} {self.id()}")
        wait_until(lambda: all(c.pool_is_clean(p) for p in "ab"), 120, "clean pools")
        c.wait_companions()
        # A name whose source and target have different primaries.
        self.name = next(n for n in (f"e{self.random.randrange(10**6)}" for _ in range(1000))
                         if c.place("a", n)[0] != c.place("b", n)[0])
        self.source_osd, self.target_osd = c.place("a", self.name)[0], c.place("b", self.name)[0]
        c.put(f"a/{self.name}", EXTENT_BYTES, self.random.randrange(2**32))
        self.digest = digest_of(c, "a", self.name)
        self.before = {pool: harness.fingerprint(c, pool) for pool in "ab"}
        self.addCleanup(self.purge)

    def purge(self):
        self.cluster.siphon("rm", "--purge", f"a/{self.name}", f"b/{self.name}",
                            "--yes-i-really-mean-it", check=False)

    # ---- steps

    def start_copy(self, *options):
        watch = PublicNameWatch(self.cluster, "b", self.name, self.digest)
        watch.start()
        self.addCleanup(lambda: self.assertIsNone(watch.partial))
        self.addCleanup(watch.end)
        return self.start_siphon("copy", f"a/{self.name}", f"b/{self.name}", *options)

    def stream(self, *options):
        """A slow copy, mid-stream at a random point."""
        run = self.start_copy(*(options or SLOW))
        run.wait_streaming(self.random.randrange(1, EXTENT_BYTES // 2))
        self.assertIsNone(harness.read_head(self.cluster, "b", self.name).current or None)
        return run

    def kill_companion(self, osd):
        pid = self.cluster.companion_pid(osd)
        os.kill(pid, signal.SIGKILL)
        return pid

    def problem_of(self, transfer_id):
        """How the target tells of an attempt that met the fault."""
        def told():
            ran = self.cluster.siphon("transfers", "--all", "b", check=False)
            found = (ran.document or {}).get("transfers", [])
            return next((t["problem"] for t in found if t["id"] == transfer_id and t["problem"]),
                        None)
        return wait_until(told, 120, "the end of the attempt")

    def copy_until_done(self):
        """As an operator would: again, while the tool says that trying again helps."""
        def done():
            ran = self.cluster.siphon("copy", f"a/{self.name}", f"b/{self.name}", check=False)
            self.assertIn(ran.code, (OK, TEMPORARY, NOT_FIT, NOTHING_TO_DO), str(ran))
            return ran.code in (OK, NOTHING_TO_DO)
        wait_until(done, COPY_DEADLINE_S, "a copy that works", poll_s=0.5)

    # ---- checks

    def assert_is_sentence(self, problem, *words, suspect=None):
        self.assertIsNotNone(problem)
        self.assertNotIn("\n", problem["message"])
        for word in (re.escape(self.name), *words):
            self.assertRegex(problem["message"], re.compile(word, re.IGNORECASE))
        if suspect:
            self.assertEqual(problem["suspect"], suspect, problem)

    def assert_ended(self, run):
        """The run may have mended it by itself; if not, it says what happened, and a retry does."""
        ran = run.wait(300)
        if ran.code == OK:
            self.assertGreater(ran.extents[0]["attempts"], 1, f"no fault was met: {ran}")
        else:
            self.assertIn(ran.code, (TEMPORARY, NOT_FIT), str(ran))
            # Beside its extent: a device that is looked up in vain knows no name.
            self.assertIn(self.name, ran.extents[0]["source"])
            self.assertNotIn("\n", ran.problem["message"])
            self.copy_until_done()
        self.assert_copied()

    def assert_copied(self):
        c = self.cluster
        self.assertEqual(digest_of(c, "b", self.name), self.digest)
        self.assertEqual(digest_of(c, "a", self.name), self.digest)
        self.assert_tidy()

    def assert_as_before(self):
        self.assert_tidy()
        for pool in "ab":
            self.assertEqual(harness.fingerprint(self.cluster, pool), self.before[pool])

    def assert_tidy(self):
        c = self.cluster
        self.assert_nothing_left("a", "b")
        wait_until(lambda: not open_data_ports(c), what="closed data ports")
        for device in c.siphon("daemons", "a", "b").document["devices"]:
            self.assertEqual(device.get("bytes_in_flight", 0), 0, device)
        self.assert_no_osd_crashed()

    def assert_no_osd_crashed(self):
        for log in (self.cluster.dir / "log").glob("*osd*"):
            text = log.read_text(errors="replace")
            self.assertNotIn("Caught signal", text, log)
            self.assertNotIn("FAILED ceph_assert", text, log)
        for osd, pid in self.osd_pids.items():
            self.assertEqual(self.cluster.osd_pid(osd), pid, f"osd.{osd} is another process")

    @contextlib.contextmanager
    def osd_killed(self, osd):
        self.cluster.tool("kill", f"osd.{osd}")
        self.osd_pids.pop(osd)
        try:
            yield
        finally:
            self.cluster.tool("start", f"osd.{osd}")
            self.osd_pids[osd] = self.cluster.osd_pid(osd)
            self.cluster.wait_companions()
            wait_until(lambda: all(self.cluster.pool_is_clean(p) for p in "ab"), 180,
                       "clean pools")

    # ---- processes

    def test_a_companion_is_killed_while_idle(self):
        osd = self.random.choice((self.source_osd, self.target_osd))
        pid = self.kill_companion(osd)
        wait_until(lambda: self.cluster.companion_pid(osd) not in (None, pid),
                   what="another companion")
        self.copy_until_done()
        self.assert_copied()

    def test_the_source_companion_is_killed(self):
        run = self.stream("--bwlimit", "2M")  # not over before its id is known
        (transfer,) = self.cluster.running_transfers("b")
        self.kill_companion(self.source_osd)
        problem = self.problem_of(transfer["id"])
        self.assertEqual(problem["suspect"], "source", problem)
        self.assertNotIn("\n", problem["message"])
        self.assert_ended(run)

    def test_the_target_companion_is_killed(self):
        run = self.stream()
        self.kill_companion(self.target_osd)
        self.assert_ended(run)

    def test_the_target_companion_is_killed_and_nobody_asks_again(self):
        run = self.stream()
        run.send(signal.SIGKILL)
        self.kill_companion(self.target_osd)
        self.assert_as_before()
        self.copy_until_done()
        self.assert_copied()

    def test_the_source_osd_is_killed(self):
        run = self.stream()
        with self.osd_killed(self.source_osd):
            pass
        self.assert_ended(run)

    def test_the_target_osd_is_killed(self):
        run = self.stream()
        with self.osd_killed(self.target_osd):
            pass
        self.assert_ended(run)

    def test_the_requester_is_killed(self):
        run = self.stream()
        (transfer,) = self.cluster.running_transfers("b")
        run.send(signal.SIGKILL)
        watched = self.cluster.siphon("watch", transfer["id"], "b")
        self.assertEqual(watched.document["phase"], "succeeded")
        self.assert_copied()

    def held_companion(self, osd, other):
        """The companion of `osd` stops without ending, mid-stream, and stays so: `other`'s has all
        back meanwhile, its own when it goes on."""
        c = self.cluster
        with self.companions_with("[transfer]\nidle_timeout_ms = 2000"):
            self.copy_until_done()  # once, so that both have made what they keep
            c.siphon("rm", "--purge", f"b/{self.name}", "--yes-i-really-mean-it")
            before = self.held_by_companions()
            run = self.stream("--bwlimit", "2M")
            pid = c.companion_pid(osd)
            os.kill(pid, signal.SIGSTOP)
            try:
                run.send(signal.SIGKILL)  # or it would try again
                self.assert_companions_have_all_back({other: before[other]}, "a", "b", but=osd)
            finally:
                os.kill(pid, signal.SIGCONT)
            self.assert_companions_have_all_back(before, "a", "b")
            self.assert_as_before()
            self.copy_until_done()
            self.assert_copied()

    def test_a_hung_source_companion_keeps_nothing_of_the_target(self):
        self.held_companion(self.source_osd, self.target_osd)

    def test_a_hung_target_companion_keeps_nothing_of_the_source(self):
        self.held_companion(self.target_osd, self.source_osd)

    # ---- the store

    def test_one_bit_is_rotten_at_the_source(self):
        c = self.cluster
        extent = harness.Extent(c, "a", self.name)
        part = self.random.choice(extent.object_names())
        with c.io("a", locator=self.name) as io:
            size, _ = io.stat(part)
            at, bit = self.random.randrange(size), self.random.randrange(8)
            byte = io.read(part, 1, at)
            io.write(part, bytes([byte[0] ^ 1 << bit]), at)
        ran = c.siphon("copy", f"a/{self.name}", f"b/{self.name}", check=False)
        self.assertEqual(ran.code, FATAL, str(ran))
        self.assert_is_sentence(ran.problem, suspect="source")
        self.assert_nothing_left("b")
        self.assertEqual(harness.fingerprint(c, "b"), self.before["b"])
        with c.io("a", locator=self.name) as io:
            io.write(part, byte, at)
        self.copy_until_done()
        self.assert_copied()

    # ---- the wire

    @contextlib.contextmanager
    def proxied(self, osd):
        """The lanes of this OSD's companion, as a source, go through a proxy."""
        c = self.cluster
        first, last = c.data_ports
        with self.companion_environment(LD_PRELOAD=REDIRECT,
                                        SIPHON_TEST_REDIRECT_PORTS=f"{first}-{last}"):
            proxy = LaneProxy(range(first, last + 1))
            try:
                self.new_companion(osd)
                yield proxy
            finally:
                proxy.close()
        self.new_companion(osd)

    def new_companion(self, osd):
        old = self.kill_companion(osd)
        wait_until(lambda: self.cluster.companion_pid(osd) not in (None, old), what="a companion")
        self.cluster.wait_companions()
        wait_until(lambda: not any(d.get("problem") for d in self.cluster.siphon(
            "daemons", "a", "b", check=False).document.get("devices", [{"problem": 1}])),
            what="companions that answer")

    def test_one_bit_flips_on_the_wire(self):
        with self.proxied(self.source_osd) as proxy:
            fault = proxy.add(Fault("flip", "payload", self.random.randrange(EXTENT_BYTES),
                                    bit=self.random.randrange(8)))
            ran = self.start_copy().wait()
            self.assertTrue(fault.fired.is_set(), str(ran))
            self.assertEqual(ran.code, FATAL, str(ran))
            self.assert_is_sentence(ran.problem, "checksum mismatch", "source [0-9a-f]{8}",
                                    "target [0-9a-f]{8}", "source is untouched", suspect="wire")
            self.assert_as_before()
            self.copy_until_done()
            self.assert_copied()

    def test_the_wire_is_cut(self):
        with self.proxied(self.source_osd) as proxy:
            fault = proxy.add(Fault("cut", "payload", self.random.randrange(EXTENT_BYTES)))
            ran = self.start_copy().wait()
            self.assertTrue(fault.fired.is_set(), str(ran))
            self.assertEqual(ran.code, OK, str(ran))
            self.assertEqual(ran.extents[0]["attempts"], 2, str(ran))
            self.assert_copied()


if __name__ == "__main__":
    print(f"SIPHON_TEST_SEED={SEED}", file=sys.stderr, flush=True)
    harness.main()
