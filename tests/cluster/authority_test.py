#!/usr/bin/python3
"""Siphon's rights are cephx caps of their own: who lacks one is refused, and nothing is written.

Requests that the CLI would never make are made by hand, see by_hand.py.
"""

import contextlib
import errno
import secrets
import socket
import struct
import threading

import rados

import harness
from by_hand import NONE, ByHand
from cli import NOT_FOUND, PERMISSION
from formats import MIB, key_id
from ports import listening_ports
from waiting import wait_until

POOLS = ("a", "b", "c")

# The documented caps of a requester who copies from a to b.
LEAST_CAPS = ("allow class siphon hello, allow class siphon grant_read pool=a, "
              "allow class siphon grant_write pool=b, allow r pool=a")


class Recorder:
    """Passes one TCP connection on to `device`, and keeps what the caller said."""

    def __init__(self, device):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._device = device
        self.said = bytearray()
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._listener.close()

    def _serve(self):
        with contextlib.suppress(OSError):
            caller, _ = self._listener.accept()
            with caller, socket.create_connection(self._device) as device:
                back = threading.Thread(target=self._pass_on, args=(device, caller), daemon=True)
                back.start()
                self._pass_on(caller, device, self.said)
                back.join(10)

    @staticmethod
    def _pass_on(source, target, keep=None):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if keep is not None:
                    keep += data
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


