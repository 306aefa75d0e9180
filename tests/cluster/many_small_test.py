#!/usr/bin/python3
"""A pool of many small extents: copied by its names, each proven all the same, through companions
that are killed and OSDs that are silent.

A longer proof by hand: SIPHON_TEST_BATCH_EXTENTS (300) of SIPHON_TEST_BATCH_BYTES (3000) each,
SIPHON_TEST_BATCH_KILLS (2), SIPHON_TEST_BATCH_HOLDS (1). SIPHON_TEST_SEED repeats a run.
"""

import concurrent.futures
import contextlib
import json
import os
import pathlib
import random
import signal
import time

import harness
from cli import CONFIRM, INTERRUPTED, NOTHING_TO_DO, OK, PARTIAL
from formats import KIB
from waiting import wait_until
from harness import Extent

COUNT = int(os.environ.get("SIPHON_TEST_BATCH_EXTENTS", 300))  # the CLI looks at fewer one by one
BYTES = int(os.environ.get("SIPHON_TEST_BATCH_BYTES", 3000))
KILLS = int(os.environ.get("SIPHON_TEST_BATCH_KILLS", 2))
HOLDS = int(os.environ.get("SIPHON_TEST_BATCH_HOLDS", 1))
# So that a fault comes before the end: four transfers, of the least rate, or 4 s.
RATE = max(COUNT * BYTES // 4, 4 * 64 * KIB)
OSD_TIMEOUT_S = 3  # of the companions, where an OSD is silent for longer
TRASHED = ("s-0007", "s-0123")
SEED = os.environ.get("SIPHON_TEST_SEED") or str(random.randrange(1 << 32))


class ManySmall(harness.ClusterTest):

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        c = cls.cluster
        for pool in ("a", "b", "c", "d"):
            c.create_pool(pool)
        cls.chance = random.Random(SEED)
        cls.names = [f"s-{number:04}" for number in range(COUNT)]
        with concurrent.futures.ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda n: c.put(f"a/{n[1]}", BYTES + n[0], n[0]),
                             enumerate(cls.names)))
        c.siphon("rm", CONFIRM, *(f"a/{name}" for name in TRASHED))
        cls.live = [name for name in cls.names if name not in TRASHED]
        c.create_key("lister", "allow class siphon hello, allow class siphon grant_read pool=a, "
                               "allow class siphon grant_write pool=c, allow r pool=a")

    def copied(self, ran, target):
        """The names that arrived, each with its receipt and the source's very bytes."""
        names = [e["source"].removeprefix("a/") for e in ran.extents if e["status"] == "copied"]
        for extent in ran.extents:
            self.assertEqual(extent["receipt"]["source_crc32"], extent["receipt"]["target_crc32"])
        for name in names:
            self.assertEqual(Extent(self.cluster, "a", name).read(),
                             Extent(self.cluster, target, name).read(), name)
        return names

    def test_a_pool_is_copied_by_its_names(self):
        c = self.cluster
        run = c.start_siphon("copy", "a", "b")
        ran = run.wait()
        self.assertEqual(ran.code, OK, str(ran))
        # A name with nothing but trash behind it is no extent, and no failure.
        self.assertEqual(self.copied(ran, "b"), self.live)
        self.assertEqual(len(ran.extents), len(self.live))
        last = run.progress[-1]
        self.assertTrue(last["finished"])
        self.assertEqual(last["total_bytes"], 0)  # nobody asked for their sizes
        self.assertEqual(last["total_extents"], COUNT)

        # Names stand at the target now, so all are looked at: nothing to do, or just what is missing.
        self.assertEqual(c.siphon("copy", "a", "b", check=False).code, NOTHING_TO_DO)
        c.siphon("rm", "--purge", CONFIRM, "b/s-0200")
        again = c.siphon("copy", "a", "b")
        self.assertEqual(self.copied_statuses(again), {"copied": 1, "already there":
                                                       len(self.live) - 1})
        self.assert_nothing_left("b")

    def copied_statuses(self, ran):
        statuses = [e["status"] for e in ran.extents]
        return {status: statuses.count(status) for status in set(statuses)}

    def test_what_an_interrupt_leaves_unseen_is_told_as_names(self):
        c = self.cluster
        c.create_pool("left")
        run = c.start_siphon("copy", "a", "left", "--bwlimit", "64K", "--max-transfers", "1")
        run.wait_progress(lambda p: p["active"] > 0, what="a transfer under way")
        run.send(signal.SIGINT)
        ran = run.wait()
        self.assertEqual(ran.code, INTERRUPTED, str(ran))
        for transfer in ran.document["going_on"]:
            c.siphon("cancel", transfer, "left", check=False)
        unseen = [e for e in ran.extents if e["status"] in ("failed", "goes on")]
        self.assertGreater(len(unseen), 0)
        self.assertEqual(ran.document["summary"]["names_alone"], len(unseen), str(ran))

    def test_a_key_that_may_not_list_the_target_copies_all(self):
        ran = self.cluster.siphon("copy", "a", "c", key="client.lister")
        self.assertEqual(self.copied(ran, "c"), self.live)
        self.assert_nothing_left("c")

    def test_a_pool_that_goes_is_a_failure_and_not_a_list_of_names_without_extents(self):
        c = self.cluster
        # One group each, so one transfer: its source reads some dozens of extents ahead, not all.
        for pool in ("going", "kept"):
            c.create_pool(pool, pg_num=1)
        c.siphon("copy", "a", "going")
        run = c.start_siphon("copy", "going", "kept", "--bwlimit", "40K")
        run.wait_progress(lambda p: p["active"] > 0, what="a transfer under way")
        c.ceph("osd", "pool", "rm", "going", "going", "--yes-i-really-really-mean-it")
        ran = run.wait()
        self.assertEqual(ran.code, PARTIAL, str(ran))
        self.assertEqual(len(ran.extents), len(self.live))
        not_found = [e for e in ran.extents
                     if e["problem"] and e["problem"]["code"] == "NOT_FOUND"]
        self.assertGreater(len(not_found), 0, str(ran))

    @contextlib.contextmanager
    def copy_through(self, pool):
        """A copy of all into a new pool; what the block does comes once a random number have their
        receipts. The command ends well, what it copied itself has exactly one receipt each, and no
        companion keeps anything."""
        c = self.cluster
        for name in (pool, f"{pool}-warm"):
            c.create_pool(name)
        c.siphon("copy", "a", f"{pool}-warm")  # once, so that each has made what it keeps
        before = self.held_by_companions()
        receipts = pathlib.Path(c.scratch) / f"{pool}.ndjson"
        run = self.start_siphon("copy", "a", pool, "--receipts", str(receipts), "--bwlimit",
                                str(RATE))
        at, osd = self.chance.randrange(1, COUNT * 2 // 3), self.chance.randrange(c.osds)
        what = f"seed {SEED}, osd.{osd} at {at}"

        def lines():
            return receipts.read_text().splitlines() if receipts.exists() else []
        wait_until(lambda: run.ended() or len(lines()) >= at, what="some receipts")
        self.assertFalse(run.ended(), f"{what}: over before the fault")
        yield osd
        ran = run.wait(300)
        self.assertEqual(ran.code, OK, f"{what}: {ran}")
        self.assertNotIn("already exists", ran.stdout + ran.stderr, what)
        told = [json.loads(line) for line in lines()]
        self.assertEqual(sorted(line["target_extent"] for line in told), self.live, what)
        self.assertEqual([e["source"].removeprefix("a/") for e in ran.extents
                          if e["status"] in ("copied", "already there")], self.live)
        c.wait_companions()
        wait_until(lambda: c.pool_is_clean(pool), what=f"pool {pool} to be clean")
        self.assert_nothing_left(pool)
        self.assertEqual(c.siphon("scratch", "ls", pool).document["entries"], [])
        self.assert_companions_have_all_back(before, "a", pool)
        for receipt in told:
            extent = Extent(c, pool, receipt["target_extent"])
            extent.read()
            self.assertEqual(extent.head.crc32, int(receipt["header"]["crc32"], 16))
            # Computed by the try that published it, or by none.
            self.assertEqual(receipt["source_crc32"],
                             None if receipt["already_there"] else receipt["header"]["crc32"])
            # There with the private id that its receipt names.
            self.assertEqual(extent.head.current, receipt["private_id"])
        again = c.siphon("copy", "a", pool, check=False)
        self.assertEqual(again.code, NOTHING_TO_DO, str(again))
        for name in (pool, f"{pool}-warm"):
            c.ceph("osd", "pool", "rm", name, name, "--yes-i-really-really-mean-it")
        print(f"{what}: {len(told)} receipts, {ran.document['summary']}", flush=True)

    def test_companions_are_killed_among_the_publishes(self):
        for number in range(KILLS):
            with self.copy_through(f"killed{number}") as osd:
                os.kill(self.cluster.companion_pid(osd), signal.SIGKILL)

    def test_a_silent_osd_among_the_publishes_makes_no_outcome_untrue(self):
        """Replica of some and primary of others, for longer than an operation may take."""
        c = self.cluster
        timeout = f"[ceph]\nosd_timeout_seconds = {OSD_TIMEOUT_S}"
        with self.companions_with(timeout), self.osds_stay_up():
            for number in range(HOLDS):
                with self.copy_through(f"silent{number}") as osd:
                    pid = c.osd_pid(osd)
                    os.kill(pid, signal.SIGSTOP)
                    try:
                        time.sleep(OSD_TIMEOUT_S + 2)  # the fault's own length
                    finally:
                        os.kill(pid, signal.SIGCONT)

    @contextlib.contextmanager
    def osds_stay_up(self):
        """However silent: or its peers have a silent one marked down."""
        self.cluster.ceph("osd", "set", "nodown")
        try:
            yield
        finally:
            self.cluster.ceph("osd", "unset", "nodown")

    def test_a_plan_is_exact_all_the_same(self):
        ran = self.cluster.siphon("copy", "--dry-run", "a", "d")
        self.assertEqual([e["source"].removeprefix("a/") for e in ran.extents], self.live)
        sizes = [e["bytes"] for e in ran.extents]
        self.assertGreater(min(sizes), BYTES)
        self.assertEqual(ran.document["total_bytes"], sum(sizes))


if __name__ == "__main__":
    print(f"SIPHON_TEST_SEED={SEED}", flush=True)
    harness.main()
