#!/usr/bin/python3
"""What an unproven peer may do to a daemon: nothing. And configurations that would let it do more are
refused.

The flood: tests/support/hostile_peer.py, which says how to make it longer.
"""

import base64
import contextlib
import hashlib
import hmac
import re
import secrets
import signal
import socket
import struct
import subprocess
import threading

import two_daemons
import hostile_peer as h2  # after two_daemons, which knows where it is
from cli import OK, SIPHON, SIPHOND
from formats import MIB, sha256_of
from waiting import DEADLINE_S, wait_until
from two_daemons import TwoDaemonsTest

CONFIG_EXIT = 78


class Recorder:
    """Listens at a dead daemon's port, keeps what callers say, and answers with `answer`."""

    def __init__(self, port, answer=b""):
        self._listener = socket.create_server(("127.0.0.1", port))
        self._answer = answer
        self._kept = []
        self.said = bytearray()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for caller in self._kept:
            caller.close()
        self._thread.join(DEADLINE_S)

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                caller, _ = self._listener.accept()
                self._kept.append(caller)
                threading.Thread(target=self._listen_to, args=(caller,), daemon=True).start()

    def _listen_to(self, caller):
        with contextlib.suppress(OSError):
            caller.sendall(self._answer)
            while data := caller.recv(65536):
                self.said += data


def call(address, method, metadata, request=b""):
    """The answers (messages) of one call over a connection of its own; none: it was refused."""
    host, port = address.rsplit(":", 1)
    body = h2.message(request)
    with socket.create_connection((host, int(port)), timeout=DEADLINE_S) as connection:
        connection.sendall(h2.PREFACE + h2.frame(h2.SETTINGS, 0, 0) +
                           h2.frame(h2.HEADERS, h2.END_HEADERS, 1, h2.headers(method, *metadata)) +
                           h2.in_frames(body, 1))
        stream = connection.makefile("rb")
        data = b""
        while len(head := stream.read(9)) == 9:
            payload = stream.read(int.from_bytes(head[:3], "big"))
            if int.from_bytes(head[5:], "big") != 1:
                continue
            if head[3] == h2.DATA:
                data += payload
            if head[4] & h2.END_STREAM or head[3] == h2.RST_STREAM:
                break
    answers = []
    while data:
        length = struct.unpack(">I", data[1:5])[0]
        answers.append(data[5:5 + length])
        data = data[5 + length:]
    return answers


def secret_proof(secret, method, endpoint, device=bytes(24), request=b""):
    """As plugin/rpc/call_proof.h has it; `device`: its run id and clock."""
    proof = bytes(16) + secrets.token_bytes(16) + device + struct.pack("<I", len(request)) + \
        hashlib.sha256(request).digest()
    joined = b"".join(struct.pack("<I", len(x)) + x
                      for x in (b"siphon.v1 call", method.encode(), endpoint.encode(), proof))
    proof += hmac.digest(secret, joined, "sha256")
    return [("siphon-secret-bin", base64.b64encode(proof))]


