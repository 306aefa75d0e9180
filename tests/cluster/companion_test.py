#!/usr/bin/python3
"""The companion beside a real ceph-osd: what it is born with, and that it lives as its OSD does.

All from outside: /proc, signals, the OSD map, the stock tools.
"""

import os
import pathlib
import re
import signal
import subprocess
import tempfile
import unittest

import harness
import hostile_peer  # after harness, which knows where it is
from cli import NOTHING_TO_DO, NOT_FIT, OK, REPO, SIPHOND, TEMPORARY
from formats import MIB
from ports import listening_ports
from processes import descriptors, is_running, read_proc
from waiting import wait_until

TEST_LIB_DIR = pathlib.Path(os.environ.get(
    "SIPHON_TEST_LIB_DIR", REPO / "build" / "release" / "testlib"))
WITNESS = TEST_LIB_DIR / "companion_witness"
EXIT_CONFIG = 78

# What a companion at work may hold beyond the five descriptors it was given.
OWN = re.compile(r"^(socket:|pipe:|anon_inode:(\[eventfd\]|\[eventpoll\]|\[timerfd\])"
                 r"|.*/osd\.\d+/siphon\.journal(-wal|-shm|\.lock)?$)")


class Companion(harness.ClusterTest):

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.cluster.create_pool("a")
        cls.cluster.create_pool("b")
        cls.cluster.put("a/e", 12 * MIB, 1)
        cls.copies = 0

    def assert_copy_works(self):
        type(self).copies += 1
        target = f"b/copy-{self.copies}"

        def copied():
            # A daemon that has just come up may still be away for a moment: exit code 5 says so.
            ran = self.cluster.siphon("copy", "a/e", target, check=False)
            self.assertIn(ran.code, (OK, TEMPORARY, NOT_FIT,
                                     NOTHING_TO_DO), str(ran))
            return ran.code in (OK, NOTHING_TO_DO)
        wait_until(copied, 120, "a copy that works")
        self.assertEqual(harness.Extent(self.cluster, "b", target[2:]).read(),
                         harness.Extent(self.cluster, "a", "e").read())

    def osd_entry(self, osd):
        dump = self.cluster.ceph("osd", "dump", as_json=True)
        return next(entry for entry in dump["osds"] if entry["osd"] == osd)

    # ---- birth

    def test_a_companion_is_born_with_five_descriptors_and_clean_signals(self):
        c, osd = self.cluster, 0
        program = c.dir / "classes" / "siphond"
        program.with_name("siphond.real").symlink_to(os.readlink(program))
        program.unlink()
        program.symlink_to(WITNESS)
        try:
            old = c.companion_pid(osd)
            os.kill(old, signal.SIGKILL)
            report = wait_until(lambda: next(c.dir.glob("witness.[0-9]*[0-9]"), None),
                                what="the witness's report")
        finally:
            program.unlink()
            program.with_name("siphond.real").rename(program)
        lines = report.read_text().splitlines()
        held = {}
        for line in lines:
            if line.startswith("fd "):
                _, number, what = line.split(" ", 2)
                held[int(number)] = what
        self.assertEqual(sorted(held), [0, 1, 2, 3, 4], lines)
        self.assertEqual(held[0], "/dev/null")
        for number in (1, 2):  # the OSD's own output, which is where its daemon logs to
            self.assertIn(held[number], ("/dev/null", str(c.dir / "log" / f"osd.{osd}.out")))
        self.assertRegex(held[3], r"^/memfd:siphon-region")
        self.assertRegex(held[4], r"^socket:")
        self.assertEqual([line for line in lines if line.startswith(("blocked", "handled"))], [])
        pid = int(report.name.rpartition(".")[2])
        self.assertIn(f"pgid {pid}", lines)
        # The witness becomes the real one, which then serves.
        wait_until(lambda: c.companion_pid(osd), what="the companion")
        self.assert_copy_works()

    def test_a_companion_at_work_holds_nothing_of_the_osds(self):
        c = self.cluster
        self.assert_copy_works()
        for osd, pid in c.wait_companions().items():
            held = descriptors(pid)
            self.assertEqual(held[0], "/dev/null")
            self.assertRegex(held[3], r"^/memfd:siphon-region")
            self.assertRegex(held[4], r"^socket:")
            others = {n: what for n, what in held.items() if n > 4 and not OWN.match(what)}
            self.assertEqual(others, {}, f"osd.{osd}'s companion {pid}")
            # Not the data, by any number; a descriptor of the block device would hold its lock.
            for what in held.values():
                self.assertNotRegex(what, r"/block|\.asok|/log/.*\.log$")

    @unittest.skipIf(os.environ.get("SIPHON_SANITIZER"), "a sanitizer's shadow counts as data")
    def test_its_data_limit_is_set(self):
        for pid in self.cluster.wait_companions().values():
            limits = read_proc(pid, "limits").decode()
            soft = re.search(r"Max data size\s+(\S+)", limits)[1]
            self.assertNotEqual(soft, "unlimited")
            self.assertLessEqual(int(soft), 2 << 30)

    def test_it_listens_on_loopback_in_its_range_and_on_no_data_port(self):
        c = self.cluster
        pids = c.wait_companions()
        listening = subprocess.run(["ss", "-ltnpH"], check=True, capture_output=True, text=True,
                                   timeout=60).stdout
        for pid in pids.values():
            own = [line.split()[3] for line in listening.splitlines() if f"pid={pid}," in line]
            self.assertEqual(len(own), 1, own)
            address, _, port = own[0].rpartition(":")
            self.assertIn(address, ("127.0.0.1", "[::ffff:127.0.0.1]"))
            self.assertIn(int(port), range(c.control_ports[0], c.control_ports[1] + 1))
        self.assertEqual(listening_ports(*c.data_ports), [])

    def test_the_service_map_shows_every_daemon(self):
        c = self.cluster

        def all_there():
            daemons = c.ceph("service", "dump", as_json=True)["services"].get("siphon", {})
            return {"osd.0", "osd.1", "osd.2"} <= set(daemons.get("daemons", {}))
        wait_until(all_there, what="three daemons in the service map")
        wait_until(lambda: re.search(r"siphon:\s+3 daemons active", c.ceph("-s")),
                   what="'siphon: 3 daemons active' in ceph -s")

    # ---- life and death

    def test_a_killed_companion_is_back_and_the_osd_has_not_noticed(self):
        c = self.cluster
        for osd in range(c.osds):
            with self.subTest(osd=osd):
                osd_pid, entry = c.osd_pid(osd), self.osd_entry(osd)
                old = wait_until(lambda osd=osd: c.companion_pid(osd), what="a companion")
                os.kill(old, signal.SIGKILL)
                wait_until(lambda osd=osd, old=old: c.companion_pid(osd) not in (None, old), 30,
                           "another companion")
                self.assertEqual(c.osd_pid(osd), osd_pid)
                after = self.osd_entry(osd)
                self.assertEqual((after["up"], after["up_from"], after["down_at"]),
                                 (1, entry["up_from"], entry["down_at"]))
        c.wait_companions()
        self.assert_copy_works()
        self.assertEqual([self.osd_entry(osd)["up"] for osd in range(c.osds)], [1] * c.osds)

    def test_it_goes_with_its_osd_however_that_ends_and_comes_back_with_it(self):
        c = self.cluster
        for osd, number in enumerate((signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV)):
            with self.subTest(signal=number.name):
                osd_pid = c.osd_pid(osd)
                old = wait_until(lambda osd=osd: c.companion_pid(osd), what="a companion")
                os.kill(osd_pid, number)
                wait_until(lambda pid=osd_pid: not is_running(pid), what="the OSD's end")
                wait_until(lambda pid=old: not is_running(pid), what="the companion's end")
                c.tool("start", f"osd.{osd}")
                wait_until(lambda osd=osd: c.companion_pid(osd), what="a new companion")
        c.wait_companions()
        self.assert_copy_works()

    # ---- unproven peers

    def test_a_flood_of_unproven_peers_at_an_osds_companion_stops_no_copy_and_no_osd(self):
        """At every companion's control port and the first data ports, while extents are copied."""
        c = self.cluster
        c.put("a/e-secret-name", 4 * MIB, 3)
        content = harness.Extent(c, "a", "e-secret-name").read()
        self.assert_copy_works()
        pids, osds = c.wait_companions(), [c.osd_pid(osd) for osd in range(c.osds)]
        before = [hostile_peer.memory(pid, "VmRSS") for pid in pids.values()]

        def copy(number):
            c.siphon("copy", "a/e-secret-name", f"b/t{number}", "--bwlimit", "4M")
            self.assertEqual(harness.Extent(c, "b", f"t{number}").read(), content)
        copies, heard, counts = hostile_peer.flooded(listening_ports(*c.control_ports),
                                                 range(c.data_ports[0], c.data_ports[0] + 20), copy)
        peaks = [hostile_peer.memory(pid) for pid in pids.values()]
        print(f"{copies} copies; {counts}; RSS before {[b // MIB for b in before]}, "
              f"at most {[p // MIB for p in peaks]} MiB", flush=True)
        self.assertEqual(c.wait_companions(), pids)
        self.assertEqual([c.osd_pid(osd) for osd in range(c.osds)], osds)
        self.assertGreater(copies, 0)
        self.assertGreater(len(heard), 0)
        self.assertNotIn(b"e-secret-name", heard)
        for peak in peaks:
            self.assertLess(peak, hostile_peer.BOUND_BYTES)
        self.assert_nothing_left("a", "b")


