#!/usr/bin/python3
"""What cannot be copied: each its own clear error, bounded in time, nothing left behind.

Most cases run twice: as somebody who may look at the source (the CLI finds out), and with a key
that holds nothing but the class caps (the devices find out).
"""

import re
import secrets
import signal
import struct
import subprocess
import zlib

import harness  # it knows the way to tests/lib
from by_hand import DEVICE_CALLER, ByHand
from cli import (CONFIRM, FATAL, INTERRUPTED, LIMIT, NEEDS_CONFIRMATION, NOTHING_TO_DO, NOT_FIT,
                 NOT_FOUND, OK, PARTIAL, RUN_DEADLINE_S, TEMPORARY, USAGE)
from formats import MIB, content_of, crc32c, write_random_file
from ports import listening_ports
from waiting import wait_until
from harness import Extent, read_head

E_BYTES = 20 * MIB


class Errors(ByHand, harness.ClusterTest):

    # An operation of the cluster that hangs is given up after this long, by the companions, too.
    cluster_options = {"environment": {"SIPHOND_CEPH_OSD_TIMEOUT_SECONDS": "6"}}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        c = cls.cluster
        for pool in ("a", "b"):
            c.create_pool(pool)
        c.put("a/e", E_BYTES, 1)
        c.put("a/other", E_BYTES, 2)
        c.put("a/small", 5000, 3)
        c.create_key("blind", "allow class siphon hello, allow class siphon grant_read, "
                              "allow class siphon grant_write")

    def setUp(self):
        self.sources = harness.fingerprint(self.cluster, "a")

    def both_keys(self, *arguments):
        """Runs `copy` as one who may look, and as one who may not."""
        for key in (None, "client.blind"):
            with self.subTest(key=key or "client.admin"):
                yield self.cluster.siphon("copy", *arguments, key=key, check=False)

    def assert_unharmed(self, *gone):
        """The sources are as they were, and neither pool holds anything but its extents."""
        self.assert_nothing_left("a", "b")
        self.assertEqual(harness.fingerprint(self.cluster, "a"), self.sources)
        for name in gone:
            self.assertIsNone(read_head(self.cluster, "b", name))
        self.assertEqual(listening_ports(*self.cluster.data_ports), [])

    def assert_same(self, source, target):
        self.assertTrue(Extent(self.cluster, "a", source).read() ==
                        Extent(self.cluster, "b", target).read(), (source, target))

    def purge(self, *addresses):
        """For good, those that are there."""
        ran = self.cluster.siphon("rm", "--purge", CONFIRM, *addresses, check=False)
        self.assertIn(ran.code, (OK, NOT_FOUND, PARTIAL), str(ran))

    def the_transfer(self, pool="b"):
        return wait_until(lambda: self.cluster.running_transfers(pool), what="a transfer")[0]["id"]

    # ---- the source

    def test_an_open_extent_is_refused(self):
        c = self.cluster
        path = write_random_file(c.scratch / "open", 9 * MIB, 4)
        c.siphon("put", "--open", "a/open", path)
        try:
            self.sources = harness.fingerprint(c, "a")
            for ran in self.both_keys("a/open", "b/open"):
                self.assert_fails(ran, FATAL, "open")
            for ran in self.both_keys("--dry-run", "a/open", "b/open"):
                self.assertEqual([e["bytes"] for e in ran.extents], [None], str(ran))
            self.assert_unharmed("open")
            c.siphon("seal", "a/open")
            c.siphon("copy", "a/open", "b/open")
            self.assert_same("open", "open")
        finally:
            self.purge("a/open", "b/open")

    def test_a_missing_extent_is_not_found(self):
        for ran in self.both_keys("a/missing", "b/missing"):
            self.assert_fails(ran, NOT_FOUND, "missing", "does not exist|no extent")
        self.assert_unharmed("missing")

    def rot(self, name, object_name, change):
        """Changes the bytes of an object of a/NAME behind Siphon's back; returns how to mend it."""
        io = self.cluster.io("a", locator=name)
        self.addCleanup(io.close)
        good = io.read(object_name, 64 * MIB)
        io.write_full(object_name, change(good))
        self.assertNotEqual(zlib.crc32(io.read(object_name, 64 * MIB)), zlib.crc32(good))
        return lambda: io.write_full(object_name, good)

    def test_rot_at_the_source_is_reported_and_not_propagated(self):
        def flip(at):
            return lambda data: data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1:]
        parts = Extent(self.cluster, "a", "e").object_names()
        cases = {
            "a bit of a block": ("e", parts[1], flip(12345)),
            "the first byte": ("e", parts[0], flip(0)),
            "the last byte": ("e", parts[-1], lambda data: flip(len(data) - 1)(data)),
            "a part is short": ("e", parts[0], lambda data: data[:-1]),
            "inline": ("small", "siphon.small", flip(1000)),
        }
        for what, (name, object_name, change) in cases.items():
            mend = self.rot(name, object_name, change)
            self.sources = harness.fingerprint(self.cluster, "a")
            with self.subTest(what):
                for ran in self.both_keys(f"a/{name}", "b/rotten"):
                    self.assert_fails(ran, FATAL, name)
                    self.assertEqual(ran.problem["code"], "DATA_LOSS", str(ran))
                    self.assertEqual(ran.problem["suspect"], "source", str(ran))
                self.assert_unharmed("rotten")
                ran = self.cluster.siphon("verify", f"a/{name}", check=False)
                self.assertEqual(ran.code, FATAL, str(ran))
            mend()
        self.cluster.siphon("copy", "a/e", "b/rotten")
        self.assert_same("e", "rotten")
        self.purge("b/rotten")

    def test_rot_under_a_header_written_anew_is_found_by_deep_and_not_published(self):
        c = self.cluster
        parts = Extent(c, "a", "e").object_names()
        for name, object_name in (("e", parts[1]), ("small", "siphon.small")):
            mend = self.rot(name, object_name,
                            lambda data: data[:2000] + bytes([data[2000] ^ 1]) + data[2001:])
            io = c.io("a", locator=name)
            self.addCleanup(io.close)
            register = io.get_xattr(f"siphon.{name}", "siphon.head")
            objects = [object_name] if name == "small" else parts
            fitting = zlib.crc32(b"".join(io.read(part, 64 * MIB) for part in objects))
            anew = register[:48] + struct.pack("<I", fitting) + register[52:-4]
            io.set_xattr(f"siphon.{name}", "siphon.head",
                         anew + struct.pack("<I", crc32c(anew)))
            self.sources = harness.fingerprint(c, "a")
            for ran in self.both_keys("--deep", f"a/{name}", "b/rotten"):
                self.assert_fails(ran, FATAL, f"extent {name}: ", "SHA-256")
                self.assertEqual(ran.problem["suspect"], "source", str(ran))
            self.assert_unharmed("rotten")
            io.set_xattr(f"siphon.{name}", "siphon.head", register)
            mend()
        # What is sound passes, read back through the exchange.
        ran = c.siphon("copy", "--deep", "a/e", "a/small", "b")
        for extent in ran.extents:
            self.assertTrue(extent["receipt"]["blocks_checked"])
        self.assertEqual(ran.document["summary"]["fallback_parts"], 0)
        self.assert_same("e", "e")
        self.purge("b/e", "b/small")

    def test_a_corrupt_head_is_told_of_and_given_up_when_its_bytes_are_kept(self):
        c = self.cluster
        c.create_pool("c")
        for name, size in (("large", 9 * MIB), ("small", 5000), ("sound", 5000)):
            c.put(f"c/{name}", size, 7)
        raw = {}
        for name in ("large", "small"):
            io = c.io("c", locator=name)
            self.addCleanup(io.close)
            good = io.get_xattr(f"siphon.{name}", "siphon.head")
            raw[name] = good[:50] + bytes([good[50] ^ 0xFF]) + good[51:]
            io.set_xattr(f"siphon.{name}", "siphon.head", raw[name])
        listed = c.siphon("ls", "c", check=False)
        self.assertEqual(listed.code, PARTIAL, str(listed))
        bad = {e["name"]: e["problem"] for e in listed.document["extents"] if e.get("problem")}
        self.assertEqual(sorted(bad), ["large", "small"], str(listed))
        for name, problem in bad.items():
            self.assertEqual(problem["code"], "DATA_LOSS")
            self.assertIn("--corrupt-head", problem["next_step"])
            for verb in (("rm", CONFIRM), ("rm", "--purge", CONFIRM)):
                self.assertEqual(c.siphon(*verb, f"c/{name}", check=False).code, FATAL)
            record = c.scratch / f"record-{name}"
            io = c.io("c", locator=name)
            self.addCleanup(io.close)
            data = io.read(f"siphon.{name}", MIB)
            c.siphon("rm", "--corrupt-head", "--save", str(record), CONFIRM, f"c/{name}")
            self.assertEqual(record.read_bytes(), raw[name])
            if data:  # inline: its bytes went with the head
                self.assertEqual((c.scratch / f"record-{name}.data").read_bytes(), data)
            self.assertEqual(c.siphon("stat", f"c/{name}", check=False).code, NOT_FOUND)
            c.put(f"c/{name}", 6000, 8)  # the name is free again
        self.assertEqual(c.siphon("ls", "c").code, OK)
        ran = c.siphon("rm", "--corrupt-head", "--save", str(c.scratch / "none"), CONFIRM,
                       "c/sound", check=False)
        self.assertEqual(ran.code, FATAL, str(ran))
        c.siphon("verify", "c/sound")

    def test_one_rotten_extent_of_a_batch_fails_alone(self):
        c = self.cluster
        mend = self.rot("e", Extent(c, "a", "e").object_names()[0],
                        lambda data: data[:100] + b"rot" + data[103:])
        ran = c.siphon("copy", "a/e", "a/other", "a/small", "b", check=False)
        self.assertEqual(ran.code, PARTIAL, str(ran))
        states = {e["source"]: e["status"] for e in ran.extents}
        self.assertEqual(states, {"a/e": "failed", "a/other": "copied", "a/small": "copied"})
        mend()
        self.assert_unharmed("e")
        self.assert_same("other", "other")
        self.assert_same("small", "small")
        # What is there already is not copied again, and what failed is.
        ran = c.siphon("copy", "a", "b")
        states = {e["source"]: e["status"] for e in ran.extents}
        self.assertEqual(states, {"a/e": "copied", "a/other": "already there",
                                  "a/small": "already there"})
        self.purge("b/e", "b/other", "b/small")

    def test_a_source_that_is_replaced_or_removed_meanwhile_is_not_published(self):
        c = self.cluster
        replacement = write_random_file(c.scratch / "replacement", E_BYTES, 5)
        verbs = {
            "replaced": lambda: c.siphon("put", "--replace", CONFIRM, "a/moving", replacement),
            "removed": lambda: c.siphon("rm", CONFIRM, "a/moving"),
            "purged": lambda: c.siphon("rm", "--purge", CONFIRM, "a/moving"),
        }
        for what, change in verbs.items():
            with self.subTest(what):
                c.put("a/moving", E_BYTES, 6)
                run = self.start_siphon("copy", "a/moving", "b/moving", "--bwlimit", "4M")
                run.wait_streaming()
                transfer = self.the_transfer()
                change()
                ran = run.wait()
                # What it began with was refused; the CLI tried again, under the same id, with what
                # is there now.
                seen = c.siphon("watch", transfer, "b", check=False)
                self.assertEqual(seen.document["phase"] == "succeeded", what == "replaced",
                                 str(seen))
                if what == "replaced":
                    self.assertEqual(ran.code, 0, str(ran))
                    stream = Extent(c, "b", "moving").read()
                    self.assertTrue(content_of(stream) == replacement.read_bytes())
                    self.purge("b/moving")
                else:
                    self.assertIn(ran.code, (NOT_FOUND, TEMPORARY), str(ran))
                self.assertIsNone(read_head(c, "b", "moving"))
                self.assert_nothing_left("b")
                self.purge("a/moving")
        self.assert_unharmed("moving")

    # ---- the target

    def test_an_extent_that_is_there_is_kept_unless_replaced_on_purpose(self):
        c = self.cluster
        c.siphon("copy", "a/e", "b/kept")
        before = harness.fingerprint(c, "b")
        # The same once more is no error: nothing to do.
        ran = c.siphon("copy", "a/e", "b/kept", check=False)
        self.assertEqual(ran.code, NOTHING_TO_DO, str(ran))
        for ran in self.both_keys("a/other", "b/kept"):
            self.assert_fails(ran, FATAL, "already", "--replace")
            self.assertEqual(ran.problem["code"], "ALREADY_EXISTS")
        ran = c.siphon("copy", "--replace", "a/other", "b/kept", check=False)
        self.assert_fails(ran, NEEDS_CONFIRMATION, "confirmation")
        self.assertEqual(harness.fingerprint(c, "b"), before)

        old = read_head(c, "b", "kept")
        c.siphon("copy", "--replace", CONFIRM, "a/other", "b/kept")
        self.assert_same("other", "kept")
        new = read_head(c, "b", "kept")
        self.assertEqual(new.trash, [old.current])
        self.assertGreater(new.generation, old.generation)
        # The old generation's bytes are still all there.
        parts = [f"siphon.{old.current}.{i:08x}" for i in range(old.part_count())]
        names = {name for _, _, name in harness.list_objects(c, "b")}
        self.assertLessEqual(set(parts), names)
        self.purge("b/kept")
        self.assert_unharmed("kept")

    def test_two_requesters_for_one_name_one_wins_and_the_other_is_told(self):
        runs = {"e": self.start_siphon("copy", "a/e", "b/contested", "--bwlimit", "8M"),
                "other": self.start_siphon("copy", "a/other", "b/contested", "--bwlimit", "8M",
                                           key="client.blind")}
        ran = {name: run.wait() for name, run in runs.items()}
        winners = [name for name, r in ran.items() if r.code == 0]
        self.assertEqual(len(winners), 1, "\n".join(map(str, ran.values())))
        (loser,) = set(ran) - set(winners)
        self.assertIn(ran[loser].problem["code"], ("ALREADY_EXISTS", "ABORTED"), str(ran[loser]))
        self.assertIn(ran[loser].code, (FATAL, TEMPORARY))
        self.assert_same(winners[0], "contested")
        self.assert_nothing_left("b")
        self.purge("b/contested")
        self.assert_unharmed("contested")

    def test_a_pool_without_the_application_tag_is_refused_with_the_command_that_mends_it(self):
        c = self.cluster
        c.create_pool("untagged", tag=False)
        for arguments in (("a/e", "untagged/e"), ("untagged/e", "b/untagged")):
            ran = c.siphon("copy", *arguments, check=False)
            self.assert_fails(ran, NOT_FIT,
                              f"ceph --conf {c.conf} osd pool application enable untagged siphon")
        # The devices look for themselves.
        write = self.granted("client.blind", "write", "untagged",
                             at=self.primary_of("untagged", "forged"))
        read = self.granted("client.blind", "read", "a")
        code, sentence = self.transfer(read, write, target_pool="untagged")
        self.assertEqual(code, "FAILED_PRECONDITION", sentence)
        self.assertIn("not enabled for siphon", sentence)
        self.assertEqual(harness.list_objects(c, "untagged"), [])
        self.assert_unharmed("untagged")

    def set_quota(self, pool, max_bytes):
        self.cluster.ceph("osd", "pool", "set-quota", pool, "max_bytes", max_bytes)

    def pool_is_full(self, pool):
        for entry in self.cluster.ceph("osd", "dump", as_json=True)["pools"]:
            if entry["pool_name"] == pool:
                return "full" in entry["flags_names"].split(",")
        return None

    def test_a_full_target_pool_is_refused_and_filling_up_ends_the_transfer(self):
        c = self.cluster
        c.create_pool("tight")
        c.put("tight/resident", 3 * MIB, 7)
        resident = harness.fingerprint(c, "tight")
        self.set_quota("tight", MIB)
        wait_until(lambda: self.pool_is_full("tight"), what="the pool to be full")
        with self.subTest("full from the start"):
            ran = c.siphon("copy", "a/e", "tight/e", check=False)
            self.assert_fails(ran, LIMIT, "tight is full", "quota")
            self.assertEqual(harness.fingerprint(c, "tight"), resident)
        self.set_quota("tight", 0)
        wait_until(lambda: not self.pool_is_full("tight"), what="the pool to have room")
        with self.subTest("fills up while it streams"):
            run = self.start_siphon("copy", "a/e", "tight/e", "--bwlimit", "2M")
            run.wait_streaming()
            self.set_quota("tight", MIB)
            ran = run.wait()
            self.assertIn(ran.code, (LIMIT, TEMPORARY), str(ran))
            self.assertIn(ran.problem["code"], ("RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED",
                                                "UNAVAILABLE"), str(ran))
            self.assertTrue(self.pool_is_full("tight"))
            # Scratch goes although the pool is full, and the resident stays.
            self.assert_parts_gone("tight", "e")
            with c.io("tight", locator="resident") as io:
                self.assertGreater(io.stat("siphon.resident")[0] + len(resident), 0)
        self.set_quota("tight", 0)
        wait_until(lambda: not self.pool_is_full("tight"), what="the pool to have room")
        self.assert_nothing_left("tight")
        self.assertEqual(harness.fingerprint(c, "tight"), resident)
        c.siphon("copy", "a/e", "tight/e")
        self.assertTrue(Extent(c, "tight", "e").read() == Extent(c, "a", "e").read())
        self.purge("tight/e", "tight/resident")
        self.assert_unharmed()

    def assert_parts_gone(self, pool, extent):
        """No object but perhaps a head is left of the extent."""
        def gone():
            return all(locator != extent or name == f"siphon.{extent}"
                       for _, locator, name in harness.list_objects(self.cluster, pool))
        wait_until(gone, what=f"the parts of {pool}/{extent} to be gone", poll_s=0.3)

    def test_a_cluster_that_takes_no_writes_is_refused_and_a_pause_ends_the_transfer(self):
        c = self.cluster
        try:
            run = self.start_siphon("copy", "a/e", "b/paused", "--bwlimit", "2M", "--timeout", "6")
            run.wait_streaming()
            c.ceph("osd", "pause")
            ran = run.wait()
            self.assertIn(ran.code, (TEMPORARY, FATAL, NOT_FIT), str(ran))
            self.assertIsNotNone(ran.problem, str(ran))
            ran = c.siphon("copy", "a/e", "b/paused", "--timeout", "6", check=False)
            self.assert_fails(ran, NOT_FIT, "paused", f"ceph --conf {c.conf} osd unpause")
        finally:
            c.ceph("osd", "unpause")
        self.assert_nothing_left("b")
        self.assert_unharmed("paused")
        c.siphon("copy", "a/e", "b/paused")
        self.assert_same("e", "paused")
        self.purge("b/paused")

    # ---- one transfer, several calls

    def test_the_same_transfer_id_twice_is_one_transfer(self):
        c = self.cluster
        transfer_id = secrets.token_hex(16)
        write = self.granted("client.blind", "write", "b", at=self.primary_of("b", "forged"))
        read = self.granted("client.blind", "read", "a")
        words = [self.control_address("b", "forged"), "transfer", transfer_id,
                 self.control_address("a", "e"), "a", "b", "e", "forged", read, write]
        pair = [subprocess.Popen([DEVICE_CALLER, *words], stdout=subprocess.PIPE, text=True)
                for _ in range(2)]
        said = [process.communicate(timeout=RUN_DEADLINE_S)[0] for process in pair]
        self.assertEqual(said, ["OK 1 extents\n"] * 2)
        head = read_head(c, "b", "forged")
        self.assertEqual((head.generation, head.trash, head.reservations), (1, [], []))
        # Much later, the same answer again, and nothing is done twice.
        self.assertEqual(self.transfer(read, write, transfer_id=transfer_id), ("OK", "1 extents"))
        self.assertEqual(read_head(c, "b", "forged"), head)
        # A later try of the command may name an extent whose primary came here meanwhile: that one
        # is copied, the first is left alone.
        words[7] = "elsewhere"
        self.assertEqual(self.device(*words), ("OK", "1 extents"))
        self.assertEqual(read_head(c, "b", "forged"), head)
        self.purge("b/forged", "b/elsewhere")
        self.assert_unharmed("forged", "elsewhere")

    def test_a_cancel_in_the_middle_leaves_nothing(self):
        c = self.cluster
        run = self.start_siphon("copy", "a/e", "a/other", "b", "--bwlimit", "2M")
        run.wait_streaming(MIB)
        for transfer in c.running_transfers("b"):
            c.siphon("cancel", transfer["id"], "b")
        ran = run.wait()
        self.assertNotEqual(ran.code, 0)
        self.assertEqual({e["status"] for e in ran.extents}, {"failed"}, str(ran))
        self.assertEqual({e["problem"]["code"] for e in ran.extents}, {"CANCELLED"}, str(ran))
        self.assertEqual(c.running_transfers("b"), [])
        self.assert_unharmed("e", "other")

    def test_after_ctrl_c_the_transfer_goes_on_and_can_be_watched(self):
        c = self.cluster
        run = self.start_siphon("copy", "a/e", "b/watched", "--bwlimit", "4M")
        run.wait_streaming()
        run.send(signal.SIGINT)
        ran = run.wait()
        self.assertEqual(ran.code, INTERRUPTED, str(ran))
        (transfer,) = ran.document["going_on"]
        self.assertRegex(ran.stderr, f"siphon .*watch {transfer}")
        self.assertRegex(ran.stderr, f"siphon .*cancel {transfer}")
        watched = c.siphon("watch", transfer, "b")
        self.assertEqual(watched.document["phase"], "succeeded")
        receipt = watched.document["extents"][0]["receipt"]
        self.assertEqual(receipt["private_id"], read_head(c, "b", "watched").current)
        self.assert_same("e", "watched")
        # Its end can be looked at again: the same receipt.
        again = c.siphon("watch", transfer, "b")
        self.assertEqual(again.document["extents"], watched.document["extents"])
        self.purge("b/watched")
        self.assert_unharmed("watched")

    # ---- what is not there, and what is of another kind

    def test_a_pool_that_is_not_there_is_named_by_every_verb_that_looks(self):
        for words in (("ls", "nopool"), ("daemons", "nopool"), ("transfers", "nopool"),
                      ("stat", "nopool/e"), ("verify", "nopool"), ("copy", "a/e", "nopool")):
            ran = self.cluster.siphon(*words, check=False)
            self.assert_fails(ran, NOT_FOUND, "there is no pool 'nopool'")

    def test_a_pool_can_be_copied_to_a_folders_daemon_and_not_the_other_way(self):
        c = self.cluster
        with harness.folder_daemon(c, "folder") as (folder, control, secret):
            there = f"localhost:{control}"
            ran = c.siphon("copy", "--secret-file", secret, "a", f"{there}/")
            self.assertEqual({e["status"] for e in ran.extents}, {"copied"}, str(ran))
            for name in ("e", "other", "small"):
                self.assertTrue((folder / name).read_bytes() == Extent(c, "a", name).read(), name)
            ran = c.siphon("copy", "--secret-file", secret, f"{there}/e", "b", check=False)
            self.assert_fails(ran, USAGE, r"posix:DIR/e - \| siphon .*put b/e -")
        self.assert_unharmed("e")

    # ---- a daemon without the plugin

    def test_a_daemon_without_the_plugin_is_named(self):
        c, osd = self.cluster, 2
        text = c.conf.read_text()
        stock = subprocess.run(["ceph-osd", "-c", "/dev/null", "--show-config-value",
                                "osd_class_load_list"], check=True, capture_output=True,
                               text=True, timeout=60).stdout.strip()
        names = {self.locator_at("b", osd), self.locator_at("a", osd)}
        for name in names:
            c.put(f"a/{name}", 3 * MIB, 8)
        self.sources = harness.fingerprint(c, "a")
        try:
            c.conf.write_text(re.sub(rf"(?m)^\[osd\.{osd}\]$",
                                     f"[osd.{osd}]\nosd_class_load_list = {stock}", text))
            c.tool("stop", f"osd.{osd}")
            c.tool("start", f"osd.{osd}")
            self.assertIsNone(c.companion_pid(osd))
            for name in names:
                ran = c.siphon("copy", f"a/{name}", f"b/{name}", check=False)
                self.assert_fails(ran, NOT_FIT, "plugin")
            # The others serve: a list of daemons says who does not.
            ran = c.siphon("daemons", "a", check=False)
            self.assertEqual({d["device"] for d in ran.document["devices"]}, {"osd.0", "osd.1"})
            self.assertEqual(len(ran.document["silent"]), 1, str(ran))
            # What was not asked may have transfers, all the same.
            ran = c.siphon("transfers", "a", check=False)
            self.assertEqual(ran.code, PARTIAL, str(ran))
            self.assertEqual(len(ran.document["silent"]), 1, str(ran))
            ran = c.siphon("transfers", "a", check=False, as_json=False)
            self.assertIn("no transfers under way at the devices that answered", ran.stdout)
            self.assertRegex(ran.stderr, r"pool a: \d+ placement groups? could not be asked: ")
            for verb in ("watch", "cancel"):
                ran = c.siphon(verb, "0" * 32, "a", check=False)
                self.assert_fails(ran, NOT_FIT, "no device that could be asked knows a")
            self.assert_unharmed(*names)
        finally:
            c.conf.write_text(text)
            c.tool("stop", f"osd.{osd}")
            c.tool("start", f"osd.{osd}")
        c.wait_companions()
        for pool in ("a", "b"):  # as every test finds them
            wait_until(lambda pool=pool: c.pool_is_clean(pool), what=f"pool {pool} to be clean")
        for name in names:
            c.siphon("copy", f"a/{name}", f"b/{name}")
        self.purge(*(f"{pool}/{name}" for pool in "ab" for name in names))
        self.assert_nothing_left("a", "b")


if __name__ == "__main__":
    harness.main()
