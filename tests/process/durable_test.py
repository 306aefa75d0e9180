#!/usr/bin/python3
"""What says that it is on the disk is: where a sync fails, it says so and does not count."""

import two_daemons
from cli import BIN_DIR, FATAL, NOTHING_TO_DO, OK, SIPHON, TEMPORARY
from formats import KIB, MIB, sha256_of
from waiting import DEADLINE_S, wait_until
from two_daemons import TwoDaemonsTest

FAILING_SYNC = BIN_DIR / "failing_sync.so"
GENERAL, PARTIAL = 1, 6


def failing_sync(pattern):
    """An environment in which no file of such a path can be synced."""
    return {"LD_PRELOAD": str(FAILING_SYNC), "SIPHON_TEST_FAIL_SYNC": pattern}


class GetTest(TwoDaemonsTest):
    def setUp(self):
        super().setUp()
        self.put("e1", 2 * MIB)
        self.got = self.dir / "out" / "got"
        self.got.parent.mkdir()

    def get(self, *options, fails):
        ran = self.start([SIPHON, "get", *options, f"posix:{self.source.folder}/e1", self.got],
                         failing_sync(fails)).wait()
        self.assertNotEqual(ran.code, OK, str(ran))
        self.assertIn("sync", ran.stderr)
        return ran

    def test_get_whose_folder_cannot_be_synced_says_that_it_may_not_last(self):
        ran = self.get(fails="*/out")
        self.assertIn(f"sync {self.got.parent}", ran.stderr)
        self.assertEqual(sha256_of(self.got), sha256_of(self.dir / "content-e1"))

    def test_get_whose_file_cannot_be_synced_leaves_no_half_of_it(self):
        self.get(fails="*/out/got*")
        self.assertEqual(list(self.got.parent.iterdir()), [])

    def test_get_over_a_file_that_cannot_be_synced_is_no_success(self):
        self.got.write_bytes(b"before")
        self.get("--force", fails="*/out/got*")
        self.assertEqual(self.got.read_bytes(), b"before")


class ReceiptsTest(TwoDaemonsTest):
    def setUp(self):
        super().setUp()
        self.source.start()
        self.target.start()
        self.put("e1", MIB)

    def test_receipts_that_cannot_be_synced_are_told_as_lost(self):
        receipts = self.dir / "receipts"
        ran = self.start([SIPHON, *self.copy_words("e1", "--receipts", receipts), "-f", "json",
                          "--secret-file", self.secret], failing_sync("*/receipts")).wait()
        self.assertEqual(ran.code, PARTIAL, str(ran))
        self.assertEqual(ran.summary["receipts_lost"], 1)
        self.assertIn("sync the receipts", ran.stderr)
        self.assert_copied()

    def test_receipts_that_cannot_be_written_are_told_before_anything_moves(self):
        (self.dir / "taken").write_bytes(b"")
        for path in (self.dir / "none" / "receipts", self.dir / "taken" / "receipts", self.dir):
            with self.subTest(path=path):
                ran = self.copy("e1", "--receipts", path, code=GENERAL)
                self.assert_is_problem(ran.problem, "nothing was copied", str(path), extent="")
        self.assertEqual(self.transfers("--all"), [])
        self.assertEqual(self.target.public_names(), {})


class TargetTest(TwoDaemonsTest):
    def test_a_target_whose_disk_does_not_sync_publishes_nothing(self):
        self.source.start()
        self.target._environment = failing_sync("*/.siphon/data/*")
        self.target.start()
        for name, size in (("large", 9 * MIB), ("small", 20 * KIB)):
            self.put(name, size)
            ran = self.copy(name, code=None)
            self.assertIn(ran.code, (FATAL, TEMPORARY), str(ran))
            self.assert_is_problem(ran.problem, "sync", extent=name, suspect="target")
            self.assertEqual(self.target.public_names(), {})
        self.target._environment = {}
        self.target.restart()
        for name in ("large", "small"):
            self.copy(name)
            self.assert_copied(name)


class EmptyTest(TwoDaemonsTest):
    def test_an_empty_extent_is_copied_and_verified_like_another(self):
        self.source.start()
        self.target.start()
        self.put("empty", 0)
        ran = self.copy("empty")
        self.assertEqual(ran.receipt["header"]["content_bytes"], 0)
        self.assert_copied("empty")
        self.siphon("verify", f"{self.source.address}/empty", f"{self.target.address}/empty")
        self.copy("empty", code=NOTHING_TO_DO)
        self.copy("empty", "--deep", "--replace", "--yes-i-really-mean-it")
        got = self.dir / "got"
        self.start([SIPHON, "get", f"posix:{self.target.folder}/empty", got]).wait()
        self.assertEqual(got.read_bytes(), b"")


class WatchersTest(TwoDaemonsTest):
    WATCHERS = 40
    MOST = 15  # one key has half of the 32 calls that last as long as a transfer does; one is the copy

    def test_watchers_beyond_the_cap_are_told_to_come_back_and_the_device_still_answers(self):
        self.source.start()
        self.target.start()
        self.put("e1", 12 * MIB)
        copy = self.start_copy("e1", "--bwlimit", "64K")
        transfer = self.wait_streaming(copy)
        words = [SIPHON, "watch", transfer["id"], f"{self.target.address}/", "-f", "json",
                 "--secret-file", self.secret]
        watchers = [self.start(words) for _ in range(self.WATCHERS)]
        wait_until(lambda: sum(w.ended() for w in watchers) >= self.WATCHERS - self.MOST,
                   DEADLINE_S, "those beyond the cap are turned away")
        refused = [w for w in watchers if w.ended()]
        self.assertEqual(len(refused), self.WATCHERS - self.MOST)
        for watcher in refused:
            ran = watcher.wait()
            self.assertEqual(ran.code, TEMPORARY, str(ran))
            self.assert_is_problem(ran.problem, "too many calls of this key", extent="")
        # Half of the threads stay free for the rest.
        self.assertEqual(self.describe(self.target)["transfers_in"], 1)
        self.assertEqual(len(self.transfers()), 1)
        self.siphon("cancel", transfer["id"], f"{self.target.address}/")
        for run in [*watchers, copy]:
            run.wait()
        another = self.put("e2", MIB)
        self.copy("e2")
        self.assertEqual(sha256_of(self.target.folder / "e2"), sha256_of(another))
        self.siphon("watch", transfer["id"], f"{self.target.address}/", code=None)


if __name__ == "__main__":
    two_daemons.main()
