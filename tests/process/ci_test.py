#!/usr/bin/python3
""".ci/run with stand-ins for what it runs: in which order, what fails it, and that nothing outlives it."""

import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

REPO = pathlib.Path(__file__).resolve().parents[2]
DEADLINE_S = 600  # what is prepared has the lowest priority

# Both write what they were called with; a file named after a call says what it does.
STANDIN = """#!/bin/bash
call="$(basename "$0") $*"
echo "$call" >> "$STUB_DIR/calls"
script=$STUB_DIR/${call//[ \\/]/_}
[[ ! -e $script ]] || . "$script"
"""


class CiTest(unittest.TestCase):

    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="siphon-ci-"))
        self.addCleanup(shutil.rmtree, self.dir)
        self.tree = self.dir / "tree"
        shutil.copytree(REPO / ".ci", self.tree / ".ci")
        for name in ("tests/run", "tests/lint/run", "vstart-scripts/release", "vstart-scripts/build"):
            path = self.tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(STANDIN)
            path.chmod(0o755)

    def that(self, call, script):
        (self.dir / call.replace(" ", "_").replace("/", "_")).write_text(script)

    def start(self, seconds=DEADLINE_S):
        return subprocess.Popen([self.tree / ".ci" / "run"], text=True, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                env={**os.environ, "STUB_DIR": str(self.dir),
                                     "SIPHON_CI_SECONDS": str(seconds)})

    def run_it(self, code=0, seconds=DEADLINE_S):
        process = self.start(seconds)
        said, _ = process.communicate(timeout=DEADLINE_S)
        self.assertEqual(code, process.returncode, said)
        return [line.removeprefix("ci: ") for line in said.splitlines()]

    def calls(self):
        return (self.dir / "calls").read_text().splitlines()

    def prepare_of(self, release):
        return f"release run {release} -- vstart-scripts/build cluster_suite"

    def call_of(self, release, name):
        return f"run --release {release} cluster -- -R ^cluster\\.{name}$"

    def run_in(self, release):
        return [call for call in self.calls() if call.startswith(f"run --release {release} ")]

    def test_all_of_it_runs_in_order(self):
        said = self.run_it()
        calls = self.calls()
        foreground = [call for call in calls
                      if call.startswith("run ") and call != "run --threads --all"]
        self.assertEqual(["run lint", "run --preset no-ceph unit contract",
                          r"run --preset no-ceph process -- -R ^process\."
                          "(formats|cli_folder|cli_trash|identity)_test$",
                          "run unit contract process", "run cluster", "run --preset asan unit contract", "run fuzz",
                          self.call_of("reef", "cls_methods"),
                          self.call_of("tentacle", "cls_methods"),
                          self.call_of("reef", "authority")], foreground[:10])
        self.assertEqual((5, 5), (len(self.run_in("reef")), len(self.run_in("tentacle"))))
        for release in ("reef", "tentacle"):
            self.assertLess(calls.index("run unit contract process"),
                            calls.index(self.prepare_of(release)))
            self.assertLess(calls.index(self.prepare_of(release)),
                            calls.index(self.call_of(release, "cls_methods")))
        self.assertRegex(said[-1], "tentacle: errors: passed")

    def test_a_release_that_cannot_be_had_fails_nothing_and_is_said(self):
        for code, words in ((3, "no mirror: none"), (1, "no mount namespace")):
            with self.subTest(words=words):
                self.that("release run tentacle -- true", f"echo 'release: {words}'; exit {code}")
                (self.dir / "calls").unlink(missing_ok=True)
                said = self.run_it()
                self.assertIn(f"tentacle: NOT TESTED: release: {words}", said)
                self.assertEqual((5, 0), (len(self.run_in("reef")), len(self.run_in("tentacle"))))

    def test_a_test_that_no_time_is_left_for_is_said_and_not_begun(self):
        said = self.run_it(seconds=0)
        self.assertEqual((0, 0), (len(self.run_in("reef")), len(self.run_in("tentacle"))))
        for release in ("reef", "tentacle"):
            self.assertTrue([line for line in said if line.startswith(f"{release}: ")
                             and "NOT TESTED: no time is left" in line], said)
        # Those that do not belong to a later release run in any case.
        self.assertIn("run fuzz", self.calls())

    def test_a_build_that_no_time_is_left_for_is_ended(self):
        self.that(self.prepare_of("tentacle"), "echo $$ > $STUB_DIR/preparing; exec sleep 600")
        self.that("run fuzz", "until [[ -s $STUB_DIR/preparing ]]; do sleep 0.05; done")
        said = self.run_it(seconds=0)
        self.assertIn("tentacle: NOT TESTED: no time is left to prepare it", said)
        self.assert_ended("preparing")

    def test_a_build_that_fails_there_fails_it(self):
        self.that(self.prepare_of("tentacle"), "echo 'FAILED: a.cc'; exit 1")
        said = self.run_it(code=1)
        self.assertIn("FAILED: a.cc", said)
        self.assertRegex(said[-1], "tentacle: FAILED while it was prepared")

    def test_a_test_that_fails_fails_it(self):
        self.that(self.call_of("reef", "proof"), "exit 8")
        said = self.run_it(code=8)
        self.assertRegex(said[-1], "reef: proof: FAILED after")
        self.that("run lint", "exit 1")
        self.assertRegex(self.run_it(code=1)[-1], "lint: FAILED after")

    def test_a_test_beside_which_it_is_prepared_may_fail_before_that_ends(self):
        self.that(self.prepare_of("reef"), "echo $$ > $STUB_DIR/preparing; exec sleep 600")
        self.that("run cluster", "until [[ -s $STUB_DIR/preparing ]]; do sleep 0.05; done; exit 8")
        self.run_it(code=8)
        self.assert_ended("preparing")

    def test_what_it_started_ends_with_it(self):
        self.that(self.prepare_of("reef"), "echo $$ > $STUB_DIR/preparing; exec sleep 600")
        self.that("run cluster", "echo $$ > $STUB_DIR/testing; exec sleep 600")
        process = self.start()
        files = [self.dir / name for name in ("preparing", "testing")]
        self.wait_until(lambda: all(file.exists() and file.read_text() for file in files))
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=DEADLINE_S)
        self.assertEqual(143, process.returncode)
        self.assert_ended("preparing", "testing")

    def wait_until(self, condition):
        end = time.monotonic() + DEADLINE_S
        while not condition():
            self.assertLess(time.monotonic(), end)
            time.sleep(0.05)

    def assert_ended(self, *names):
        for name in names:
            process = pathlib.Path("/proc", (self.dir / name).read_text().strip())
            self.wait_until(lambda path=process: not path.exists())


if __name__ == "__main__":
    unittest.main(verbosity=2)
