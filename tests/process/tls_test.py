#!/usr/bin/python3
"""TLS on the control calls: both ends show a certificate of one CA, or nothing is said.

The keys are made here, by openssl, for each run.
"""

import subprocess

import two_daemons
from two_daemons import MIB, OK, TwoDaemonsTest


class Authority:
    """A CA of its own, with one certificate for 127.0.0.1."""

    def __init__(self, folder):
        folder.mkdir()
        self.ca, self.cert, self.key = folder / "ca.pem", folder / "cert.pem", folder / "key.pem"
        names = folder / "names"
        names.write_text("subjectAltName=IP:127.0.0.1\n")
        new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        self._openssl("req", "-x509", *new_key, "-days", "1", "-subj", f"/CN={folder.name}",
                      "-keyout", folder / "ca.key", "-out", self.ca)
        self._openssl("req", *new_key, "-subj", "/CN=device", "-keyout", self.key,
                      "-out", folder / "request")
        self._openssl("x509", "-req", "-in", folder / "request", "-CA", self.ca, "-CAkey",
                      folder / "ca.key", "-CAcreateserial", "-days", "1", "-extfile", names,
                      "-out", self.cert)

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
        stranger = ["--tls-ca", self.ours.ca, "--tls-cert", theirs.cert, "--tls-key", theirs.key]
        for options in ([], stranger, theirs.options):
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

    def test_half_of_the_files_is_refused_at_start(self):
        self.target.kill()
        self.target.settings[:] = self.ours.settings[:2]
        with self.assertRaisesRegex(AssertionError, f"ended: {two_daemons.EXIT_CONFIG}"):
            self.target.start()
        self.assertIn("tls.key", self.target.log_tail())
        ran = self.siphon("daemons", f"{self.target.address}/", *self.ours.options[:4], code=None)
        self.assertIn("tls", str(ran.stderr))
        self.assertNotEqual(ran.code, OK)


if __name__ == "__main__":
    two_daemons.main()
