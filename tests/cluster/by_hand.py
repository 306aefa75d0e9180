"""Requests that the CLI would never make: class methods with hand-made inputs, and gRPC calls with
any nonce by tests/support/device_caller, which has no key at all.

Inputs are laid out by tests/lib/formats.py, without the product's code.
"""

import errno
import os
import pathlib
import secrets
import socket
import struct
import subprocess

import rados

from cli import REPO, RUN_DEADLINE_S
from formats import grant_name, grant_request

DEVICE_CALLER = pathlib.Path(os.environ.get(
    "SIPHON_TEST_LIB_DIR", REPO / "build" / "release" / "testlib")) / "device_caller"

NONE = "-"  # no nonce


class ByHand:
    """For a harness.ClusterTest whose sources are in pool a, in the placement group of extent e."""

    def call(self, key, pool, name, method, data=b"", locator="e", nspace=""):
        """A class method with a key of one's own: (errno or 0, output)."""
        with self.cluster.io(pool, key, nspace, locator) as io:
            try:
                return 0, io.execute(name, "siphon", method, data)[1]
            except rados.Error as error:
                return error.errno, b""

    def grant(self, key, right, pool, ttl_s=300, claimed_pool=None, nspace="", claimed_nspace=None,
              at=None):
        """(errno or 0, nonce in hex) of grant_read or grant_write, left at the OSD `at` (default:
        the one that holds the pool's extent e)."""
        nonce = secrets.token_bytes(16)
        claimed_nspace = nspace if claimed_nspace is None else claimed_nspace
        request = grant_request(nonce, self.cluster.pool_id(claimed_pool or pool), ttl_s,
                                claimed_nspace)
        locator = "e" if at is None else self.locator_at(pool, at, nspace)
        call = (key, pool, grant_name(nonce), f"grant_{right}", request,
                locator, nspace)
        code, _ = self.call(*call)
        if code == errno.EUNATCH:  # the first one here: the command waits for the OSDs' probes
            self.cluster.siphon("daemons", pool)
            code, _ = self.call(*call)
        return code, nonce.hex()

    def granted(self, key, right, pool, **arguments):
        code, nonce = self.grant(key, right, pool, **arguments)
        self.assertEqual(code, 0, (key, right, pool))
        return nonce

    def locator_at(self, pool, osd, nspace=""):
        """A locator key of the pool and namespace whose primary is this OSD."""
        places = self.__dict__.setdefault("_places", {}).setdefault((pool, nspace), {})
        for number in range(200):
            if osd in places:
                break
            places.setdefault(self.hello(pool, f"probe-{number}", nspace)[0], f"probe-{number}")
        return places[osd]

    def primary_of(self, pool, name):
        return self.cluster.place(pool, name)[0]

    def hello(self, pool, locator="e", nspace=""):
        """(OSD, control address) of the device that serves this locator key."""
        code, reply = self.call("client.admin", pool, "any", "hello", locator=locator,
                                nspace=nspace)
        self.assertEqual(code, 0)
        _magic, _version, port, osd, _flags, _nonce, family = struct.unpack_from("<IHHiIQB", reply)
        self.assertEqual(family, 4)
        return osd, f"{socket.inet_ntoa(reply[28:32])}:{port}"

    def control_address(self, pool, locator="e"):
        return self.hello(pool, locator)[1]

    def device(self, address, *words):
        """(code, sentence) of a gRPC call without a key."""
        ran = subprocess.run([DEVICE_CALLER, address, *words], capture_output=True, text=True,
                             timeout=RUN_DEADLINE_S, check=True)
        code, _, sentence = ran.stdout.strip().partition(" ")
        return code, sentence

    def transfer(self, read, write, target_pool="b", source_pool="a", name="forged",
                 source_address=None, transfer_id=None):
        """The first call, to the device that holds the target."""
        return self.device(self.control_address(target_pool, name), "transfer",
                           transfer_id or secrets.token_hex(16),
                           source_address or self.control_address(source_pool, "e"), source_pool,
                           target_pool, "e", name, read, write)
