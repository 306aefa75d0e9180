#!/usr/bin/python3
"""A pool of many small extents: copied by its names, each proven all the same."""

import concurrent.futures
import json
import os
import pathlib
import random
import signal

import harness
from harness import Extent

COUNT = 300  # more than the CLI looks at one by one
BYTES = 3000
TRASHED = ("s-007", "s-123")
CONFIRM = "--yes-i-really-mean-it"


class ManySmall(harness.ClusterTest):

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        c = cls.cluster
        for pool in ("a", "b", "c", "d"):
            c.create_pool(pool)
        cls.names = [f"s-{number:03}" for number in range(COUNT)]
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
        self.assertEqual(ran.code, harness.OK, str(ran))
        # A name with nothing but trash behind it is no extent, and no failure.
        self.assertEqual(self.copied(ran, "b"), self.live)
        self.assertEqual(len(ran.extents), len(self.live))
        last = run.progress[-1]
        self.assertTrue(last["finished"])
        self.assertEqual(last["total_bytes"], 0)  # nobody asked for their sizes
        self.assertEqual(last["total_extents"], COUNT)

        # Names stand at the target now, so all are looked at: nothing to do, or just what is missing.
        self.assertEqual(c.siphon("copy", "a", "b", check=False).code, harness.NOTHING_TO_DO)
        c.siphon("rm", "--purge", CONFIRM, "b/s-200")
        again = c.siphon("copy", "a", "b")
        self.assertEqual(self.copied_statuses(again), {"copied": 1, "already there":
                                                       len(self.live) - 1})
        self.assert_nothing_left("b")

    def copied_statuses(self, ran):
        statuses = [e["status"] for e in ran.extents]
        return {status: statuses.count(status) for status in set(statuses)}

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
        self.assertEqual(ran.code, harness.PARTIAL, str(ran))
        self.assertEqual(len(ran.extents), len(self.live))
        not_found = [e for e in ran.extents
                     if e["problem"] and e["problem"]["code"] == "NOT_FOUND"]
        self.assertGreater(len(not_found), 0, str(ran))

    def test_companions_are_killed_among_the_publishes(self):
        """The command ends well, and what it copied itself has exactly one receipt each."""
        c = self.cluster
        seed = os.environ.get("SIPHON_TEST_SEED") or str(random.randrange(1 << 32))
        print(f"SIPHON_TEST_SEED={seed}", flush=True)
        chance = random.Random(seed)
        for round_number in range(2):
            pool = f"killed{round_number}"
            c.create_pool(pool)
            receipts = pathlib.Path(c.scratch) / f"{pool}.ndjson"
            run = c.start_siphon("copy", "a", pool, "--receipts", str(receipts))
            at, osd = chance.randrange(1, COUNT * 2 // 3), chance.randrange(c.osds)

            def lines():
                return receipts.read_text().splitlines() if receipts.exists() else []
            harness.wait_until(lambda: run.process.poll() is not None or len(lines()) >= at,
                               what="some receipts")
            os.kill(c.companion_pid(osd), signal.SIGKILL)
            ran = run.wait()
            self.assertEqual(ran.code, harness.OK, f"seed {seed}, osd.{osd} at {at}: {ran}")
            told = [json.loads(line)["target_extent"] for line in lines()]
            self.assertEqual(sorted(told), self.live, f"seed {seed}, osd.{osd} at {at}")
            self.assertEqual([e["source"].removeprefix("a/") for e in ran.extents
                              if e["status"] in ("copied", "already there")], self.live)
            c.wait_companions()
            self.assert_nothing_left(pool)

    def test_a_plan_is_exact_all_the_same(self):
        ran = self.cluster.siphon("copy", "--dry-run", "a", "d")
        self.assertEqual([e["source"].removeprefix("a/") for e in ran.extents], self.live)
        sizes = [e["bytes"] for e in ran.extents]
        self.assertGreater(min(sizes), BYTES)
        self.assertEqual(ran.document["total_bytes"], sum(sizes))


if __name__ == "__main__":
    harness.main()