class OneCall(TwoDaemonsTest):
    def device_time(self, daemon):
        """Run id and clock, as its Challenge tells."""
        (answer,) = call(daemon.address, "Challenge", secret_proof(
            self.secret.read_bytes(), "Challenge", daemon.address))
        run_id = re.match(rb"\x0a\x10(.{16})\x10", answer, re.DOTALL)
        clock, shift = 0, 0
        for byte in answer[19:]:
            clock |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        return run_id.group(1) + struct.pack("<Q", clock)

    def listing(self, daemon, device):
        return secret_proof(self.secret.read_bytes(), "List", daemon.address, device)

    def test_a_call_that_was_overheard_is_good_once_and_in_one_life(self):
        self.start_daemons()
        device = self.device_time(self.target)
        overheard = self.listing(self.target, device)
        self.assertEqual(len(call(self.target.address, "List", overheard)), 1)
        # Neither again, nor with another request, as another method, at another device.
        self.assertEqual(call(self.target.address, "List", overheard), [])
        fresh = self.listing(self.target, device)
        self.assertEqual(call(self.target.address, "List", fresh, b"\x08\x01"), [])
        self.assertEqual(call(self.target.address, "Describe", self.listing(self.target, device)),
                         call(self.target.address, "Describe", []))
        self.assertEqual(call(self.source.address, "List", self.listing(self.target, device)), [])
        # Nor one that nobody has heard yet, after a restart.
        unheard = self.listing(self.target, device)
        self.target.kill()
        self.target.start()
        self.assertEqual(call(self.target.address, "List", unheard), [])
        again = self.listing(self.target, self.device_time(self.target))
        self.assertEqual(len(call(self.target.address, "List", again)), 1)

    def test_a_fresh_challenge_makes_its_caller_known_once(self):
        """Who has made it may say more than an unproven peer; who repeats it may not."""
        self.start_daemons()
        fresh = secret_proof(self.secret.read_bytes(), "Challenge", self.target.address,
                             self.device_time(self.target))
        # The device ignores these, and their number is no limit of HTTP/2's.
        much = h2.frame(h2.SETTINGS, 0, 0, struct.pack(">HI", 0xabcd, 0) * 2000)
        pieces = 50

        def may_say_much():
            host, port = self.target.address.rsplit(":", 1)
            with socket.create_connection((host, int(port)), timeout=DEADLINE_S) as connection:
                connection.sendall(h2.PREFACE + h2.frame(h2.SETTINGS, 0, 0) +
                                   h2.frame(h2.HEADERS, h2.END_HEADERS, 1,
                                            h2.headers("Challenge", *fresh)) +
                                   h2.in_frames(h2.message(b""), 1))
                stream = connection.makefile("rb")
                said = 0
                with contextlib.suppress(ConnectionError):
                    while said <= pieces and len(head := stream.read(9)) == 9:
                        stream.read(int.from_bytes(head[:3], "big"))
                        answered = head[3] == h2.HEADERS and head[4] & h2.END_STREAM
                        if answered or (said and head[3] == h2.SETTINGS and head[4] == h2.ACK):
                            connection.sendall(much)
                            said += 1
                return said > pieces
        self.assertTrue(may_say_much())
        self.assertFalse(may_say_much(), "a Challenge that was overheard")

    def test_a_challenge_that_was_overheard_makes_nobody_known(self):
        """It gets answers, no thread, and an end."""
        self.start_daemons()
        overheard = secret_proof(self.secret.read_bytes(), "Challenge", self.target.address)
        host, port = self.target.address.rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=DEADLINE_S) as connection, \
                contextlib.suppress(ConnectionError):
            connection.sendall(h2.PREFACE + h2.frame(h2.SETTINGS, 0, 0))
            for number in range(20):
                connection.sendall(h2.frame(h2.HEADERS, h2.END_HEADERS, 2 * number + 1,
                                            h2.headers("Challenge", *overheard)))
            while connection.recv(65536):
                pass
        self.assertEqual(len(call(self.target.address, "Challenge", overheard)), 1)


