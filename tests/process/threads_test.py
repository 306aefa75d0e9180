"""A daemon that the system gives no more threads: it says so, and lives.

A user that nobody else runs as has a limit of tasks that counts this daemon's threads alone; root
has none. Needs root.
"""

import os
import pathlib
import resource
import shutil
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import two_daemons  # noqa: E402 (after the path is known)
from two_daemons import KIB, OK, TwoDaemonsTest, wait_for  # noqa: E402

USER = 64_771  # nobody's
MOST_SPARE = 12


class NoThreadTest(TwoDaemonsTest):
    def setUp(self):
        super().setUp()
        self.assertEqual(os.geteuid(), 0, "needs root: it runs a daemon as a user of its own")

    def run_as_a_user_of_its_own(self, daemon):
        self.dir.chmod(0o755)
        daemon.program = self.dir / "siphond"  # the build may be in a folder that he cannot enter
        shutil.copy2(two_daemons.SIPHOND, daemon.program)
        daemon.user = USER
        secret = self.dir / f"secret of {daemon.folder.name}"
        shutil.copy2(self.secret, secret)
        daemon.secret = secret
        for path in (secret, daemon.folder):
            os.chown(path, USER, USER)

    def limit_threads(self, daemon, count):
        _, hard = resource.prlimit(daemon.pid, resource.RLIMIT_NPROC)
        resource.prlimit(daemon.pid, resource.RLIMIT_NPROC, (count, hard))

    def copy_with_few_threads_at(self, daemon):
        self.run_as_a_user_of_its_own(daemon)
        self.start_daemons()
        refused = 0
        for spare in range(MOST_SPARE):
            name = f"e{spare}"
            path = self.put(name, 256 * KIB)
            if daemon is self.source:
                os.chown(path, USER, USER)
            log_before = daemon.log.stat().st_size
            self.limit_threads(daemon, daemon.thread_count() + spare)
            run = self.start_copy(name, "--lanes", "2")

            def met_the_limit():
                with open(daemon.log, "rb") as log:
                    log.seek(log_before)
                    return b"no thread" in log.read()
            wait_for(lambda: run.ended() or met_the_limit(), two_daemons.DEADLINE_S,
                     f"the copy ends, or {daemon.folder.name} says that it has no thread")
            refused += met_the_limit()
            self.assertTrue(daemon.is_alive(), daemon.log_tail())
            self.limit_threads(daemon, 10_000)
            ran = run.wait()
            self.assertTrue(daemon.is_alive(), daemon.log_tail())
            self.assertEqual(ran.code, OK, f"{spare} threads to spare\n{ran}")
            self.assert_copied(name)
            self.assert_nothing_left()
        self.assertGreater(refused, 0, "no copy met the limit")

    def test_a_source_without_threads_says_so_and_lives(self):
        self.copy_with_few_threads_at(self.source)

    def test_a_target_without_threads_says_so_and_lives(self):
        self.copy_with_few_threads_at(self.target)


if __name__ == "__main__":
    two_daemons.main()
