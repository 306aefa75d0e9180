#!/usr/bin/python3
"""The proof: 1 GiB from pool to pool, past Ceph's messenger and past gRPC, byte for byte.

Every number comes from outside the code under test: the stock `rados` and `ceph` tools, the OSDs'
own counters, and the kernel's count of each TCP connection, taken when it destroys the socket
(`ss --events`, which needs CAP_NET_ADMIN).
"""

import concurrent.futures
import hashlib
import re
import socket
import subprocess
import threading

import harness
from formats import MIB, content_of, sha256_of
from ports import listening_ports
from processes import descriptors, thread_count
from waiting import DEADLINE_S, wait_until

EXTENTS = 4
EXTENT_BYTES = 256 * MIB
SMALL_BYTES = 5 * MIB


class KernelTcpCounts:
    """What the kernel counted for every TCP connection that ended while this was open."""

    LINE = re.compile(r"\s(\S+):(\d+)\s+(\S+):(\d+)\s.*")

    def __init__(self):
        self._ended = []  # (local port, peer port, received, acknowledged)
        self._changed = threading.Condition()
        # Without stdbuf the lines would come in blocks of 4 KiB, the last ones never.
        self._process = subprocess.Popen(["stdbuf", "-oL", "ss", "-EtinHO"],
                                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.settle()

    def _read(self):
        for line in self._process.stdout:
            found = self.LINE.search(line)
            if not found:
                continue
            counts = dict(re.findall(r"(bytes_received|bytes_acked):(\d+)", line))
            with self._changed:
                self._ended.append((int(found[2]), int(found[4]),
                                    int(counts.get("bytes_received", 0)),
                                    int(counts.get("bytes_acked", 0))))
                self._changed.notify_all()

    def settle(self):
        """Returns when everything that ended before the call has been counted: makes a connection
        of its own and waits for the news of its end."""
        def probe():
            with socket.create_server(("127.0.0.1", 0)) as server:
                port = server.getsockname()[1]
                with socket.create_connection(("127.0.0.1", port)) as client:
                    server.accept()[0].close()
                    client.recv(1)
            with self._changed:
                return self._changed.wait_for(
                    lambda: any(port in ended[:2] for ended in self._ended), 1)
        wait_until(probe, what="ss --events to tell of ended connections")

    def at_ports(self, first, last):
        """(received, acknowledged) bytes of the connections accepted at ports of [first, last]."""
        with self._changed:
            ours = [ended for ended in self._ended if first <= ended[0] <= last]
        return sum(e[2] for e in ours), sum(e[3] for e in ours)

    def close(self):
        self._process.kill()
        self._process.wait()
        self._reader.join(DEADLINE_S)
        self._process.stdout.close()
        self._process.stderr.close()


def live_bytes_at_ports(first, last):
    """The same for connections that are still open."""
    text = subprocess.run(["ss", "-tinHO"], check=True, capture_output=True, text=True,
                          timeout=DEADLINE_S).stdout
    total = 0
    for line in text.splitlines():
        found = KernelTcpCounts.LINE.search(line)
        if found and first <= int(found[2]) <= last:
            total += sum(int(n) for n in re.findall(r"bytes_(?:received|acked):(\d+)", line))
    return total


class Proof(harness.ClusterTest):

    # Pools of size 1: no replication, so the messengers have nothing of their own to carry.
    cluster_options = {"size": 1, "options": ("osd_max_scrubs=4", "osd_scrub_sleep=0")}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        c = cls.cluster
        for pool in ("source", "target"):
            c.create_pool(pool, size=1)
        # Extents whose two ends are different OSDs.
        cls.names = []
        for number in range(200):
            name = f"volume-{number}"
            if c.place("source", name)[0] != c.place("target", name)[0]:
                cls.names.append(name)
            if len(cls.names) == EXTENTS:
                break
        assert len(cls.names) == EXTENTS
        cls.files = {name: c.put(f"source/{name}", EXTENT_BYTES, seed)
                     for seed, name in enumerate(cls.names, 1)}

    def test_a_gibibyte_moves_out_of_band_and_arrives_byte_for_byte(self):
        c = self.cluster
        self.warm_up()
        before = self.resources()
        kernel = KernelTcpCounts()
        self.addCleanup(kernel.close)
        control_before = live_bytes_at_ports(*c.control_ports)
        messengers_before = c.messenger_received_bytes()

        ran = c.siphon("copy", *(f"source/{name}" for name in self.names), "target", timeout=600)

        messengers = c.messenger_received_bytes() - messengers_before
        kernel.settle()
        self.assert_receipts(ran)
        moved = ran.document["summary"]["bytes"]
        self.assertGreaterEqual(moved, 1 << 30)
        with self.subTest("past the messenger"):
            self.assertLess(messengers, 0.02 * moved)
        with self.subTest("the bytes went over the data port, once"):
            received, _ = kernel.at_ports(*c.data_ports)
            self.assertGreaterEqual(received, moved)
            self.assertLessEqual(received, 1.02 * moved)
        with self.subTest("past gRPC"):
            control = (sum(kernel.at_ports(*c.control_ports)) +
                       live_bytes_at_ports(*c.control_ports) - control_before)
            self.assertLess(control, 0.001 * moved)
            self.assertGreater(control, 0)
        print(f"\n  {moved} bytes copied; the kernel counted {received} on the data ports and "
              f"{control} on gRPC; all messengers together received {messengers}")
        with self.subTest("no data port while idle"):
            self.assertEqual(listening_ports(*c.data_ports), [])
        with self.subTest("descriptors and threads are back"):
            self.assert_resources_back(before)
        self.assert_identical()
        self.assert_nothing_left("source", "target")
        self.assert_deep_scrub_is_clean()

    # ---- steps

    def warm_up(self):
        """Copies of small extents between all devices, so that what is opened once is open."""
        c = self.cluster
        for number in range(12):
            c.put(f"source/warm-{number}", SMALL_BYTES, 100)
        names = [f"source/warm-{number}" for number in range(12)]
        c.siphon("copy", *names, "target")
        c.siphon("copy", *names, "target", "--replace", "--yes-i-really-mean-it")
        c.siphon("rm", "--purge", "--yes-i-really-mean-it",
                 *(f"target/warm-{n}" for n in range(12)), *names)

    def assert_receipts(self, ran):
        summary = ran.document["summary"]
        self.assertEqual(summary["fallback_parts"], 0)
        self.assertEqual(summary["rejected_connections"], 0)
        self.assertEqual({e["status"] for e in ran.extents}, {"copied"})
        for extent in ran.extents:
            receipt = extent["receipt"]
            self.assertEqual(receipt["fallback_parts"], 0)
            self.assertNotEqual(receipt["source_device"], receipt["target_device"])
            self.assertEqual(receipt["source_crc32"], receipt["target_crc32"])
            self.assertEqual(receipt["source_crc32"], receipt["header"]["crc32"])
            head = harness.read_head(self.cluster, "target", receipt["target_extent"])
            self.assertEqual(head.current, receipt["private_id"])
            self.assertEqual(f"{head.crc32:08x}", receipt["target_crc32"])

    def assert_identical(self):
        """Read back with the stock tool: both ends are the same, and hold the file's bytes."""
        for name in self.names:
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                ends = [pool.submit(harness.Extent(self.cluster, where, name).read, stock_tool=True)
                        for where in ("source", "target")]
                source, target = (end.result() for end in ends)
            self.assertTrue(source == target, f"{name}: the two ends differ")
            content = hashlib.sha256(content_of(target)).hexdigest()
            self.assertEqual(content, sha256_of(self.files[name]), name)

    def assert_deep_scrub_is_clean(self):
        c = self.cluster
        for pool in ("source", "target"):
            pgs = self.pgs(pool)
            before = {pg["pgid"]: pg["last_deep_scrub_stamp"] for pg in pgs}
            c.ceph("osd", "pool", "deep-scrub", pool)

            def done(pool=pool, before=before):
                return all(pg["last_deep_scrub_stamp"] != before[pg["pgid"]]
                           and pg["state"] == "active+clean" for pg in self.pgs(pool))
            wait_until(done, 240, f"the deep scrub of {pool}", poll_s=0.5)
            self.assertEqual(c.rados_tool("list-inconsistent-pg", pool).strip(), b"[]")
            for pg in self.pgs(pool):
                self.assertEqual(pg["stat_sum"]["num_scrub_errors"], 0, pg["pgid"])

    def pgs(self, pool):
        return self.cluster.ceph("pg", "ls-by-pool", pool, as_json=True)["pg_stats"]

    def resources(self):
        """{process: (descriptors that are no sockets, threads, sockets)}."""
        c, found = self.cluster, {}
        for osd, companion in c.wait_companions().items():
            for name, pid in ((f"osd.{osd}", c.osd_pid(osd)), (f"siphond.{osd}", companion)):
                held = descriptors(pid).values()
                sockets = sum(what.startswith("socket:") for what in held)
                found[name] = (len(held) - sockets, thread_count(pid), sockets)
        return found

    def assert_resources_back(self, before):
        """Sockets of Ceph's own connections come and go with the peers a daemon talks to: they may
        be as many as there are daemons of the cluster, in both directions, more than before."""
        slack = 2 * (self.cluster.osds + 2)
        seen = {}

        def back():
            seen.update(self.resources())
            return all(seen[name][0] <= others and seen[name][1] <= threads
                       and seen[name][2] <= sockets + slack
                       for name, (others, threads, sockets) in before.items())
        try:
            wait_until(back, DEADLINE_S, "back", poll_s=0.5)
        except AssertionError:
            self.assertEqual(before, seen)


if __name__ == "__main__":
    harness.main()
