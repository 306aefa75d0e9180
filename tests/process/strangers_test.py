#!/usr/bin/python3
"""What a stranger may do to a daemon: nothing. And configurations that would let him are refused."""

import subprocess

import two_daemons
from two_daemons import SIPHOND, TwoDaemonsTest

CONFIG_EXIT = 78


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
        for address in ("0.0.0.0:7400", "[::]:7400"):
            said = self.refused("--store", f"posix:{self.source.folder}", "--listen", address,
                                "--secret-file", self.secret)
            self.assertIn("control.listen", said)
            self.assertIn("a wildcard", said)


if __name__ == "__main__":
    two_daemons.main()
