#!/usr/bin/python3
"""What the command line takes from Ceph's own settings, and says where there is no cluster, or no Ceph
in the build."""

import os
import unittest

from folder_cli import CliTest
from cli import FATAL, NOT_FOUND


class CliCephTest(CliTest):

    def test_what_ceph_takes_from_its_own_variables_is_told(self):
        def of(flag, *words, **env):
            rows = self.json("config", "show", *words, env=env)["settings"]
            return next((r["value"], r["from"]) for r in rows if r["flag"] == flag)
        self.assertEqual(of("--conf", CEPH_CONF="/c"), ("/c", "CEPH_CONF"))
        self.assertEqual(of("--keyring", CEPH_KEYRING="/k"), ("/k", "CEPH_KEYRING"))
        self.assertEqual(of("--conf", CEPH_CONF="/c", CEPH_ARGS="-c /a"), ("/a", "CEPH_ARGS"))
        self.assertEqual(of("--conf", CEPH_CONF="/c", SIPHON_CONF="/s"), ("/s", "SIPHON_CONF"))
        self.assertEqual(of("--conf", "-c", "/f", CEPH_CONF="/c"), ("/f", "flag"))
        none = self.home / "none.conf"
        if os.environ.get("SIPHON_WITH_CEPH") == "OFF":
            errors = self.siphon("ls", "p1", "-c", none, expect=FATAL).stderr.decode()
            self.assertIn("no Ceph in it", errors)
            self.assertIn("SIPHON_WITH_CEPH=ON", errors)
            return
        for words, env, said in (((), {"CEPH_CONF": str(none)}, f"{none} (from CEPH_CONF): "),
                                 (("-c", none), {}, f"configuration {none}: ")):
            errors = self.siphon("ls", "p1", *words, env=env, expect=NOT_FOUND).stderr.decode()
            self.assertIn(said, errors)
            self.assertIn("--conf FILE", errors)


if __name__ == "__main__":
    unittest.main(verbosity=2)
