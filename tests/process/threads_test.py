"""A daemon that the system gives no more threads: it says so, and lives.

A user that nobody else runs as has a limit of tasks that counts this daemon's threads alone; root
has none. Needs root.
"""

import os
import pathlib
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import two_daemons  # noqa: E402 (after the path is known)
from cli import OK, SIPHON, SIPHOND
from formats import KIB
from waiting import DEADLINE_S, wait_until
from two_daemons import TwoDaemonsTest

USER = 64_771  # nobody's
MOST_SPARE = 12


class NoThreadTest(TwoDaemonsTest):
    def setUp(self):
        super().setUp()
        self.assertEqual(os.geteuid(), 0, "needs root: it runs a daemon as a user of its own")

    def run_as_a_user_of_its_own(self, daemon):
        self.dir.chmod(0o755)
        daemon.program = self.dir / "siphond"  # the build may be in a folder that he cannot enter
        shutil.copy2(SIPHOND, daemon.program)
        daemon.user = USER
        secret = self.dir / f"secret of {daemon.folder.name}"
        shutil.copy2(self.secret, secret)
        daemon.secret = secret
        os.chown(secret, USER, USER)
        self.give_away(daemon)

    def give_away(self, daemon):
        """The folder of a daemon that runs as another user, to him."""
        if daemon.user is None:
            return
        for path in (daemon.folder, *daemon.folder.rglob("*")):
            os.chown(path, USER, USER, follow_symlinks=False)

    def limit_threads(self, daemon, count):
        """As himself: root need not be able to."""
        subprocess.run(["prlimit", f"--nproc={count}:", "--pid", str(daemon.pid)], user=USER,
                       check=True)

    def put(self, name, size):
        path = super().put(name, size)
        self.give_away(self.source)
        return path

    def copy_with_few_threads_at(self, daemon):
        self.run_as_a_user_of_its_own(daemon)
        self.start_daemons()
        refused = 0
        for spare in range(MOST_SPARE):
            name = f"e{spare}"
            self.put(name, 256 * KIB)
            self.limit_threads(daemon, daemon.thread_count() + spare)
            told = self.dir / f"told {name}"
            with open(told, "wb") as stderr:
                run = subprocess.Popen(
                    [SIPHON, *self.copy_words(name, "--lanes", "2"), "--secret-file", self.secret],
                    stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr)
            self.addCleanup(run.kill)
            wait_until(lambda: run.poll() is not None or b"busy" in told.read_bytes(),
                         DEADLINE_S, "the copy ends, or waits for its turn")
            refused += run.poll() is None
            self.assertTrue(daemon.is_alive(), daemon.log_tail())
            self.limit_threads(daemon, 10_000)
            self.assertEqual(run.wait(DEADLINE_S), OK,
                             f"{spare} threads to spare\n{told.read_text()}")
            self.assertTrue(daemon.is_alive(), daemon.log_tail())
            self.assert_copied(name)
            self.assert_nothing_left()
        self.assertGreater(refused, 0, "no copy met the limit")

    def test_a_source_without_threads_says_so_and_lives(self):
        self.copy_with_few_threads_at(self.source)

    def test_a_target_without_threads_says_so_and_lives(self):
        self.copy_with_few_threads_at(self.target)


if __name__ == "__main__":
    two_daemons.main()
