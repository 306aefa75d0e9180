#!/usr/bin/python3
"""One folder under two names is one thing: nothing is copied onto itself, and no source is lost by
it. Two daemons on two hosts over one shared folder are played by two folders with one store id.
"""

import os
import shutil

import two_daemons
from lane_proxy import LaneProxy
from cli import PERMISSION, TEMPORARY, USAGE
from formats import MIB, sha256_of
from two_daemons import TwoDaemonsTest

CONFIRM = "--yes-i-really-mean-it"


class IdentityTest(TwoDaemonsTest):
    def setUp(self):
        super().setUp()
        self.source.start()
        self.put("e1", 5 * MIB)

    def assert_refused(self, *words, reason="one and the same"):
        """As one thing: exit 2, the source is there byte for byte."""
        ran = self.siphon(*words, code=USAGE)
        self.assertIn(reason, str(ran), str(ran))
        self.assertEqual(sha256_of(self.source.folder / "e1"), self.digests["e1"])
        self.assertEqual(self.source.public_names(), {"e1": self.digests["e1"]})

    def both_verbs(self, source, target, reason="one and the same"):
        self.assert_refused("copy", source, target, reason=reason)
        self.assert_refused("copy", "--replace", CONFIRM, source, target, reason=reason)
        self.assert_refused("move", source, target, CONFIRM, reason=reason)
        self.assert_refused("move", "--replace", source, target, CONFIRM, reason=reason)

    def test_a_daemon_is_itself_under_any_spelling_of_its_address(self):
        here = self.source.address
        for spelling in (here, f"localhost:{self.source.port}"):
            self.both_verbs(f"{here}/e1", f"{spelling}/e1")
            self.both_verbs(f"{spelling}/e1", f"{here}/e1")
            self.both_verbs(f"{spelling}/e1", f"{here}/")

    def test_another_address_that_leads_to_a_daemon_is_no_end_of_a_copy(self):
        """Through somebody who passes the calls on, or by another family: it proves its secret for
        its own address alone."""
        here, port = self.source.address, self.source.port
        proxy = LaneProxy([port])
        self.addCleanup(proxy.close)
        for other in (f"127.0.0.2:{port}", f"[::ffff:127.0.0.1]:{port}", f"[::1]:{port}"):
            for source, target in ((here, other), (other, here), (other, other)):
                for verb in (("copy", "--replace"), ("move",)):
                    with self.subTest(verb=verb, source=source, target=target):
                        ran = self.siphon(*verb, f"{source}/e1", f"{target}/e1", CONFIRM,
                                          code=None)
                        self.assertIn(ran.code, (USAGE, PERMISSION, TEMPORARY), str(ran))
                        self.assertEqual(self.source.public_names(),
                                         {"e1": self.digests["e1"]}, str(ran))

    def test_two_daemons_over_one_store_are_one_thing(self):
        self.target.start()
        self.target.close()
        shutil.copy(self.source.folder / ".siphon" / "id", self.target.folder / ".siphon" / "id")
        self.target.start()
        self.both_verbs(f"{self.source.address}/e1", f"{self.target.address}/e1")
        self.both_verbs(f"{self.source.address}/e1", f"{self.target.address}/")
        self.assertEqual(self.target.public_names(), {})

    def test_a_folder_without_its_daemon_is_no_end_of_a_copy_however_it_is_written(self):
        link = self.dir / "link"
        link.symlink_to(self.source.folder)
        relative = os.path.relpath(self.source.folder)
        for spelling in (self.source.folder, link, relative):
            self.both_verbs(f"{self.source.address}/e1", f"posix:{spelling}/e1",
                            reason="without a daemon")
            self.both_verbs(f"posix:{spelling}/e1", f"{self.source.address}/e1",
                            reason="without a daemon")

    def test_two_stores_are_two_things(self):
        self.target.start()
        ids = {(d.folder / ".siphon" / "id").read_text() for d in (self.source, self.target)}
        self.assertEqual(len(ids), 2)
        self.copy("e1")
        self.assert_copied("e1")
        # The same store under another name of the extent is a copy like any other.
        here = self.source.address
        self.siphon("copy", f"{here}/e1", f"{here}/e2")
        self.assertEqual(sha256_of(self.source.folder / "e2"), self.digests["e1"])


if __name__ == "__main__":
    two_daemons.main()
