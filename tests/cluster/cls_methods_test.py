#!/usr/bin/python3
"""The object class "siphon" in real OSDs, from outside: librados on one side, the shared region on
the other.

The test is the class's client and plays the companion's part: it maps the region that the OSD
holds, arms the last descriptors over the last bytes of the data area, and looks at what the class
left there. Nothing else may use the cluster's Siphon meanwhile.

SIPHON_TEST_CONF names the ceph.conf of a running cluster of three OSDs with the plugin, made by
vstart-scripts/cluster (a test kills an OSD and has it started again). No sleeps: everything
that takes time is polled for, with a deadline.
"""

import contextlib
import errno
import json
import mmap
import os
import pathlib
import random
import re
import secrets
import signal
import struct
import subprocess
import sys
import time
import unittest

import rados

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from formats import (ARMED, BOOT_NONCE_AT, COPYING, DATA, DATA_BYTES_AT, DESCRIPTORS,  # noqa: E402
                     DESCRIPTOR_BYTES, DESCRIPTOR_COUNT, DONE, FITS, FREE, GRANTS, GRANT_BYTES,
                     GRANT_COUNT, HELLO_SEQ_AT, LAYOUT_AT, METHODS, PROBE_ARMED_AT, READ,
                     STALE_REFUSED_AT, TRANSITIONS, UNPROVEN, WRITE, Head, ceph_crc32c,
                     grant_name, grant_request, key_id)
from processes import companion_of, descriptors, osd_pids, parent_of, region_of  # noqa: E402
from waiting import wait_until  # noqa: E402

CONF = os.environ.get("SIPHON_TEST_CONF", "")
CLUSTER_TOOL = pathlib.Path(__file__).resolve().parents[2] / "vstart-scripts" / "cluster"
DEADLINE_S = 30
# Kinds of transitions.
RESERVE, PUBLISH, CONDEMN, FORGET, SEAL, RESTORE, DISCARD = range(1, 8)
ANY_GENERATION = 2**64 - 1
SLOT_BYTES = 4 << 20


class Region:
    """The region of one OSD, mapped as the companion would."""

    def __init__(self, osd_pid):
        fd = os.open(region_of(osd_pid), os.O_RDWR)
        self.map = mmap.mmap(fd, os.fstat(fd).st_size)
        self.fd = fd

    def close(self):
        self.map.close()
        os.close(self.fd)

    def get(self, fmt, offset):
        return struct.unpack_from("<" + fmt, self.map, offset)[0]

    @property
    def boot_nonce(self):
        return self.get("Q", BOOT_NONCE_AT)

    @property
    def data_bytes(self):
        return self.get("Q", DATA_BYTES_AT)

    @property
    def stale_refused(self):
        return self.get("Q", STALE_REFUSED_AT)

    @property
    def layout(self):
        return self.get("I", LAYOUT_AT)

    def announce_probe(self, ticket):
        struct.pack_into("<I", self.map, PROBE_ARMED_AT, 0)
        struct.pack_into("<16s", self.map, PROBE_ARMED_AT + 4, ticket)
        struct.pack_into("<I", self.map, PROBE_ARMED_AT, 1)

    def grants(self):
        """The entries that are ready and not expired."""
        now_ms = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 10**6
        found = []
        for i in range(GRANT_COUNT):
            at = GRANTS + i * GRANT_BYTES
            state, _seq, nonce, pool, expires_ms, right, length, nspace = struct.unpack_from(
                "<II16sqQII128s", self.map, at)
            if state == 2 and expires_ms > now_ms:
                found.append((nonce, pool, nspace[:length].decode(), right,
                              (expires_ms - now_ms) / 1000))
        return found

    def word(self, index):
        word = self.get("Q", DESCRIPTORS + index * DESCRIPTOR_BYTES)
        return word >> 8, word & 0xFF

    def set_word(self, index, epoch, state):
        struct.pack_into("<Q", self.map, DESCRIPTORS + index * DESCRIPTOR_BYTES,
                         epoch << 8 | state)


class Slot:
    """An armed descriptor and its buffer."""

    def __init__(self, region, kind, index=DESCRIPTOR_COUNT - 1, buffer_bytes=SLOT_BYTES):
        self.region, self.index, self.buffer_bytes = region, index, buffer_bytes
        self.ticket = secrets.token_bytes(16)
        self.offset = region.data_bytes - SLOT_BYTES
        self.epoch = region.word(index)[0] + 1
        self.fill(self.offset, buffer_bytes, kind)
        region.set_word(index, self.epoch, ARMED)

    def fill(self, offset, buffer_bytes, kind):
        struct.pack_into("<16sQII", self.region.map,
                         DESCRIPTORS + self.index * DESCRIPTOR_BYTES + 8, self.ticket, offset,
                         buffer_bytes, kind)

    @property
    def state(self):
        epoch, state = self.region.word(self.index)
        return state if epoch == self.epoch else None

    def read(self, length):
        return self.region.map[DATA + self.offset:DATA + self.offset + length]

    def write(self, data):
        self.region.map[DATA + self.offset:DATA + self.offset + len(data)] = data

    def request(self, length, object_offset=0, crc=0, **wrong):
        field = dict(version=1, descriptor=self.index, nonce=self.region.boot_nonce,
                     epoch=self.epoch, ticket=self.ticket)
        field.update(wrong)
        return struct.pack("<IIQQ16sQIII4x", field["version"], field["descriptor"],
                           field["nonce"], field["epoch"], field["ticket"], object_offset,
                           length, crc, 0)


