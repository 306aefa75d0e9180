#!/usr/bin/python3
"""Faults between two stand-alone siphond: processes killed and held, a hostile wire, noise on
the data port, full disks, rot. Each acts from outside, at a random point that the progress shows
to be mid-stream, and is followed by the invariants I1-I5, I7 and I14 (docs/failure_model.md),
checked on the files themselves, and by a retry.

SIPHON_TEST_SEED repeats a run. Of the batches, a longer proof by hand: SIPHON_TEST_BATCH_EXTENTS
(96), SIPHON_TEST_BATCH_KILLS (2), SIPHON_TEST_BATCH_HOLDS (1), and for nothing else:
faults_test.py BatchFaultTest
"""

import concurrent.futures
import contextlib
import json
import os
import re
import signal
import socket
import struct
import subprocess
import threading

import two_daemons
from lane_proxy import HELLO_BYTES, PROOF_BYTES, Fault, RawConnection
from cli import (EXIT_CONFIG, FATAL, INTERRUPTED, LIMIT, NOTHING_TO_DO, OK, PERMISSION, SIPHON,
                 SIPHOND, TEMPORARY)
from formats import MIB, sha256_of
from ports import listening
from waiting import DEADLINE_S, wait_until
from two_daemons import TwoDaemonsTest

EXTENT_BYTES = 12 * MIB
SLOW = ("--bwlimit", "6M")  # mid-stream lasts two seconds


