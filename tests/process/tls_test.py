#!/usr/bin/python3
"""TLS on the control calls: both ends show a certificate of one CA, or nothing is said.

The keys are made here, by openssl, for each run.
"""

import socket
import ssl
import subprocess

import two_daemons
import hostile_peer as h2  # after two_daemons, which knows where it is
from cli import EXIT_CONFIG, OK
from formats import MIB
from waiting import DEADLINE_S
from two_daemons import TwoDaemonsTest

NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


class Authority:
    """A CA of its own, with one certificate for 127.0.0.1."""

    def __init__(self, folder):
        folder.mkdir()
        self._folder, self.ca = folder, folder / "ca.pem"
        (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
        # Python from 3.13 on takes no CA without its key usage.
        self._openssl("req", "-x509", *NEW_KEY, "-days", "1", "-subj", f"/CN={folder.name}",
                      "-addext", "keyUsage=critical,keyCertSign,cRLSign",
                      "-keyout", folder / "ca.key", "-out", self.ca)
        self.cert, self.key = self.certificate("device")

    def certificate(self, name):
        """The files of one with this subject, and of its key."""
        cert, key = (self._folder / f"{name}.{what}" for what in ("pem", "key"))
        request = self._folder / "request"
        self._openssl("req", *NEW_KEY, "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        self._openssl("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey",
                      self._folder / "ca.key", "-CAcreateserial", "-days", "1", "-extfile",
                      self._folder / "names", "-out", cert)
        return cert, key

    @staticmethod
    def _openssl(*words):
        subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)

    @property
    def settings(self):
        return [f"tls.ca={self.ca}", f"tls.cert={self.cert}", f"tls.key={self.key}"]

    @property
    def options(self):
        return ["--tls-ca", self.ca, "--tls-cert", self.cert, "--tls-key", self.key]


class TlsTest(TwoDaemonsTest):
    def setUp(self):
        super().setUp()
        self.ours = Authority(self.dir / "ours")
        for daemon in (self.source, self.target):
            daemon.settings += self.ours.settings
            daemon.start()
        self.put("e1", 4 * MIB)

    def answers(self, *options):
        """The devices that let the CLI look at the target."""
        ran = self.siphon("daemons", f"{self.target.address}/", *options, code=None)
        devices = ran.document["devices"] if ran.document else []
        return ran, [d for d in devices if "pid" in d]

    def test_who_has_a_certificate_copies_and_nobody_else_is_heard(self):
        theirs = Authority(self.dir / "theirs")
        unproven = ["--tls-ca", self.ours.ca, "--tls-cert", theirs.cert, "--tls-key", theirs.key]
        for options in ([], unproven, theirs.options):
            with self.subTest(options=options):
                ran, devices = self.answers(*options)
                self.assertNotEqual(ran.code, OK)
                self.assertEqual(devices, [])
        ran, devices = self.answers(*self.ours.options)
        self.assertEqual((ran.code, len(devices)), (OK, 1))
        # The second call, from the target to the source, is a TLS one as well.
        self.copy("e1", *self.ours.options)
        self.assert_copied()

    def test_a_source_of_another_ca_is_not_called(self):
        ours = list(self.source.settings)
        self.source.settings[:] = Authority(self.dir / "theirs").settings
        self.source.restart()
        ran = self.copy("e1", *self.ours.options, code=None)
        self.assertNotEqual(ran.code, OK)
        self.assertIn(self.source.address, ran.document["extents"][0]["problem"]["message"])
        self.assertFalse((self.target.folder / "e1").exists())
        self.source.settings[:] = ours
        self.source.restart()
        self.copy("e1", *self.ours.options)

    def test_slow_calls_of_one_certificate_leave_threads_to_another(self):
        self.target.secret = ""
        self.target.restart()
        mine, others = self.ours.certificate("mine"), self.ours.certificate("others")
        context = ssl.create_default_context(cafile=self.ours.ca)
        context.load_cert_chain(*mine)
        context.set_alpn_protocols(["h2"])
        refused, calls = 0, 20
        for _ in range(2):
            connection = context.wrap_socket(
                socket.create_connection(("127.0.0.1", self.target.port), timeout=DEADLINE_S),
                server_hostname="127.0.0.1")
            self.addCleanup(connection.close)
            connection.sendall(h2.PREFACE + h2.frame(h2.SETTINGS, 0, 0) + b"".join(
                h2.frame(h2.HEADERS, h2.END_HEADERS, 2 * i + 1, h2.headers("Describe"))
                for i in range(calls)))
            # 16 of all get a thread, and none says what it asks.
            stream = connection.makefile("rb")
            for _ in range(4 if refused == 0 else calls):
                while True:
                    head = stream.read(9)
                    self.assertEqual(len(head), 9, f"hung up after {refused} refusals")
                    stream.read(int.from_bytes(head[:3], "big"))
                    if head[3] == h2.HEADERS and head[4] & h2.END_STREAM:
                        break
                refused += 1
        for (cert, key), heard in ((others, True), (mine, False)):
            ran = self.siphon("daemons", f"{self.target.address}/", "--tls-ca", self.ours.ca,
                              "--tls-cert", cert, "--tls-key", key, code=None, secret=False)
            devices = ran.document["devices"] if ran.document else []
            self.assertEqual([d for d in devices if "pid" in d] != [], heard, str(ran))

    def test_half_of_the_files_is_refused_at_start(self):
        self.target.kill()
        self.target.settings[:] = self.ours.settings[:2]
        with self.assertRaisesRegex(AssertionError, f"ended: {EXIT_CONFIG}"):
            self.target.start()
        self.assertIn("tls.key", self.target.log_tail())
        ran = self.siphon("daemons", f"{self.target.address}/", *self.ours.options[:4], code=None)
        self.assertIn("tls", str(ran.stderr))
        self.assertNotEqual(ran.code, OK)


if __name__ == "__main__":
    two_daemons.main()