def transition(kind, private_id, replace=False, is_open=False, inline=False,
               generation=ANY_GENERATION, extent_bytes=0, crc=0, part_bytes=1 << 20):
    flags = replace | is_open << 1 | inline << 2
    return struct.pack("<IBBH16sQQQIIIIQQQ32s", 2, kind, flags, 2, private_id, generation,
                       extent_bytes, extent_bytes, crc, 1, part_bytes, 0, 1000, 2000,
                       3000, private_id * 2).ljust(128, b"\0")


def decode_head(stored):
    """(generation, state, inline, current, reservations, trash): ids of the lists."""
    head = Head.parse(stored)
    current, *lists = [[bytes.fromhex(one) for one in ids] for ids in
                       ([head.current or "00" * 16], head.reservations, head.trash)]
    return head.generation, head.state, head.inline, current[0], *lists


@unittest.skipUnless(CONF, "SIPHON_TEST_CONF names no cluster")
class ClassMethods(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.stack = contextlib.ExitStack()
        cls.addClassCleanup(cls.stack.close)
        cls.cluster = cls.connect()
        tag = secrets.token_hex(3)
        cls.pool_a = cls.make_pool(f"clsm-a-{tag}")
        cls.pool_b = cls.make_pool(f"clsm-b-{tag}")
        cls.ask("osd erasure-code-profile set", name=f"clsm-{tag}",
                profile=["k=2", "m=1", "crush-failure-domain=osd"])
        cls.pool_ec = cls.make_pool(f"clsm-ec-{tag}", pool_type="erasure",
                                    erasure_code_profile=f"clsm-{tag}")
        cls.pids = osd_pids(CONF)
        cls.regions = {}

    @classmethod
    def connect(cls, **settings):
        settings.setdefault("rados_osd_op_timeout", "10")
        name = settings.pop("name", "client.admin")
        cluster = rados.Rados(conffile=CONF, name=name, conf=settings)
        cluster.connect(timeout=DEADLINE_S)
        cls.stack.callback(cluster.shutdown)
        return cluster

    @classmethod
    def ask(cls, prefix, **arguments):
        code, out, message = cls.cluster.mon_command(
            json.dumps({"prefix": prefix, "format": "json", **arguments}), b"", timeout=DEADLINE_S)
        if code != 0:
            raise AssertionError(f"{prefix}: {message}")
        return json.loads(out) if out.strip() else None

    @classmethod
    def make_pool(cls, name, **arguments):
        cls.ask("osd pool create", pool=name, pg_num=4, **arguments)
        cls.stack.callback(cls.ask, "osd pool delete", pool=name, pool2=name,
                           yes_i_really_really_mean_it=True)
        cls.ask("osd pool application enable", pool=name, app="siphon")
        cls.wait_serving(name, "active")
        return name

    @classmethod
    def wait_serving(cls, pool, state):
        wait_until(lambda: all(pg["state"].startswith(state) for pg in cls.placement_groups(pool)),
                   2 * DEADLINE_S, f"pool {pool} to be {state}")

    @classmethod
    def placement_groups(cls, pool):
        command = {"prefix": "pg ls-by-pool", "poolstr": pool, "format": "json"}
        code, out, message = cls.cluster.mgr_command(json.dumps(command), b"", timeout=DEADLINE_S)
        if code != 0:
            raise AssertionError(message)
        return json.loads(out)["pg_stats"] or [{"state": "none"}]

    def companion(self, osd):
        """The pid of the OSD's live companion, or None."""
        return companion_of(self.pids[osd])

    def io(self, pool, nspace="", key=""):
        io = self.cluster.open_ioctx(pool)
        self.addCleanup(io.close)
        io.set_namespace(nspace)
        io.set_locator_key(key)
        return io

    def pool_id(self, pool):
        return self.cluster.pool_lookup(pool)

    def primary(self, pool, name, nspace=""):
        arguments = {"pool": pool, "object": name}
        if nspace:
            arguments["nspace"] = nspace
        return self.ask("osd map", **arguments)["acting_primary"]

    def region(self, osd):
        if osd not in self.regions:
            self.regions[osd] = Region(self.pids[osd])
            self.addClassCleanup(self.regions[osd].close)
        return self.regions[osd]

    def call(self, io, name, method, data=b""):
        """(0 or errno, output): executed as a read operation, so that output comes back."""
        try:
            return 0, io.execute(name, "siphon", method, data)[1]
        except rados.Error as error:
            return error.errno, b""

    def apply(self, io, name, *steps, create=False):
        """errno of one compound write operation of (method, input) steps."""
        with rados.WriteOpCtx() as op:
            if create:
                op.new(rados.LIBRADOS_CREATE_EXCLUSIVE)
            for method, data in steps:
                op.execute("siphon", method, data)
            try:
                io.operate_write_op(op, name)
            except rados.Error as error:
                return error.errno
        return 0

    def exists(self, io, name):
        try:
            io.stat(name)
            return True
        except rados.ObjectNotFound:
            return False

    def assert_osds_unharmed(self):
        self.assertEqual(osd_pids(CONF), self.pids)

    # ---- hello -------------------------------------------------------------------------------

    def test_hello_names_the_acting_primary_and_writes_nothing(self):
        io = self.io(self.pool_a)
        for i in range(8):
            name = f"hello-{i}"
            osd = self.primary(self.pool_a, name)
            wait_until(lambda: self.region(osd).get("Q", HELLO_SEQ_AT) >= 2,
                       DEADLINE_S, "the companion has said hello")
            error, out = self.call(io, name, "hello")
            self.assertEqual((error, len(out)), (0, 48))
            magic, version, port, osd_id, _flags, nonce, family = struct.unpack("<IHHiIQB",
                                                                                out[:25])
            self.assertEqual((magic, version, osd_id), (0x48504953, 1, osd))
            self.assertEqual(nonce, self.region(osd).boot_nonce)
            self.assertGreater(port, 0)
            self.assertIn(family, (4, 6))
            self.assertFalse(self.exists(io, name))

    def log_head(self, pool, name):
        """The version of the last entry in the log of the name's placement group."""
        group = self.ask("osd map", pool=pool, object=name)["pgid"]
        command = json.dumps({"prefix": "query", "pgid": group, "format": "json"})
        code, out, message = self.cluster.pg_command(group, command, b"", timeout=DEADLINE_S)
        self.assertEqual(code, 0, message)
        return json.loads(out)["info"]["last_update"]

    def test_only_the_hello_that_needs_no_object_leaves_an_entry_in_the_log(self):
        io = self.io(self.pool_a)
        io.write_full("hello-head", b"data")
        self.assertEqual(self.call(io, "hello-none", "hello_head"), (errno.ENOENT, b""))
        before = self.log_head(self.pool_a, "hello-head")
        error, out = self.call(io, "hello-head", "hello_head")
        self.assertEqual((error, len(out)), (0, 48))
        self.assertEqual(self.log_head(self.pool_a, "hello-head"), before)
        self.assertEqual(self.call(io, "hello-head", "hello"), (0, out))
        self.assertNotEqual(self.log_head(self.pool_a, "hello-head"), before)

    # ---- grants ------------------------------------------------------------------------------

    def probe(self, osd, ticket, pool_id=None):
        """errno of a probe that runs on this OSD, which says that the pool has this id."""
        key = next(key for key in map(str, range(200))
                   if self.primary(self.pool_a, key, "siphon.probe") == osd)
        name_id = secrets.token_bytes(16)
        request = struct.pack("<II16s16sq", 1, 0, ticket, name_id,
                              self.pool_id(self.pool_a) if pool_id is None else pool_id)
        io = self.io(self.pool_a, "siphon.probe", key)
        name = f"siphon.probe.{name_id.hex()}"
        error = self.call(io, name, "probe", request)[0]
        self.assertFalse(self.exists(io, name))
        return error

    def prove_layouts(self):
        """After this every OSD gives grants."""
        for osd in self.pids:
            region = self.region(osd)
            if region.layout == UNPROVEN:
                ticket = secrets.token_bytes(16)
                region.announce_probe(ticket)
                self.assertEqual(self.probe(osd, ticket), 0)
            self.assertEqual(region.layout, FITS)

    def test_a_probe_without_its_ticket_is_refused_and_takes_nobodys_grants_away(self):
        for osd in self.pids:
            ticket = secrets.token_bytes(16)
            for wrong in (bytes(16), secrets.token_bytes(16), ticket[::-1]):
                self.region(osd).announce_probe(ticket)
                self.assertEqual(self.probe(osd, wrong), errno.EPERM)
                self.assertEqual(self.probe(osd, wrong, pool_id=10**6), errno.EPERM)
        self.prove_layouts()
        for osd in self.pids:  # what has been found holds, whatever is said later
            ticket = secrets.token_bytes(16)
            self.region(osd).announce_probe(ticket)
            self.assertEqual(self.probe(osd, ticket, pool_id=10**6), 0)
            self.assertEqual(self.region(osd).layout, FITS)

    def grant(self, nonce, pool, nspace="", ttl_s=60):
        return grant_request(nonce, self.pool_id(pool), ttl_s, nspace)

    def test_a_grant_is_recorded_where_it_is_operated(self):
        self.prove_layouts()
        for right, method in ((1, "grant_read"), (2, "grant_write")):
            for pool, nspace, key in ((self.pool_a, "", ""), (self.pool_b, "", "an extent"),
                                      (self.pool_a, "n1", ""), (self.pool_ec, "n" * 127, "k")):
                with self.subTest(method=method, pool=pool, nspace=nspace, key=key):
                    nonce = secrets.token_bytes(16)
                    name = grant_name(nonce)
                    io = self.io(pool, nspace, key)
                    request = self.grant(nonce, pool, nspace)
                    self.assertEqual(self.call(io, name, method, request)[0], 0)
                    # A repeated one refreshes the entry.
                    self.assertEqual(self.call(io, name, method, request)[0], 0)
                    region = self.region(self.primary(pool, key or name, nspace))
                    mine = [g[:4] for g in region.grants() if g[0] == nonce]
                    self.assertEqual(mine, [(nonce, self.pool_id(pool), nspace, right)])
                    self.assertFalse(self.exists(io, name))

    def test_a_grant_for_another_pool_namespace_or_name_is_refused(self):
        self.prove_layouts()
        nonce = secrets.token_bytes(16)
        name = grant_name(nonce)
        a, b = self.pool_a, self.pool_b
        wrong = (
            ("pool", self.io(a), name, self.grant(nonce, b)),
            ("no such pool", self.io(a), name,
             self.grant(nonce, a)[:40] + struct.pack("<q", 10**6) + self.grant(nonce, a)[48:]),
            ("namespace claimed", self.io(a), name, self.grant(nonce, a, "n1")),
            ("namespace operated", self.io(a, "n1"), name, self.grant(nonce, a)),
            ("longer namespace", self.io(a, "n1"), name, self.grant(nonce, a, "n12")),
            ("name", self.io(a), "siphon.grant." + secrets.token_hex(16), self.grant(nonce, a)),
            ("upper case name", self.io(a), grant_name(nonce).replace(key_id(nonce).hex(), key_id(nonce).hex().upper()),
             self.grant(nonce, a)),
            ("long name", self.io(a), name + "x" * 1000, self.grant(nonce, a)),
            ("short name", self.io(a), "x", self.grant(nonce, a)),
        )
        for method in ("grant_read", "grant_write"):
            for what, io, on, request in wrong:
                with self.subTest(what, method=method):
                    self.assertEqual(self.call(io, on, method, request)[0], errno.EPERM)
        for osd in self.pids:
            self.assertNotIn(nonce, [g[0] for g in self.region(osd).grants()])

    def test_caps_decide_who_may_call_what(self):
        self.prove_layouts()
        key = self.ask("auth get-or-create", entity="client.clsm", caps=[
            "mon", "allow r",
            "osd", f"allow class siphon hello, allow class siphon grant_read pool={self.pool_a}"])
        self.stack.callback(self.ask, "auth del", entity="client.clsm")
        user = self.connect(name="client.clsm", key=key[0]["key"])
        nonce = secrets.token_bytes(16)
        name = grant_name(nonce)
        with user.open_ioctx(self.pool_a) as a, user.open_ioctx(self.pool_b) as b:
            self.assertEqual(self.call(a, name, "hello")[0], 0)
            self.assertEqual(self.call(a, name, "grant_read", self.grant(nonce, self.pool_a))[0], 0)
            denied = (
                (a, name, "grant_write", self.grant(nonce, self.pool_a)),
                (b, name, "grant_read", self.grant(nonce, self.pool_b)),
                (b, name, "grant_read", self.grant(nonce, self.pool_a)),
                (a, "x", "reserve", transition(RESERVE, nonce)),
                (a, "x", "write_part", bytes(64)),
            )
            for io, on, method, request in denied:
                with self.subTest(method):
                    self.assertIn(self.call(io, on, method, request)[0],
                                  (errno.EACCES, errno.EPERM))
            self.assertEqual(self.call(a, name, "grant_read", self.grant(nonce, self.pool_b))[0],
                             errno.EPERM)

    # ---- garbage -----------------------------------------------------------------------------

    def test_garbage_of_any_length_is_refused_at_once(self):
        seed = secrets.randbits(32)
        print(f"seed {seed}")
        rng = random.Random(seed)
        io = self.io(self.pool_a)
        io.write_full("garbage", b"untouched")
        right_lengths = {"grant_read": 184, "grant_write": 184, "read_part": 64, "write_part": 64,
                         "probe": 48}
        for method in METHODS:
            lengths = [*range(1, 20), 47, 48, 63, 64, 65, 127, 128, 129, 168, 183, 184, 185, 4096,
                       10**6]
            for length in lengths:
                error, _ = self.call(io, "garbage", method, rng.randbytes(length))
                self.assertEqual(error, errno.EINVAL, f"{method} of {length} bytes")
            for _ in range(50):  # a right version, the rest noise
                length = right_lengths.get(method, 128)
                version = 2 if method in TRANSITIONS else 3 if method.startswith("grant") else 1
                request = struct.pack("<I", version) + rng.randbytes(length - 4)
                error, _ = self.call(io, "garbage", method, request)
                self.assertIn(error, (errno.EINVAL, errno.EPERM, errno.ENXIO, errno.ENOENT,
                                      errno.ECANCELED, errno.EUNATCH, errno.EMEDIUMTYPE), method)
            if not method.startswith("hello"):
                self.assertEqual(self.call(io, "garbage", method, b"")[0], errno.EINVAL)
        self.assertEqual(io.read("garbage"), b"untouched")
        self.assert_osds_unharmed()

    # ---- parts -------------------------------------------------------------------------------

    def slot(self, kind, pool, name, **arguments):
        return Slot(self.region(self.primary(pool, name)), kind, **arguments)

    def test_read_part(self):
        io = self.io(self.pool_a)
        data = secrets.token_bytes(100_000) * 50  # 5 MB
        io.write_full("read", data)
        for offset, length, expected in (
                (0, 4 << 20, 4 << 20), (12345, 1, 1), (1, 100_001, 100_001),
                (4 << 20, 4 << 20, len(data) - (4 << 20)), (len(data), 10, 0), (2**31 - 11, 10, 0)):
            with self.subTest(offset=offset, length=length):
                slot = self.slot(READ, self.pool_a, "read")
                for _ in range(2):  # an OSD may execute an operation again
                    error, out = self.call(io, "read", "read_part", slot.request(length, offset))
                    self.assertEqual((error, out), (0, struct.pack("<II", 1, expected)))
                    self.assertEqual(slot.state, DONE)
                    self.assertEqual(slot.read(expected), data[offset:offset + expected])

    def stale_requests(self, slot, length):
        return (
            ("ticket", slot.request(length, ticket=secrets.token_bytes(16))),
            ("last bit of the ticket", slot.request(
                length, ticket=slot.ticket[:15] + bytes([slot.ticket[15] ^ 1]))),
            ("boot nonce", slot.request(length, nonce=slot.region.boot_nonce ^ 1)),
            ("epoch before", slot.request(length, epoch=slot.epoch - 1)),
            ("epoch after", slot.request(length, epoch=slot.epoch + 1)),
            ("epoch that overflows", slot.request(length, epoch=slot.epoch + 2**56)),
            ("descriptor", slot.request(length, descriptor=0)),
            ("descriptor out of range", slot.request(length, descriptor=DESCRIPTOR_COUNT)),
            ("huge descriptor", slot.request(length, descriptor=2**32 - 1)),
        )

    def test_stale_operations_touch_nothing(self):
        io = self.io(self.pool_a)
        io.write_full("stale", b"s" * 1000)
        for kind, method in ((READ, "read_part"), (WRITE, "write_part")):
            slot = self.slot(kind, self.pool_a, "stale")
            slot.write(b"b" * 1000)
            counted = slot.region.stale_refused
            requests = self.stale_requests(slot, 1000)
            for what, request in requests:
                with self.subTest(what, method=method):
                    self.assertEqual(self.call(io, "stale", method, request)[0], errno.ENXIO)
            self.assertEqual(slot.region.stale_refused, counted + len(requests))
            for state in (FREE, COPYING):
                slot.region.set_word(slot.index, slot.epoch, state)
                self.assertEqual(self.call(io, "stale", method, slot.request(1000))[0], errno.ENXIO)
                self.assertEqual(slot.state, state)
            other = {"read_part": "write_part", "write_part": "read_part"}[method]
            slot.region.set_word(slot.index, slot.epoch, ARMED)
            self.assertEqual(self.call(io, "stale", other, slot.request(1000))[0], errno.ENXIO)
            self.assertEqual(slot.state, ARMED)
            self.assertEqual(slot.read(1000), b"b" * 1000)
            self.assertEqual(io.read("stale"), b"s" * 1000)

    def test_bounds_are_our_own(self):
        io = self.io(self.pool_a)
        io.write_full("bounds", b"s" * 1000)
        for kind, method in ((READ, "read_part"), (WRITE, "write_part")):
            slot = self.slot(kind, self.pool_a, "bounds")
            size = slot.region.data_bytes
            for what, offset, buffer_bytes, length, object_offset in (
                    ("no bytes", 0, 1000, 0, 0),
                    ("more than the buffer", 0, 1000, 1001, 0),
                    ("buffer over the end", size - 999, 1000, 1000, 0),
                    ("buffer at the end", size, 1000, 1000, 0),
                    ("buffer far outside", 2**64 - 500, 1000, 1000, 0),
                    ("buffer before the data", 2**64 - DATA, 1000, 1000, 0),
                    ("huge buffer", 0, 2**32 - 1, 1000, 0),
                    ("object offset over int", 0, 1000, 1000, 2**31 - 1000),
                    ("object offset over 32 bits", 0, 1000, 1000, 2**32),
                    ("object offset over 64 bits", 0, 1000, 1000, 2**64 - 1)):
                with self.subTest(what, method=method):
                    slot.fill(offset, buffer_bytes, kind)
                    request = slot.request(length, object_offset)
                    self.assertEqual(self.call(io, "bounds", method, request)[0], errno.EINVAL)
                    self.assertEqual(slot.state, ARMED)
        self.assert_osds_unharmed()

    def test_read_part_says_what_the_store_says(self):
        slot = self.slot(READ, self.pool_a, "missing")
        self.assertEqual(self.call(self.io(self.pool_a), "missing", "read_part",
                                   slot.request(10))[0], errno.ENOENT)
        ec = self.io(self.pool_ec)
        ec.write_full("in-ec", b"e" * 1000)
        slot = self.slot(READ, self.pool_ec, "in-ec")
        self.assertEqual(self.call(ec, "in-ec", "read_part", slot.request(10))[0],
                         errno.EOPNOTSUPP)
        self.assertEqual(slot.state, ARMED)

    def test_write_part(self):
        for pool in (self.pool_a, self.pool_ec):
            io = self.io(pool)
            data = secrets.token_bytes(300_000)
            slot = self.slot(WRITE, pool, "write")
            slot.write(data)
            request = slot.request(len(data), crc=ceph_crc32c(data))
            # Again is fine, but an erasure-coded pool takes no overwrite.
            for expected in (0, 0 if pool == self.pool_a else errno.EOPNOTSUPP):
                self.assertEqual(self.apply(io, "write", ("write_part", request)), expected)
                self.assertEqual(slot.state, DONE)
                self.assertEqual(io.read("write", len(data) + 1), data)
        # Anywhere in the object, unaligned.
        io = self.io(self.pool_a)
        slot = self.slot(WRITE, self.pool_a, "write")
        slot.write(b"middle")
        request = slot.request(6, 5001, ceph_crc32c(b"middle"))
        self.assertEqual(self.apply(io, "write", ("write_part", request)), 0)
        self.assertEqual(io.read("write", 8, 5000)[1:7], b"middle")

    def test_write_part_of_other_bytes_than_announced_writes_nothing(self):
        io = self.io(self.pool_a)
        data = secrets.token_bytes(5000)
        slot = self.slot(WRITE, self.pool_a, "flipped")
        slot.write(data)
        slot.write(bytes([data[0] ^ 1]))
        request = slot.request(len(data), crc=ceph_crc32c(data))
        self.assertEqual(self.apply(io, "flipped", ("write_part", request)), errno.EBADMSG)
        self.assertFalse(self.exists(io, "flipped"))
        slot.region.set_word(slot.index, slot.epoch, FREE)  # cancelled by its owner
        slot.write(data)
        self.assertEqual(self.apply(io, "flipped", ("write_part", request)), errno.ENXIO)
        self.assertFalse(self.exists(io, "flipped"))

    # ---- the head register -------------------------------------------------------------------

    def head(self, io, name):
        return decode_head(io.get_xattr(name, "siphon.head"))

    def test_life_of_a_head(self):
        for pool in (self.pool_a, self.pool_ec):
            with self.subTest(pool):
                io, name = self.io(pool), "head-" + secrets.token_hex(4)
                a, b = secrets.token_bytes(16), secrets.token_bytes(16)

                def step(method, request):
                    """Twice: an operation may be executed again."""
                    results = {self.apply(io, name, (method, request)) for _ in range(2)}
                    self.assertEqual(len(results), 1, results)
                    return results.pop()

                self.assertEqual(step("publish", transition(PUBLISH, a)), errno.ENOENT)
                self.assertFalse(self.exists(io, name))
                self.assertEqual(step("reserve", transition(RESERVE, a)), 0)
                self.assertEqual(self.head(io, name), (0, 0, 0, bytes(16), [a], []))
                self.assertEqual(step("publish", transition(PUBLISH, a, generation=7)),
                                 errno.ESTALE)
                self.assertEqual(step("publish", transition(PUBLISH, a, generation=0)), 0)
                self.assertEqual(self.head(io, name), (1, 2, 0, a, [], []))
                self.assertEqual(step("reserve", transition(RESERVE, b)), 0)
                self.assertEqual(step("publish", transition(PUBLISH, b)), errno.EEXIST)
                self.assertEqual(
                    step("publish", transition(PUBLISH, b, replace=True, is_open=True)), 0)
                self.assertEqual(self.head(io, name), (2, 1, 0, b, [], [a]))
                self.assertEqual(step("seal", transition(SEAL, b, extent_bytes=10)), 0)
                self.assertEqual(self.head(io, name), (3, 2, 0, b, [], [a]))
                self.assertEqual(step("reserve", transition(RESERVE, a)), errno.ECANCELED)
                self.assertEqual(step("condemn", transition(CONDEMN, b)), 0)
                self.assertEqual(self.head(io, name), (4, 0, 0, bytes(16), [], [a, b]))
                # Seen as an attempt, and published and replaced since.
                self.assertEqual(step("condemn", transition(CONDEMN, a, generation=0)),
                                 errno.EEXIST)
                self.assertEqual(step("restore", transition(RESTORE, secrets.token_bytes(16))),
                                 errno.ENOENT)
                self.assertEqual(step("restore", transition(RESTORE, a)), 0)
                self.assertEqual(self.head(io, name), (5, 2, 0, a, [], [b]))
                self.assertEqual(io.get_xattr(name, "siphon.head")[72:104], a * 2)
                self.assertEqual(step("restore", transition(RESTORE, b)), errno.EEXIST)
                self.assertEqual(step("condemn", transition(CONDEMN, a)), 0)
                self.assertEqual(step("discard", transition(DISCARD, a)), 0)
                self.assertEqual(step("restore", transition(RESTORE, a)), errno.ENOENT)
                self.assertEqual(self.head(io, name), (6, 0, 0, bytes(16), [], [b, a]))
                self.assertEqual(step("forget", transition(FORGET, a)), 0)
                self.assertTrue(self.exists(io, name))
                self.assertEqual(self.apply(io, name, ("forget", transition(FORGET, b))), 0)
                self.assertFalse(self.exists(io, name))
                # Forgetting on nothing does nothing.
                self.assertEqual(self.apply(io, name, ("forget", transition(FORGET, b))), 0)
                self.assertFalse(self.exists(io, name))

    def test_life_of_an_inline_extent(self):
        for pool in (self.pool_a, self.pool_ec):
            with self.subTest(pool):
                io, name = self.io(pool), "inline-" + secrets.token_hex(4)
                a, b = secrets.token_bytes(16), secrets.token_bytes(16)
                data = secrets.token_bytes(5000)
                slot = self.slot(WRITE, pool, name)
                slot.write(data)
                steps = (("write_part", slot.request(len(data), crc=ceph_crc32c(data))),
                         ("publish", transition(PUBLISH, a, inline=True, extent_bytes=5000)))
                bad = (("write_part", slot.request(len(data), crc=1)), steps[1])
                self.assertEqual(self.apply(io, name, *bad, create=True), errno.EBADMSG)
                self.assertFalse(self.exists(io, name))
                self.assertEqual(self.apply(io, name, *steps, create=True), 0)
                self.assertEqual(self.head(io, name), (1, 2, 1, a, [], []))
                self.assertEqual(io.read(name, 6000), data)
                self.assertEqual(self.apply(io, name, *steps, create=True), errno.EEXIST)
                inline_b = ("publish", transition(PUBLISH, b, inline=True, replace=True))
                self.assertEqual(self.apply(io, name, inline_b), errno.EEXIST)
                # Replaced by one with parts: its bytes stay until they are forgotten.
                self.assertEqual(self.apply(io, name, ("reserve", transition(RESERVE, b))), 0)
                self.assertEqual(
                    self.apply(io, name, ("publish", transition(PUBLISH, b, replace=True))), 0)
                self.assertEqual(io.read(name, 6000), data)
                self.assertEqual(self.apply(io, name, ("forget", transition(FORGET, a))), 0)
                self.assertEqual(io.stat(name)[0], 0)
                self.assertEqual(self.head(io, name), (2, 2, 0, b, [], []))
                self.assertEqual(self.apply(io, name, ("condemn", transition(CONDEMN, b))), 0)
                self.assertEqual(self.apply(io, name, ("forget", transition(FORGET, b))), 0)
                self.assertFalse(self.exists(io, name))

    def test_an_inline_extent_alone_is_removed_when_forgotten(self):
        io, name, a = self.io(self.pool_a), "inline-alone", secrets.token_bytes(16)
        slot = self.slot(WRITE, self.pool_a, name)
        slot.write(b"x" * 100)
        self.assertEqual(self.apply(
            io, name, ("write_part", slot.request(100, crc=ceph_crc32c(b"x" * 100))),
            ("publish", transition(PUBLISH, a, inline=True, extent_bytes=100)), create=True), 0)
        self.assertEqual(self.apply(io, name, ("condemn", transition(CONDEMN, a))), 0)
        self.assertEqual(self.apply(io, name, ("forget", transition(FORGET, a))), 0)
        self.assertFalse(self.exists(io, name))

    def test_a_garbled_register_is_refused_and_kept(self):
        io, a = self.io(self.pool_a), secrets.token_bytes(16)
        for garbage in (b"", b"x", secrets.token_bytes(100), secrets.token_bytes(5000)):
            io.write_full("garbled", b"data")
            io.set_xattr("garbled", "siphon.head", garbage)
            for kind, method in enumerate(TRANSITIONS, 1):
                self.assertEqual(self.apply(io, "garbled", (method, transition(kind, a))),
                                 errno.EUCLEAN)
            self.assertEqual(io.get_xattr("garbled", "siphon.head"), garbage)
        self.assert_osds_unharmed()

    def test_an_object_that_is_not_ours_stays_as_it_is(self):
        io, a = self.io(self.pool_a), secrets.token_bytes(16)
        io.write_full("theirs", b"precious")
        for kind, method in enumerate(TRANSITIONS, 1):
            for inline in (False, True):
                self.assertEqual(
                    self.apply(io, "theirs", (method, transition(kind, a, inline=inline))),
                    errno.EMEDIUMTYPE)
        self.assertEqual(io.read("theirs"), b"precious")
        self.assertEqual(list(io.get_xattrs("theirs")), [])
        self.assert_osds_unharmed()

    def test_a_method_takes_only_its_own_transition(self):
        io, a = self.io(self.pool_a), secrets.token_bytes(16)
        for method in TRANSITIONS:
            for kind in range(9):
                if 1 <= kind <= 7 and TRANSITIONS[kind - 1] == method:
                    continue
                self.assertEqual(self.apply(io, "kinds", (method, transition(kind, a))),
                                 errno.EINVAL)
        self.assertFalse(self.exists(io, "kinds"))

    # ---- the region and the companion --------------------------------------------------------

    def test_the_region_is_sealed_and_out_of_cores(self):
        region = self.region(0)
        size = os.fstat(region.fd).st_size
        for wrong in (0, size - 4096, size + 4096):
            with self.assertRaises(PermissionError):
                os.ftruncate(region.fd, wrong)
        maps = pathlib.Path(f"/proc/{self.pids[0]}/smaps").read_text()
        flags = re.search(r"memfd:siphon-region.*?VmFlags:([^\n]*)", maps, re.S).group(1).split()
        self.assertIn("dd", flags)

    def test_the_companion_holds_what_it_was_given_and_nothing_else(self):
        for osd, pid in self.pids.items():
            child = wait_until(lambda osd=osd: self.companion(osd), DEADLINE_S, "a companion")
            given = descriptors(child)
            self.assertEqual(given[0], "/dev/null")
            self.assertTrue(given[3].startswith("/memfd:siphon-region"), given)
            self.assertTrue(given[4].startswith("socket:"), given)
            # Its own journal of attempts stands in the OSD's folder; the device must not.
            stores = [path for path in given.values() if "/osd." in path and "/log/" not in path
                      and not pathlib.Path(path).name.startswith("siphon.journal")]
            self.assertEqual(stores, [])
            self.assertEqual(os.getpgid(child), child)
            self.assertEqual(parent_of(child), pid)

    def test_a_killed_companion_is_back_and_its_operations_are_void(self):
        io = self.io(self.pool_a)
        osd = self.primary(self.pool_a, "killed")
        io.write_full("killed", b"k" * 100)
        first = wait_until(lambda: self.companion(osd), DEADLINE_S, "a companion")
        slot = self.slot(READ, self.pool_a, "killed")
        os.kill(first, signal.SIGKILL)
        second = wait_until(lambda: self.companion(osd) not in (None, first)
                            and self.companion(osd), DEADLINE_S, "another companion")
        self.assertNotEqual(first, second)
        self.assertEqual(self.call(io, "killed", "read_part", slot.request(100))[0], errno.ENXIO)
        wait_until(lambda: self.call(io, "killed", "hello")[0] == 0, DEADLINE_S, "hello again")
        self.assert_osds_unharmed()

    def test_hello_says_host_down_while_the_companion_is_gone(self):
        # It is back within 200 ms, so it is killed at every return until a hello fell between.
        io = self.io(self.pool_a)
        osd = self.primary(self.pool_a, "gone")

        def down():
            child = self.companion(osd)
            if child is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            return self.call(io, "gone", "hello")[0] == errno.EHOSTDOWN

        wait_until(down, DEADLINE_S, "hello is refused")
        wait_until(lambda: self.call(io, "gone", "hello")[0] == 0, 60, "hello again")

    def test_a_killed_osd_takes_its_companion_along(self):
        osd = 2
        child = wait_until(lambda: self.companion(osd), DEADLINE_S, "a companion")
        os.kill(self.pids[osd], signal.SIGKILL)
        wait_until(lambda: parent_of(child) is None, 10, "the companion is gone")
        wait_until(lambda: parent_of(self.pids[osd]) is None, DEADLINE_S, "the OSD is gone")
        subprocess.run([CLUSTER_TOOL, "start", "--dir", os.path.dirname(CONF), f"osd.{osd}"],
                       check=True, stdout=subprocess.DEVNULL, timeout=120)
        type(self).pids = osd_pids(CONF)
        self.assertIn(osd, self.pids)
        wait_until(lambda: self.companion(osd), DEADLINE_S, "a new companion")
        # Every test finds the cluster whole, and no mapping of a region that has gone.
        self.regions.pop(osd, None)
        for pool in (self.pool_a, self.pool_b, self.pool_ec):
            self.wait_serving(pool, "active+clean")


if __name__ == "__main__":
    unittest.main(verbosity=2)