class Configuration(unittest.TestCase):
    """What siphond refuses to start with. Needs no cluster."""

    def siphond(self, *arguments, text="", environment=None):
        with tempfile.TemporaryDirectory(prefix="siphon-config-") as folder:
            config = pathlib.Path(folder, "siphond.toml")
            config.write_text(text)
            os.mkdir(f"{folder}/store")
            return subprocess.run(
                [SIPHOND, "--config", config, "--store", f"posix:{folder}/store",
                 *arguments], capture_output=True, text=True, timeout=60, check=False,
                env={**os.environ, **(environment or {})})

    @classmethod
    def setUpClass(cls):
        harness.require_binaries()

    def test_plain_text_beyond_loopback_is_refused_at_start(self):
        for address, why in (("0.0.0.0", "wildcard"), ("[::]", "wildcard"),
                             ("192.0.2.1", "not loopback and no TLS files .*refused")):
            for check in ((), ("--check-config",)):
                with self.subTest(address=address, check=check):
                    ran = self.siphond("--listen", f"{address}:7999", *check)
                    self.assertEqual(ran.returncode, EXIT_CONFIG, ran)
                    self.assertRegex(ran.stderr, why)

    def test_an_unknown_key_is_refused_and_named(self):
        ran = self.siphond("--check-config", text='[control]\nlisden = "127.0.0.1:7999"\n')
        self.assertEqual(ran.returncode, EXIT_CONFIG, ran)
        self.assertIn("unknown setting control.lisden", ran.stderr)

    def test_a_bad_value_is_refused_with_its_key_and_origin(self):
        for text, words in (('[data]\naddress = "0.0.0.0"\n', "data.address (from file)"),
                            ("[transfer]\nlanes = 0\n", "transfer.lanes (from file)"),
                            ("[transfer\nlanes = 1\n", "line 1")):
            with self.subTest(text=text):
                ran = self.siphond("--check-config", text=text)
                self.assertEqual(ran.returncode, EXIT_CONFIG, ran)
                self.assertIn(words, ran.stderr)
        ran = self.siphond("--check-config", environment={"SIPHOND_TRANSFER_LANES": "many"})
        self.assertEqual(ran.returncode, EXIT_CONFIG, ran)
        self.assertIn("transfer.lanes (from environment)", ran.stderr)

    def test_check_config_shows_every_setting_and_its_origin(self):
        ran = self.siphond("--check-config", "--set", "transfer.writers=3",
                           text="[transfer]\nlanes = 2\nwriters = 5\n",
                           environment={"SIPHOND_LOG_LEVEL": "debug"})
        self.assertEqual(ran.returncode, 0, ran)
        for line in ('transfer.lanes = "2"  # file', 'transfer.writers = "3"  # flag',
                     'log.level = "debug"  # environment',
                     'data.address = "127.0.0.1"  # default'):
            self.assertIn(line, ran.stdout)


if __name__ == "__main__":
    harness.main()