class Flood(TwoDaemonsTest):
    def secrets_in(self, heard):
        secret = self.secret.read_bytes()
        return [what for what in (secret, secret.hex().encode(), base64.b64encode(secret),
                                  str(self.dir).encode(), b"e-secret-name") if what in heard]

    def test_a_flood_of_unproven_peers_stops_no_copy_and_fills_no_memory(self):
        self.start_daemons()
        self.put("e-secret-name", 4 * MIB)
        daemons = (self.source, self.target)
        before = [h2.memory(d.pid, "VmRSS") for d in daemons]
        pids = [d.pid for d in daemons]

        def copy(number):
            ran = self.siphon("copy", f"{self.source.address}/e-secret-name",
                              f"{self.target.address}/t{number}", "--bwlimit", "4M", code=None)
            self.assertEqual(ran.code, OK, f"copy {number} under a flood: {ran}")
            self.assertEqual(sha256_of(self.target.folder / f"t{number}"),
                             self.digests["e-secret-name"])
        copies, heard, counts = h2.flooded(
            [self.base_port, self.base_port + 1],
            [*self.data_ports, *range(self.base_port + 20, self.base_port + 24)], copy)
        peaks = [h2.memory(pid) for pid in pids]
        print(f"{copies} copies; {counts}; RSS before "
              f"{[b // MIB for b in before]}, at most {[p // MIB for p in peaks]} MiB; "
              f"heard {len(heard)} bytes", flush=True)
        self.assertEqual([d.pid for d in daemons if d.is_alive()], pids)
        self.assertGreater(copies, 0)
        self.assertGreater(len(heard), 0)
        self.assertEqual(self.secrets_in(heard), [])
        for daemon, peak in zip(daemons, peaks):
            self.assertLess(peak, h2.BOUND_BYTES)
            self.assertLess(daemon.log.stat().st_size, 64 * MIB)
        self.assert_nothing_left()

    def test_header_blocks_that_expand_fill_no_memory(self):
        """Each of a few kilobytes, that would be megabytes once its fields are written out, and the
        peer has acknowledged no settings."""
        self.start_daemons()
        port = self.base_port + 1
        before = h2.memory(self.target.pid, "VmRSS")
        kept = []
        for name, value, count in ((b"lb-cost-bin", bytes(9) + b"n" * 4000, 3900),
                                   (b"x", b"", 15000)) * 50:
            block = h2.headers("List") + b"\x40" + h2.field(name, value)[1:] + b"\xbe" * count
            kept.append(socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S))
            self.addCleanup(kept[-1].close)
            # No end of headers: it is kept.
            kept[-1].sendall(h2.PREFACE + h2.frame(h2.SETTINGS, 0, 0) +
                             h2.frame(h2.HEADERS, 0, 1, block))
        self.put("e1", MIB)
        self.copy("e1")
        grown = h2.memory(self.target.pid) - before
        self.assertLess(grown, 64 * MIB, f"{grown // MIB} MiB for {len(kept)} header blocks")

    def test_who_takes_a_dead_daemons_port_learns_nothing_that_can_be_used(self):
        """Neither as the target, nor as the source, whatever he answers."""
        self.start_daemons()
        self.put("e-secret-name", MIB)
        settings = b"\0\0\0\4\0\0\0\0\0"  # HTTP/2, so that callers go on
        for victim in (self.target, self.source):
            port = int(victim.address.rsplit(":", 1)[1])
            victim.kill()
            with self.subTest(victim.folder.name), Recorder(port, settings) as recorder:
                run = self.start([SIPHON, *self.copy_words("e-secret-name"), "-f", "json",
                                  "--secret-file", self.secret])
                wait_until(lambda: b"Challenge" in recorder.said or run.ended(),
                           DEADLINE_S, "a caller")
                run.send(signal.SIGKILL)
                run.wait()
                said = bytes(recorder.said)
            # It was asked who it is, and no more.
            self.assertIn(b"siphon-secret-bin", said)
            self.assertEqual(self.secrets_in(said), [])
            for word in (b"SiphonService/Transfer", b"SiphonService/Stream", b"Describe"):
                self.assertNotIn(word, said)
            victim.start()

    def test_an_unproven_peer_is_told_nothing_but_version_and_adapter(self):
        self.start_daemons()
        ran = self.siphon("daemons", f"{self.target.address}/", secret=False)
        told = dict(ran.document["devices"][0])
        self.assertEqual(told.pop("adapter"), "posix")
        self.assertTrue(told.pop("version"))
        self.assertEqual(told.pop("control_address"), self.target.address)  # what was asked
        self.assertEqual(told.pop("device"), self.target.address)
        self.assertEqual(told.pop("pools"), [])
        self.assertEqual(told, {})


class Refused(TwoDaemonsTest):
    def refused(self, *words):
        """What siphond says when it does not start."""
        ran = subprocess.run([SIPHOND, *map(str, words)], capture_output=True, text=True,
                             timeout=60, check=False, stdin=subprocess.DEVNULL)
        self.assertEqual(ran.returncode, CONFIG_EXIT, ran.stderr)
        return ran.stderr

    def test_a_companion_with_a_secret_file_is_refused_at_start(self):
        for more in ((), ("--check-config",)):
            said = self.refused("--companion", "--id", "0", "--secret-file", self.secret, *more)
            self.assertIn(f"secret_file {self.secret} is for stand-alone daemons", said)
            self.assertNotIn(self.secret.read_bytes().hex(), said)

    def test_a_wildcard_as_control_address_is_refused_at_start(self):
        for address in ("0.0.0.0:7400", "[::]:7400", "[::ffff:0.0.0.0]:7400", "[::ffff:0:0]:7400"):
            said = self.refused("--store", f"posix:{self.source.folder}", "--listen", address,
                                "--secret-file", self.secret)
            self.assertIn("control.listen", said)
            self.assertIn("a wildcard", said)
            said = self.refused("--store", f"posix:{self.source.folder}", "--secret-file",
                                self.secret, "--set", f"data.address={address[:-5]}")
            self.assertIn("data.address", said)
            self.assertIn("a wildcard", said)

    def test_an_address_with_a_zone_is_refused_at_start(self):
        for words, setting in ((("--listen", "[fe80::1%lo]:7400"), "control.listen"),
                               (("--set", "data.address=fe80::1%lo"), "data.address")):
            said = self.refused("--store", f"posix:{self.source.folder}", "--secret-file",
                                self.secret, *words)
            self.assertIn(setting, said)
            self.assertIn("has a zone (%lo)", said)


if __name__ == "__main__":
    two_daemons.main()