class Authority(ByHand, harness.ClusterTest):

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        c = cls.cluster
        for pool in POOLS:
            c.create_pool(pool)
        c.put("a/e", 12 * MIB, 1)
        c.put("a/small", 5000, 2)
        c.create_key("least", LEAST_CAPS)
        c.create_key("other", "allow class siphon hello, allow class siphon grant_read pool=c, "
                              "allow class siphon grant_write pool=c, allow rw pool=c")
        c.siphon("daemons")  # from now on every OSD gives grants
        cls.keys = 0

    @contextlib.contextmanager
    def nothing_is_written(self):
        c = self.cluster
        before = {pool: c.rados_tool("-p", pool, "ls", "--all") for pool in POOLS}
        prints = {pool: harness.fingerprint(c, pool) for pool in POOLS}
        yield
        self.assertEqual({pool: c.rados_tool("-p", pool, "ls", "--all") for pool in POOLS}, before)
        self.assertEqual({pool: harness.fingerprint(c, pool) for pool in POOLS}, prints)
        self.assertEqual(listening_ports(*c.data_ports), [])

    def assert_copy_refused(self, osd_caps, *words, target="b/refused"):
        type(self).keys += 1
        key = self.cluster.create_key(f"k{self.keys}", osd_caps)
        with self.subTest(caps=osd_caps, target=target), self.nothing_is_written():
            ran = self.cluster.siphon("copy", "a/e", target, key=key, check=False)
            self.assert_fails(ran, PERMISSION, *words)

    # ---- keys that lack a cap, through the CLI

    def test_keys_with_only_data_caps_are_refused(self):
        for caps in ("allow rwx", "allow rw", "allow rwx pool=a, allow rwx pool=b",
                     "allow class-read class-write, allow rw"):
            self.assert_copy_refused(caps, "class siphon")

    def test_keys_with_half_of_the_caps_are_refused(self):
        hello = "allow class siphon hello, allow r pool=a"
        self.assert_copy_refused(hello, "grant_read")
        self.assert_copy_refused(f"{hello}, allow class siphon grant_read pool=a", "grant_write")
        self.assert_copy_refused(f"{hello}, allow class siphon grant_write pool=b", "grant_read")
        # Rights in RADOS do not stand in for the missing one.
        self.assert_copy_refused(f"{hello}, allow class siphon grant_read pool=a, "
                                 "allow rwx pool=b", "grant_write")
        self.assert_copy_refused(f"{hello}, allow class siphon grant_write pool=b, "
                                 "allow rwx pool=a", "grant_read")

    def test_keys_with_the_caps_for_another_pool_are_refused(self):
        hello = "allow class siphon hello, allow r"
        self.assert_copy_refused(f"{hello}, allow class siphon grant_read pool=a, "
                                 "allow class siphon grant_write pool=c", "grant_write")
        self.assert_copy_refused(f"{hello}, allow class siphon grant_read pool=c, "
                                 "allow class siphon grant_write pool=b", "grant_read")
        # The two the other way round.
        self.assert_copy_refused(f"{hello}, allow class siphon grant_read pool=b, "
                                 "allow class siphon grant_write pool=a", "grant_read")

    def test_a_user_without_a_key_gets_nothing(self):
        with self.nothing_is_written():
            ran = self.cluster.siphon("copy", "a/e", "b/refused", key="client.nobody", check=False)
            self.assertIn(ran.code, (PERMISSION, NOT_FOUND), str(ran))
            self.assertRegex(ran.problem["message"], "key")

    def test_the_lifecycle_methods_are_for_administrators(self):
        with self.nothing_is_written():
            for method in ("read_part", "write_part", "reserve", "publish", "condemn", "forget",
                           "seal", "restore", "discard"):
                for pool, name in (("a", "siphon.e"), ("b", "siphon.e")):
                    self.assertEqual(self.call("client.least", pool, name, method, b"x" * 64)[0],
                                     errno.EPERM, (method, pool))

    # ---- grants by hand

    def test_a_grant_on_another_pool_that_claims_this_one_is_refused(self):
        with self.nothing_is_written():
            for right, wanted in (("write", "b"), ("read", "a")):
                code, nonce = self.grant("client.other", right, "c", claimed_pool=wanted)
                self.assertEqual(code, errno.EPERM)
                pair = (nonce, nonce)
                self.assertEqual(self.transfer(*pair)[0], "PERMISSION_DENIED")
            # Nor under the name of another namespace, nor of another nonce.
            self.assertEqual(self.grant("client.other", "write", "c", claimed_nspace="n")[0],
                             errno.EPERM)
            self.assertEqual(self.grant("client.other", "write", "c", nspace="n",
                                        claimed_nspace="")[0], errno.EPERM)
            request = struct.pack("<II16s16sqII128s", 3, 0, secrets.token_bytes(16), bytes(16),
                                  self.cluster.pool_id("c"), 60, 0, b"")
            self.assertEqual(self.call("client.other", "c", f"siphon.grant.{'0' * 32}",
                                       "grant_write", request)[0], errno.EPERM)

    def test_a_local_user_without_a_key_is_refused_by_every_call(self):
        address = self.control_address("b")
        with self.nothing_is_written():
            for nonce in (NONE, secrets.token_hex(16), "0" * 32):
                with self.subTest(nonce=nonce):
                    self.assertEqual(self.transfer(nonce, nonce)[0], "PERMISSION_DENIED")
                    for words in (("list",), ("watch", secrets.token_hex(16)),
                                  ("cancel", secrets.token_hex(16)), ("verify", "a", "e"),
                                  ("verify", "b", "e")):
                        code, sentence = self.device(address, *words, nonce, nonce)
                        self.assertEqual(code, "PERMISSION_DENIED", (words, sentence))

    def test_a_call_without_a_known_grant_is_told_one_thing(self):
        """Not whether there is such a pool, with a grant of another pool or with none."""
        address = self.control_address("a")
        other = self.granted("client.other", "read", "c", at=self.primary_of("a", "e"))
        for nonce in (NONE, secrets.token_hex(16), other):
            told = {self.device(address, "verify", pool, "e", nonce, NONE)[0] + " " +
                    self.device(address, "verify", pool, "e", nonce, NONE)[1].replace(pool, "POOL")
                    for pool in ("nosuchpool", "b")}
            self.assertEqual(len(told), 1, told)
            self.assertIn("PERMISSION_DENIED", told.pop())

    def test_a_grant_is_good_for_its_pool_its_right_and_its_device_alone(self):
        target = self.primary_of("b", "forged")
        elsewhere = (target + 1) % self.cluster.osds
        read_a = self.granted("client.least", "read", "a")
        # All but the last at the very device that is asked to write.
        read_a_there = self.granted("client.least", "read", "a", at=target)
        read_c = self.granted("client.other", "read", "c", at=target)
        write_c = self.granted("client.other", "write", "c", at=target)
        write_b_elsewhere = self.granted("client.least", "write", "b", at=elsewhere)
        with self.nothing_is_written():
            for write in (read_a, read_a_there, read_c, write_c, write_b_elsewhere):
                code, sentence = self.transfer(read_a, write)
                self.assertEqual(code, "PERMISSION_DENIED", sentence)
                self.assertIn("grant_write", sentence)

    def test_who_may_write_the_target_but_not_read_the_source_is_refused_by_the_source(self):
        source = self.primary_of("a", "e")
        write = self.granted("client.least", "write", "b", at=self.primary_of("b", "forged"))
        with self.nothing_is_written():
            for read in (NONE, secrets.token_hex(16), write,
                         self.granted("client.other", "read", "c", at=source),
                         self.granted("client.least", "write", "b", at=source),
                         self.granted("client.least", "read", "a",
                                      at=(source + 1) % self.cluster.osds)):
                code, sentence = self.transfer(read, write)
                self.assertEqual(code, "PERMISSION_DENIED", sentence)
                self.assertIn("grant_read", sentence)

    def test_who_stands_at_another_port_learns_nothing_that_can_be_used(self):
        """He passes everything on to the real device, and keeps it."""
        device = self.control_address("b", "forged")
        host, port = device.split(":")
        write = self.granted("client.least", "write", "b", at=self.primary_of("b", "forged"))
        read = self.granted("client.least", "read", "a")
        with self.nothing_is_written(), Recorder((host, int(port))) as recorder:
            code, sentence = self.device(
                recorder.address, "transfer", secrets.token_hex(16), self.control_address("a"),
                "a", "b", "e", "forged", read, write)
            self.assertEqual(code, "PERMISSION_DENIED", sentence)
            self.assertIn("holds no valid grant_write", sentence)
            said = bytes(recorder.said)
        # The grant's name was said, so the call was heard; then no more.
        self.assertIn(key_id(bytes.fromhex(write)), said)
        for secret in (read, write):
            self.assertNotIn(bytes.fromhex(secret), said)
            self.assertNotIn(secret.encode(), said)
        self.assertNotIn(key_id(bytes.fromhex(read)), said)
        self.assertNotIn(b"forged", said)
        # At the device itself the same grants are good.
        self.assertEqual(self.transfer(read, write), ("OK", "1 extents"))
        self.cluster.siphon("rm", "--purge", "--yes-i-really-mean-it", "b/forged")

    def test_a_source_that_is_not_the_extents_device_is_never_called(self):
        write = self.granted("client.least", "write", "b", at=self.primary_of("b", "forged"))
        read = self.granted("client.least", "read", "a")
        with self.nothing_is_written(), socket.create_server(("127.0.0.1", 0)) as trap:
            trap.setblocking(False)
            port = trap.getsockname()[1]
            code, sentence = self.transfer(read, write, source_address=f"127.0.0.1:{port}")
            self.assertEqual(code, "ABORTED", sentence)
            with self.assertRaises(BlockingIOError):
                trap.accept()

    def test_the_same_grants_where_they_belong_do_copy(self):
        # The control of the tests above: nothing else than the grants was wrong there.
        write = self.granted("client.least", "write", "b", at=self.primary_of("b", "forged"))
        read = self.granted("client.least", "read", "a")
        self.assertEqual(self.transfer(read, write), ("OK", "1 extents"))
        self.assertEqual(harness.Extent(self.cluster, "b", "forged").read(),
                         harness.Extent(self.cluster, "a", "e").read())
        self.cluster.siphon("rm", "--purge", "--yes-i-really-mean-it", "b/forged")

    def test_a_grant_expires(self):
        address = self.control_address("a")
        nonce = self.granted("client.least", "read", "a", ttl_s=2)
        verify = ("verify", "a", "e", nonce, NONE)
        first = self.device(address, *verify)
        lasting = self.granted("client.least", "read", "a", ttl_s=300)
        wait_until(lambda: self.device(address, *verify)[0] == "PERMISSION_DENIED", 30,
                   "the grant to expire")
        # It had been good before, unless the machine took two seconds for one call.
        self.assertIn(first[0], ("OK", "PERMISSION_DENIED"))
        self.assertEqual(self.device(address, "verify", "a", "e", lasting, NONE)[0], "OK")
        for ttl_s in (0, 3601, 2**32 - 1):
            self.assertEqual(self.grant("client.least", "read", "a", ttl_s=ttl_s)[0], errno.EINVAL)

    def test_a_share_of_the_grants_that_is_used_up_makes_a_copy_wait_for_its_turn(self):
        c = self.cluster

        def fill(most):
            """Grants from a connection of its own, until they are refused; how many were given."""
            kept = []
            with c.connection_of_its_own("client.least") as own, own.open_ioctx("a") as io:
                io.set_locator_key("e")

                def grant(nonce):
                    request = struct.pack("<II16s16sqII128s", 3, 0, key_id(nonce), nonce,
                                          c.pool_id("a"), 30, 0, b"")
                    io.execute(f"siphon.grant.{key_id(nonce).hex()}", "siphon", "grant_read",
                               request)
                with self.assertRaises(rados.Error) as full:
                    while len(kept) <= most:
                        nonce = secrets.token_bytes(16)
                        grant(nonce)
                        kept.append(nonce)
                self.assertEqual(full.exception.errno, errno.EUSERS)
                if kept:
                    grant(kept[0])  # whoever has a grant can renew it all the same
            return len(kept)
        # One connection has a share, and so has a pool.
        source = self.primary_of("a", "e")
        self.assertEqual(fill(256), 256)
        self.assertEqual(self.grant("client.other", "read", "c", at=source)[0], 0)
        self.assertLessEqual(fill(256), 256)
        self.assertLess(fill(256), 256)
        self.assertEqual(self.grant("client.other", "read", "c", at=source)[0], 0)
        ran = c.siphon("copy", "a/e", "b/in-turn", key="client.least")
        self.assertIn("busy; waiting for a turn", ran.stderr)
        c.siphon("rm", "--purge", "--yes-i-really-mean-it", "b/in-turn")

    def test_somebody_elses_transfer_is_neither_seen_nor_cancelled(self):
        c = self.cluster
        run = self.start_siphon("copy", "a/e", "b/watched", "--bwlimit", "2M", key="client.least")
        run.wait_streaming()
        (transfer,) = c.running_transfers("b")
        address = self.control_address("b", "watched")
        # A grant of another requester's own pool, at this very device.
        nonce = self.granted("client.other", "write", "c", at=self.primary_of("b", "watched"))
        self.assertEqual(self.device(address, "list", NONE, nonce), ("OK", "0"))
        for verb in ("watch", "cancel"):
            code, sentence = self.device(address, verb, transfer["id"], NONE, nonce)
            self.assertEqual(code, "PERMISSION_DENIED", sentence)
        ran = run.wait()
        self.assertEqual(ran.code, 0, str(ran))
        c.siphon("rm", "--purge", "--yes-i-really-mean-it", "b/watched")

    def test_transfers_into_a_namespace_are_seen_by_keys_that_are_not_confined_to_another(self):
        c = self.cluster
        c.create_key("confined", "allow class siphon hello, "
                                 "allow class siphon grant_write pool=b namespace=theirs")
        run = self.start_siphon("copy", "a/e", "b/ours/watched", "--bwlimit", "512K",
                                key="client.least")
        run.wait_streaming()
        (transfer,) = c.running_transfers("b/ours/")
        # Nobody names the namespace: the devices do.
        for key in ("client.admin", "client.least"):
            listed = c.siphon("transfers", key=key).document["transfers"]
            self.assertEqual([t["id"] for t in listed], [transfer["id"]], key)
            self.assertEqual(listed[0]["target"], {"pool": "b", "namespace": "ours"})
        self.assertEqual(c.running_transfers("b"), [])
        # But not to everybody: not that it is there, and not what the namespace is called.
        at, device = self.hello("b", "watched", "ours")
        for key, nspace, told in (("client.least", "", r"^\d+ b/ours$"),
                                  ("client.least", "ours", "^1$"),
                                  ("client.confined", "theirs", "^0$")):
            nonce = self.granted(key, "write", "b", nspace=nspace, at=at)
            code, sentence = self.device(device, "list", NONE, nonce)
            self.assertEqual(code, "OK", sentence)
            self.assertRegex(sentence, told, (key, nspace))
        ran = c.siphon("cancel", transfer["id"], key="client.confined", check=False)
        self.assertNotEqual(ran.code, 0)
        self.assertNotIn("b/ours", str(ran))
        c.siphon("cancel", transfer["id"], key="client.least")
        self.assertNotEqual(run.wait().code, 0)
        self.assert_nothing_left("a", "b")

    # ---- what the least caps are good for

    def test_a_key_with_just_the_documented_caps_does_the_whole_job(self):
        c, key = self.cluster, "client.least"
        self.assertEqual(c.siphon("ls", "a", key=key).code, 0)
        c.siphon("stat", "a/e", key=key)
        ran = c.siphon("copy", "--dry-run", "a/e", "b/whole", key=key)
        self.assertEqual(ran.document["transfers"], 1)
        for source, target in (("a/e", "b/whole"), ("a/small", "b/whole-small")):
            ran = c.siphon("copy", source, target, key=key)
            self.assertEqual(ran.extents[0]["status"], "copied")
            self.assertEqual(harness.Extent(c, "b", target[2:]).read(),
                             harness.Extent(c, "a", source[2:]).read())
        ran = c.siphon("copy", "a", "b", key=key)
        self.assertEqual({e["target"] for e in ran.extents}, {"b/e", "b/small"})
        c.siphon("verify", "a/e", key=key)
        c.siphon("transfers", "--all", "b", key=key)
        run = self.start_siphon("copy", "a/e", "b/cancelled", "--bwlimit", "2M", key=key)
        run.wait_streaming()
        (transfer,) = c.siphon("transfers", "b", key=key).document["transfers"]
        c.siphon("cancel", transfer["id"], "b", key=key)
        self.assertNotEqual(run.wait().code, 0)
        self.assert_nothing_left("a", "b")
        self.assertIsNone(harness.read_head(c, "b", "cancelled"))
        c.siphon("rm", "--purge", "--yes-i-really-mean-it", "b/whole", "b/whole-small", "b/e",
                 "b/small")


if __name__ == "__main__":
    harness.main()