class FaultTest(TwoDaemonsTest):
    def setUp(self):
        super().setUp()
        self.start_daemons()
        self.put("e1", EXTENT_BYTES)

    def stream(self, *options):
        """A slow copy of e1, mid-stream at a random point: (the run, the transfer)."""
        run = self.start_copy("e1", *SLOW, *options)
        return run, self.wait_streaming(run, self.random.randrange(1, EXTENT_BYTES * 6 // 10))


class AuthorityTest(FaultTest):
    """The second main job without any fault, and who may not do it."""

    def test_a_plain_copy(self):
        self.assertEqual(listening(self.data_ports), [], "a data port while idle")
        ran = self.copy("e1", "--lanes", "2")
        self.assert_copied()
        self.assertEqual(ran.receipt["lanes"], 2)
        self.assertEqual(ran.receipt["attempts"], 1)
        self.assertGreaterEqual(ran.summary["lane_bytes"], EXTENT_BYTES)
        self.assertLess(ran.summary["rpc_bytes"], EXTENT_BYTES / 1000)
        self.assert_source_untouched()
        self.assert_nothing_left()
        again = self.copy("e1", code=NOTHING_TO_DO)
        self.assertEqual(again.document["extents"][0]["status"], "already there")
        self.assert_copied()

    def test_a_wrong_secret_is_refused(self):
        other = self.dir / "other-secret"
        other.write_bytes(b"x" * 32)
        other.chmod(0o600)
        ran = self.siphon(*self.copy_words("e1"), "--secret-file", other, secret=False,
                          code=PERMISSION)
        self.assert_is_problem(ran.problem, "secret", extent="")
        self.assert_as_before()

    def test_no_secret_is_refused(self):
        ran = self.siphon(*self.copy_words("e1"), secret=False, code=PERMISSION)
        self.assert_is_problem(ran.problem, "secret", extent="")
        self.assertIn(f"the secret of the device at {self.target.address}", ran.problem["message"])
        self.assert_as_before()

    def test_a_source_with_another_secret_refuses_the_target(self):
        self.source.kill()
        other = self.dir / "other-secret"
        other.write_bytes(b"y" * 32)
        other.chmod(0o600)
        self.source.secret = other
        self.source.start()
        ran = self.copy("e1", code=PERMISSION)
        self.assert_is_problem(ran.problem, "secret")
        self.assertIn(f"the secret of the device at {self.source.address}", ran.problem["message"])
        self.assert_source_untouched()
        self.assertEqual(set(self.target.public_names()), {"warm"})

    def test_configurations_that_are_refused_at_start(self):
        open_secret = self.dir / "open-secret"
        open_secret.write_bytes(b"z" * 32)
        open_secret.chmod(0o644)
        store = ["--store", f"posix:{self.dir / 'third'}", "--data-ports", "1-1"]
        (self.dir / "third").mkdir()
        listen = ["--listen", f"127.0.0.1:{self.base_port + 5}"]
        secret = ["--secret-file", self.secret]
        for words, told in (
                (store + listen, "secret"),
                (store + listen + ["--secret-file", open_secret], "0600"),
                (store + ["--listen", "0.0.0.0:1"] + secret, "TLS|wildcard"),
                (store + listen + secret + ["--set", "data.address=0.0.0.0"], "wildcard"),
                (store + listen + secret + ["--set", "data.typo=1"], "data.typo"),
                (store + listen + secret + ["--set", "store.part_bytes=65536", "--set",
                                            "store.inline_max_bytes=65537"],
                 "store.inline_max_bytes .65537. is more than store.part_bytes .65536.")):
            with self.subTest(told):
                ended = subprocess.run([str(w) for w in (SIPHOND, *words)], capture_output=True,
                                       text=True, timeout=DEADLINE_S, check=False)
                self.assertEqual(ended.returncode, EXIT_CONFIG, ended.stderr)
                self.assertRegex(ended.stderr, told)


class BatchFaultTest(TwoDaemonsTest):
    """Many small extents, and a fault at a random point among their publishes: the command ends
    well, and what it copied itself has exactly one receipt each, the same as often as asked."""

    COUNT = int(os.environ.get("SIPHON_TEST_BATCH_EXTENTS", 96))
    KILLS = int(os.environ.get("SIPHON_TEST_BATCH_KILLS", 2))
    HOLDS = int(os.environ.get("SIPHON_TEST_BATCH_HOLDS", 1))
    BYTES = 64 * 1024
    SECONDS = 1 + COUNT // 500  # that the copy of all is slowed down to
    # A hold shows to the source after a second.
    source_settings = ("transfer.idle_timeout_ms=1000",)

    def setUp(self):
        super().setUp()
        self.start_daemons()
        self.names = [f"s{number:04}" for number in range(self.COUNT)]
        with concurrent.futures.ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda name: self.put(name, self.BYTES), self.names))

    def copy_through(self, fault):
        """A copy of all of them; `fault` acts once a random number are public."""
        receipts = self.dir / "receipts.ndjson"
        receipts.unlink(missing_ok=True)
        run = self.start([SIPHON, "copy", *(f"{self.source.address}/{name}" for name in self.names),
                          f"{self.target.address}/", "--receipts", receipts, "--bwlimit",
                          str(self.COUNT * self.BYTES // self.SECONDS), "-f", "json",
                          "--secret-file", self.secret])
        at = self.random.randrange(1, self.COUNT * 3 // 4)
        wait_until(lambda: run.ended() or len(os.listdir(self.target.folder)) - 2 >= at, DEADLINE_S,
                   "some of them are public")
        self.assertFalse(run.ended(), "over before the fault")
        fault()
        ran = run.wait()
        self.assertEqual(ran.code, OK, str(ran))
        self.assertNotIn("already", ran.stderr)
        self.assertEqual(self.copied(), {n: self.digests[n] for n in self.names})
        lines = [json.loads(line) for line in receipts.read_text().splitlines()]
        self.assertEqual(sorted(line["target_extent"] for line in lines), self.names)
        with contextlib.suppress(AssertionError):
            wait_until(lambda: self.target.leftovers() == [], DEADLINE_S, "nothing is left over")
        self.assertEqual(self.target.leftovers(), [], self.target.log_tail())
        scratch = self.siphon("scratch", "ls", f"posix:{self.target.folder}/",
                              secret=False).document
        self.assertEqual(scratch["entries"], [])
        self.assert_told_again(lines)

    def copied(self):
        """What of the batch is public, {name: sha256}."""
        names = set(self.names)
        return {n: d for n, d in self.target.public_names().items() if n in names}

    def assert_told_again(self, lines):
        """Whoever asks by the transfer's id hears the same receipts, as often as he asks."""
        written = {line["target_extent"]: line for line in lines}
        for transfer in {line["transfer_id"] for line in lines}:
            for _ in range(2):
                ran = self.siphon("watch", transfer, f"{self.target.address}/")
                told = {e["receipt"]["target_extent"]: e["receipt"]
                        for e in ran.document["extents"]}
                self.assertGreater(len(told), 0)
                for name, receipt in told.items():
                    # The command has counted its own tries; a device knows of the last one.
                    self.assertEqual({**receipt, "attempts": 0}, {**written[name], "attempts": 0})

    def clear_target(self):
        self.start([SIPHON, "rm", "--purge", "--yes-i-really-mean-it",
                    *(f"posix:{self.target.folder}/{name}" for name in self.names)]).wait()

    def test_the_target_is_killed_among_the_publishes_of_a_batch(self):
        def kill():
            self.target.kill()
            there = self.copied()  # each of them whole
            self.assertEqual(there, {name: self.digests[name] for name in there})
            self.target.start()
        for _ in range(self.KILLS):
            self.copy_through(kill)
            self.clear_target()

    def test_the_target_is_held_among_the_publishes_of_a_batch(self):
        def hold():
            self.target.hold()
            wait_until(lambda: self.describe(self.source)["transfers_out"] == 0, DEADLINE_S,
                       "the source gives up")
            self.target.go_on()
        for _ in range(self.HOLDS):
            self.copy_through(hold)
            self.clear_target()


class ProcessFaultTest(FaultTest):
    """Signals to the three processes."""

    def test_the_source_is_killed_and_stays_away(self):
        run, _ = self.stream()
        self.source.kill()
        ran = run.wait()
        self.assertEqual(ran.code, TEMPORARY, str(ran))
        self.assert_is_problem(ran.problem, self.source.address, suspect="source")
        self.source.start()
        self.assert_as_before()
        self.assert_retry_succeeds()

    def test_the_source_is_killed_and_comes_back(self):
        run, transfer = self.stream()
        self.source.kill()
        problem = self.wait_problem(transfer["id"])
        self.assertEqual(problem["suspect"], "source")
        self.assertNotIn("e1", self.target.public_names())
        self.source.start()
        ran = run.wait()
        self.assertEqual(ran.code, OK, str(ran))
        self.assertGreater(ran.receipt["attempts"], 1)
        self.assert_copied()
        self.assert_source_untouched()
        self.assert_nothing_left()

    def test_the_target_is_killed(self):
        run, _ = self.stream()
        self.target.kill()
        self.assertNotEqual(self.target.leftovers(), [], "killed too early to leave anything")
        self.assertEqual(set(self.target.public_names()), {"warm"})
        # The source notices, and is idle again, without anybody's help.
        wait_until(lambda: self.describe(self.source)["transfers_out"] == 0, DEADLINE_S,
                   "the source gives up")
        self.target.start()
        ran = run.wait()
        self.assertEqual(ran.code, OK, str(ran))
        self.assert_copied()
        self.assert_source_untouched()
        self.assert_nothing_left()

    def test_the_target_is_killed_and_nobody_asks_again(self):
        """The journal alone finds what the crash has left."""
        run, _ = self.stream()
        run.send(signal.SIGKILL)
        self.target.kill()
        self.assertNotEqual(self.target.leftovers(), [])
        self.target.start()
        self.assert_as_before()
        self.assert_retry_succeeds()

    def test_the_requester_is_killed(self):
        run, transfer = self.stream()
        run.send(signal.SIGKILL)
        self.siphon("watch", transfer["id"], f"{self.target.address}/")
        self.assert_copied()
        self.assert_source_untouched()
        self.assert_nothing_left()

    def test_the_requester_is_interrupted(self):
        run, transfer = self.stream()
        run.send(signal.SIGINT)
        ran = run.wait()
        self.assertEqual(ran.code, INTERRUPTED, str(ran))
        self.assertIn("goes on", ran.stderr)
        self.assertEqual(ran.document["going_on"], [transfer["id"]])
        watched = self.siphon("watch", transfer["id"], f"{self.target.address}/")
        receipt = watched.document["extents"][0]["receipt"]
        self.assert_copied()
        # Once more: the same receipt, and nothing is done again.
        inode = os.stat(self.target.folder / "e1").st_ino
        again = self.siphon("watch", transfer["id"], f"{self.target.address}/")
        self.assertEqual(again.document["extents"][0]["receipt"], receipt)
        self.assertEqual(os.stat(self.target.folder / "e1").st_ino, inode)
        self.assert_nothing_left()

    def test_a_cancel(self):
        run, transfer = self.stream()
        self.siphon("cancel", transfer["id"], f"{self.target.address}/")
        ran = run.wait()
        self.assertNotEqual(ran.code, OK, str(ran))
        self.assert_is_problem(ran.problem, "cancel")
        self.assert_as_before()
        self.assert_retry_succeeds()


class HeldProcessTest(FaultTest):
    """Processes that stop without ending: every wait has an end."""

    source_settings = target_settings = ("transfer.idle_timeout_ms=1000",)

    def test_the_source_hangs(self):
        run, transfer = self.stream()
        self.source.hold()
        problem = self.wait_problem(transfer["id"])
        self.assertEqual(problem["suspect"], "source")
        self.assertNotIn("e1", self.target.public_names())
        self.source.go_on()
        ran = run.wait()
        self.assertEqual(ran.code, OK, str(ran))
        self.assertGreater(ran.receipt["attempts"], 1)
        self.assert_copied()
        self.assert_source_untouched()
        self.assert_nothing_left()

    def test_the_target_hangs(self):
        run, _ = self.stream()
        self.target.hold()
        wait_until(lambda: self.describe(self.source)["transfers_out"] == 0, DEADLINE_S,
                   "the source gives up")
        self.assertNotIn("e1", self.target.public_names())
        self.target.go_on()
        ran = run.wait()
        self.assertEqual(ran.code, OK, str(ran))
        self.assert_copied()
        self.assert_source_untouched()
        self.assert_nothing_left()


class HungPeerTest(TwoDaemonsTest):
    """Each peer in turn stops without ending, in the middle, and stays so: within the bounds of
    docs/failure_model.md ("Waits") the others have back every thread, descriptor, port, slot and
    byte that they had for it.

    What stays for a while is gRPC's: the idle connection of the hung peer, until it is closed after
    a minute, and threads that have served its calls and wait for the next ones.
    """

    SPARE_THREADS, SPARE_DESCRIPTORS = 2, 2
    source_settings = target_settings = ("transfer.idle_timeout_ms=1000",)
    NAMES = [f"s{number:03}" for number in range(40)]

    def setUp(self):
        super().setUp()
        self.start_daemons()
        self.put("e1", EXTENT_BYTES)
        self.copy("e1")  # once, so that both have made what they keep
        self.siphon("rm", "--purge", f"posix:{self.target.folder}/e1", "--yes-i-really-mean-it",
                    secret=False)
        self.before = {daemon: self.held_by(daemon) for daemon in (self.source, self.target)}

    def held_by(self, daemon):
        """(threads, descriptors), once two looks agree."""
        last = [None]

        def same():
            now = (daemon.thread_count(), self.settled_descriptors(daemon))
            before, last[0] = last[0], now
            return now == before
        wait_until(same, DEADLINE_S, "a steady number of threads and descriptors")
        return last[0]

    def assert_has_all_back(self, daemon):
        left = ["not looked"]

        def back():
            daemon.idle_descriptors = self.before[daemon][1] + self.SPARE_DESCRIPTORS
            left[:] = self._busy(daemon)
            threads = daemon.thread_count()
            if threads > self.before[daemon][0] + self.SPARE_THREADS:
                left.append(f"{threads} threads, {self.before[daemon][0]} before")
            if daemon is self.target:
                left.extend(f"port {p} listens" for p in listening(self.data_ports))
            return not left
        with contextlib.suppress(AssertionError):
            wait_until(back, DEADLINE_S, "all is back")
        self.assertEqual(left, [], daemon.log_tail())

    def stream(self):
        run = self.start_copy("e1", *SLOW)
        self.wait_streaming(run, self.random.randrange(1, EXTENT_BYTES * 6 // 10))
        return run

    def test_a_hung_source_keeps_nothing_of_the_target(self):
        run = self.stream()
        self.source.hold()
        run.send(signal.SIGKILL)  # or it would try again
        self.assert_has_all_back(self.target)
        self.source.go_on()
        self.assert_has_all_back(self.source)

    def test_a_hung_target_keeps_nothing_of_the_source(self):
        run = self.stream()
        self.target.hold()
        run.send(signal.SIGKILL)
        self.assert_has_all_back(self.source)
        self.target.go_on()
        self.assert_has_all_back(self.target)

    def test_a_requester_that_does_not_read_keeps_nothing(self):
        with concurrent.futures.ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda name: self.put(name, 8000), self.NAMES))
        run = self.start([SIPHON, "copy", *(f"{self.source.address}/{n}" for n in self.NAMES),
                          f"{self.target.address}/", "--bwlimit", "64K", "-f", "json",
                          "--secret-file", self.secret])
        wait_until(lambda: run.ended() or len(self.target.public_names()) > 2, DEADLINE_S,
                   "some of them are public")
        self.assertFalse(run.ended(), "over before it was stopped")
        run.send(signal.SIGSTOP)
        # The copy goes on without it.
        wait_until(lambda: len(self.target.public_names()) > len(self.NAMES), DEADLINE_S,
                   "all of them are public")
        self.assert_has_all_back(self.target)
        self.assert_has_all_back(self.source)
        run.send(signal.SIGCONT)
        ran = run.wait()
        self.assertEqual(ran.code, OK, str(ran))
        self.assertEqual(len(ran.document["extents"]), len(self.NAMES))
        for extent in ran.document["extents"]:
            self.assertIsNotNone(extent["receipt"], extent)


class WireFaultTest(FaultTest):
    """A proxy between the two ends of the lanes."""

    target_settings = ("transfer.idle_timeout_ms=1500",)

    def setUp(self):
        super().setUp()
        self.proxy = self.start_proxy()

    def fault(self, action, part="payload", at=None, **more):
        if at is None:
            at = self.random.randrange(EXTENT_BYTES)
        return self.proxy.add(Fault(action, part, at, **more))

    def run_with(self, fault, code):
        """A fast copy that meets the fault."""
        ran = self.start_copy("e1").wait()
        self.assertTrue(fault.fired.is_set(), f"the fault never struck: {fault}")
        self.assertEqual(ran.code, code, str(ran))
        return ran

    def mended(self, fault):
        """A copy that meets the fault, tells of it, and succeeds at the next attempt."""
        ran = self.run_with(fault, OK)
        self.assertEqual(ran.receipt["attempts"], 2, str(ran))
        # Both tries carry one id: the device tells of the last one, the command of the first.
        told = [t["problem"] for t in self.transfers("--all")
                if t["id"] == ran.receipt["transfer_id"]]
        self.assertEqual(told, [None])
        again = re.findall(r"trying 1 extent again: (.*)", ran.stderr)
        self.assertEqual(len(again), 1, str(ran))
        self.assert_copied()
        self.assert_source_untouched()
        self.assert_nothing_left()
        return again[0]

    def test_a_proxy_alone_changes_nothing(self):
        self.assert_retry_succeeds("--lanes", "3")
        self.assertEqual(len(self.proxy.lanes), 3)

    def test_one_bit_flips_in_a_payload(self):
        fault = self.fault("flip", bit=self.random.randrange(8))
        ran = self.run_with(fault, FATAL)
        self.assert_is_problem(ran.problem, "checksum mismatch", "source [0-9a-f]{8}",
                               "target [0-9a-f]{8}", "source is untouched", suspect="wire")
        self.assert_as_before()
        self.assert_retry_succeeds()

    def test_one_bit_flips_in_a_header(self):
        at, bit = self.random.randrange(64), self.random.randrange(8)
        fault = self.fault("flip", "header", at, bit=bit)
        ran = self.run_with(fault, FATAL)
        self.assert_is_problem(ran.problem, "header")
        self.assert_as_before()
        self.assert_retry_succeeds()

    def test_one_bit_flips_in_a_trailer(self):
        at, bit = self.random.randrange(8), self.random.randrange(8)
        fault = self.fault("flip", "trailer", at, bit=bit)
        ran = self.run_with(fault, FATAL)
        self.assert_is_problem(ran.problem)
        self.assert_as_before()
        self.assert_retry_succeeds()

    def test_one_bit_flips_in_the_handshake(self):
        """The ticket is not proven: denied, counted as an unproven peer."""
        fault = self.fault("flip", "handshake", self.random.randrange(HELLO_BYTES + PROOF_BYTES),
                           bit=self.random.randrange(8))
        ran = self.start_copy("e1").wait()
        self.assertTrue(fault.fired.is_set())
        # The source tries again within its attempt, or the requester with another.
        self.assertIn(ran.code, (OK, PERMISSION), str(ran))
        self.assertGreaterEqual(self.describe(self.target)["rejected_connections"], 1)
        if ran.code != OK:
            self.assert_as_before()
            self.assert_retry_succeeds()
        self.assert_copied()
        self.assert_nothing_left()

    def test_the_wire_is_cut(self):
        self.mended(self.fault("cut"))

    def test_the_stream_is_truncated(self):
        self.mended(self.fault("truncate"))

    def test_the_wire_stalls(self):
        fault = self.fault("stall")
        self.mended(fault)
        fault.release.set()

    def test_one_byte_each_second(self):
        fault = self.fault("trickle", at=self.random.randrange(EXTENT_BYTES // 2), interval_s=0.3)
        self.mended(fault)
        fault.release.set()

    def test_a_greeting_is_held_up(self):
        """The target drops a silent connection; the source tries again within its attempt."""
        fault = self.fault("stall", "handshake", self.random.randrange(HELLO_BYTES))
        ran = self.run_with(fault, OK)
        fault.release.set()
        self.assertEqual(ran.receipt["attempts"], 1)
        self.assertEqual(ran.summary["rejected_connections"], 1)
        self.assert_copied()
        self.assert_nothing_left()

    def test_the_data_path_swallows_everything(self):
        """No lane ever comes: the wait for it has an end."""
        fault, over = Fault("hole", "", 0), threading.Event()
        self.addCleanup(over.set)

        def swallow(lane):
            if lane.number == 0:
                fault.fired.set()
                over.wait()
        self.proxy.before_connect = swallow
        self.mended(fault)


class DataPortTest(FaultTest):
    """Who else may come to the data port."""

    def setUp(self):
        super().setUp()
        self.proxy = self.start_proxy()

    def knock(self, *visits):
        """Before the first lane: each visit is called with the port and must be turned away."""
        failures = []

        def before(lane):
            if lane.number > 0:
                return
            for visit in visits:
                try:
                    visit(lane.port)
                except (AssertionError, OSError) as error:
                    failures.append(f"{visit.__name__}: {error!r}")
        self.proxy.before_connect = before
        return failures

    def unproven_first(self, count, *visits):
        failures = self.knock(*visits)
        before = self.describe(self.target)["rejected_connections"]
        ran = self.copy("e1")
        self.assertEqual(failures, [])
        self.assertEqual(ran.receipt["attempts"], 1)
        self.assertEqual(ran.summary["rejected_connections"], count)
        self.assertEqual(self.describe(self.target)["rejected_connections"], before + count)
        self.assert_copied()
        self.assert_source_untouched()
        self.assert_nothing_left()

    def test_unproven_peers_come_first(self):
        def says(name, data):
            def visit(port):
                said = RawConnection(port, data).wait_closed()
                assert said == b"", f"an unproven peer was told {said!r}"
            visit.__name__ = name
            return visit
        noise = self.random.randbytes(self.random.randrange(64, 4096))
        self.unproven_first(4, says("noise", noise), says("a browser", b"GET / HTTP/1.1\r\n" * 5),
                             says("a wrong ticket", hello(self.random.randbytes(16))),
                             says("a lane too many", hello(self.random.randbytes(16), lane=999)))

    def test_a_silent_connection(self):
        def silent(port):
            assert RawConnection(port).wait_closed() == b""
        self.unproven_first(1, silent)

    def test_a_crowd_of_silent_connections(self):
        crowd = []
        self.addCleanup(lambda: [s.close() for s in crowd])

        def twenty(port):
            crowd.extend(RawConnection(port) for _ in range(20))
        self.unproven_first(20, twenty)
        self.assertTrue(all(s.wait_closed() == b"" for s in crowd))

    def test_half_a_greeting(self):
        crowd = []
        self.addCleanup(lambda: [s.close() for s in crowd])

        def half(port):
            crowd.append(RawConnection(port, hello(self.random.randbytes(16))[:40]))
        self.unproven_first(1, half)

    def test_a_ticket_of_an_earlier_transfer_is_replayed(self):
        self.put("e0", MIB)
        self.copy("e0")
        old = self.proxy.lanes[-1]
        self.assertTrue(old.proven.is_set())
        self.proxy.lanes.clear()

        def replay(port):
            unproven = RawConnection(port, old.sent_head[:HELLO_BYTES])
            assert unproven.wait_closed() == b"", "an old ticket was answered"
        self.unproven_first(1, replay)

    def test_a_lane_of_the_same_transfer_is_replayed(self):
        """The ticket is still good, the port still open; the proof is not for these nonces."""
        failures = []

        def before(lane):
            if lane.number == 0:
                return
            first = self.proxy.lanes[0]
            try:
                assert first.proven.wait(DEADLINE_S)
                unproven = RawConnection(lane.port, first.sent_head[:HELLO_BYTES])
                challenge = unproven.receive(64)
                assert challenge[:32] != first.received_head[:32], "the same nonce twice"
                unproven.send(first.sent_head[HELLO_BYTES:])
                assert unproven.wait_closed() == b""
            except (AssertionError, OSError) as error:
                failures.append(repr(error))
        self.proxy.before_connect = before
        ran = self.copy("e1", "--lanes", "2")
        self.assertEqual(failures, [])
        self.assertEqual(ran.summary["rejected_connections"], 1)
        self.assert_copied()
        self.assert_nothing_left()

    def test_nobody_connects_to_the_port_of_a_running_transfer(self):
        self.proxy.before_connect = lambda lane: None
        run, transfer = self.stream()
        port = int(transfer["progress"]["data_endpoint"].rpartition(":")[2])
        with self.assertRaises(ConnectionRefusedError):
            RawConnection(port)
        self.assertEqual(run.wait().code, OK)
        self.assert_copied()


class ResourceTest(FaultTest):
    """What runs out."""

    def test_every_data_port_is_taken(self):
        taken = [socket.create_server(("127.0.0.1", port)) for port in self.data_ports]
        self.addCleanup(lambda: [s.close() for s in taken])
        ran = self.copy("e1", code=LIMIT)
        self.assert_is_problem(ran.problem, "port", str(self.data_ports[0]), suspect="target")
        taken.pop(self.random.randrange(len(taken))).close()
        self.assertEqual(set(self.target.public_names()), {"warm"})
        self.assertEqual(self.copy("e1").code, OK)
        self.assert_copied()

    def test_the_target_has_no_descriptors_left(self):
        spare = self.random.randrange(3, 6)  # enough to be asked, not enough to do it
        before = two_daemons.limit_descriptors(self.target.pid,
                                               self.target.descriptor_count() + spare)
        ran = self.copy("e1", code=None)
        two_daemons.limit_descriptors(self.target.pid, before)
        if ran.code != OK:
            self.assertIsNotNone(ran.problem, str(ran))
            self.assert_as_before()
            self.assert_retry_succeeds()
        self.assert_copied()

    def test_the_target_disk_is_full(self):
        self.target.kill()
        mount(self.target.folder, EXTENT_BYTES // 2)
        self.addCleanup(subprocess.run, ["umount", "-l", self.target.folder], check=False)
        self.target.start()
        ran = self.copy("e1", code=LIMIT)
        self.assert_is_problem(ran.problem, "no space left", suspect="target")
        self.assert_source_untouched()
        self.assert_nothing_left()
        self.assertEqual(set(self.target.public_names()), set())
        again = self.copy("e1", code=LIMIT)  # says again why it cannot
        self.assert_is_problem(again.problem, "no space left", suspect="target")
        mount(self.target.folder, EXTENT_BYTES * 2, "remount,")
        self.assert_retry_succeeds()
        self.target.kill()


class StoreFaultTest(FaultTest):
    """Others at work in the same folders, and rot."""

    def flip(self, name, at, bit):
        with open(self.source.folder / name, "r+b") as file:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 1 << bit]))

    def test_one_bit_is_rotten_at_the_source(self):
        at, bit = self.random.randrange(EXTENT_BYTES), self.random.randrange(8)
        self.flip("e1", at, bit)
        ran = self.copy("e1", code=FATAL)
        self.assert_is_problem(ran.problem, "rot at the source|source", suspect="source")
        self.assert_nothing_left()
        self.assertEqual(set(self.target.public_names()), {"warm"})
        verified = self.siphon("verify", f"{self.source.address}/e1", code=None)
        self.assertNotEqual(verified.code, OK, str(verified))
        self.flip("e1", at, bit)
        self.assert_retry_succeeds()

    def test_the_source_file_is_cut_short(self):
        whole = (self.source.folder / "e1").read_bytes()
        os.truncate(self.source.folder / "e1", self.random.randrange(len(whole)))
        ran = self.copy("e1", code=None)
        self.assertNotEqual(ran.code, OK, str(ran))
        self.assert_is_problem(ran.problem, suspect="source")
        self.assert_nothing_left()
        self.assertEqual(set(self.target.public_names()), {"warm"})
        (self.source.folder / "e1").write_bytes(whole)
        self.assert_retry_succeeds()

    def test_the_source_is_trashed_meanwhile(self):
        """The reader keeps what it has pinned: the copy ends well, or says that the source went."""
        run, _ = self.stream()
        removed = self.start([SIPHON, "rm", f"posix:{self.source.folder}/e1",
                              "--yes-i-really-mean-it"]).wait()
        self.assertEqual(removed.code, OK, str(removed))
        ran = run.wait()
        if ran.code == OK:
            self.assert_copied()
        else:
            self.assert_is_problem(ran.problem, suspect="source")
            self.assertEqual(set(self.target.public_names()), {"warm"})
        self.assert_nothing_left()

    def test_the_name_is_taken_at_the_target_meanwhile(self):
        # Slow enough that a put under a sanitizer, beside others, is the first to publish.
        run = self.start([SIPHON, *self.copy_words("e1", "--bwlimit", "1M"), "-f",
                          "json", "--secret-file", self.secret])
        self.wait_streaming(run, self.random.randrange(1, EXTENT_BYTES // 4))
        content = self.dir / "other"
        content.write_bytes(self.random.randbytes(MIB))
        put = self.start([SIPHON, "put", f"posix:{self.target.folder}/e1",
                          content]).wait()
        self.assertEqual(put.code, OK, str(put))
        other = sha256_of(self.target.folder / "e1")
        ran = run.wait()
        self.assertEqual(ran.code, FATAL, str(ran))
        self.assert_is_problem(ran.problem, "already|generation|changed", suspect="target")
        self.assertEqual(sha256_of(self.target.folder / "e1"), other)
        self.assert_source_untouched()
        self.assert_nothing_left()
        self.copy("e1", "--replace", "--yes-i-really-mean-it")  # the other one goes to the trash
        self.assert_copied()


class TrashTest(FaultTest):
    """What a folder's daemon does to its trash by itself."""

    def trash(self):
        ran = self.siphon("trash", "ls", f"posix:{self.target.folder}/", secret=False)
        return ran.document["entries"]

    def test_a_folders_daemon_empties_its_trash_when_the_grace_time_is_over(self):
        self.copy("e1")
        self.siphon("rm", f"posix:{self.target.folder}/e1", "--yes-i-really-mean-it", secret=False)
        self.target.restart()
        self.assertEqual([e["extent"].rpartition("/")[2] for e in self.trash()], ["e1"])
        self.target.settings.append("trash.grace_hours=0")
        self.target.restart()
        wait_until(lambda: self.trash() == [], DEADLINE_S, "an empty trash")
        self.assertEqual(self.target.leftovers(), [])
        self.assertEqual(set(self.target.public_names()), {"warm"})  # what is current stays


def hello(ticket_id, lane=0):
    """The first message of a source, as docs/wire_format.md has it."""
    return struct.pack("<4sHH16s32s8s", b"SPHL", 1, lane, ticket_id, os.urandom(32), bytes(8))


def mount(folder, size_bytes, remount=""):
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"{remount}size={size_bytes}", "siphon-test",
                    folder], check=True)


if __name__ == "__main__":
    two_daemons.main()
