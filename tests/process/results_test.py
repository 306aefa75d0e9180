#!/usr/bin/python3
"""What tests/support/results.py makes of the runs that it finds: only what ran is published."""

import contextlib
import io
import json
import pathlib
import shutil
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
import results

PASSED = '<testcase name="{0}" time="2" status="run"/>'
FAILED = '<testcase name="{0}" time="2" status="fail"><failure message=""/></testcase>'
LEFT_OUT = ('<testcase name="{0}" time="2" status="notrun"><skipped message="SKIP_RETURN_CODE=77"/>'
            '<system-out>a line\nno such thing there\n</system-out></testcase>')
NOT_BUILT = ('<testcase name="{0}" time="0" status="notrun"><skipped message=""/>'
             '<system-out>Unable to find executable</system-out></testcase>')


class ResultsTest(unittest.TestCase):

    def setUp(self):
        self.tree = pathlib.Path(tempfile.mkdtemp(prefix="siphon-results-"))
        self.addCleanup(shutil.rmtree, self.tree)
        self.addCleanup(setattr, results, "REPO", results.REPO)
        results.REPO = self.tree
        self.count = 0

    def ran(self, cases, folder="build/reef/results", ended=True, **changes):
        """A run of the suite `unit` with the tests a, b and c, some of which were selected."""
        self.count += 1
        record = {"release": "reef", "preset": "release", "date": f"2026-01-0{self.count} 00:00",
                  "on": {"ceph": "18.2.7", "ceph_commit": "6b0e", "debian": "trixie"},
                  "commit": f"commit{self.count}", "code": ["1"], "changed": [],
                  "tests": {"unit": ["a", "b", "c"]}, **changes}
        path = self.tree / folder / f"{self.count}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record))
        if ended:
            body = "".join(form.format(name) for name, form in cases.items())
            path.with_suffix(".xml").write_text(f"<testsuite>{body}</testsuite>")

    def found(self, published=None):
        with contextlib.redirect_stderr(io.StringIO()):
            return results.collect(published or {})["reef"].get("unit")

    def test_of_parts_of_a_suite_each_test_has_its_last_result(self):
        self.ran({"a": PASSED, "b": FAILED})
        self.ran({"b": PASSED}, commit="later")
        found = self.found()
        self.assertEqual((3, 2, [], ["b"], ["c"]),
                         tuple(found[key] for key in
                               ("tests", "passed", "failed", "passed_at_last", "not_run")))
        self.assertEqual(("later", "2026-01-01 00:00", "2026-01-02 00:00", 4),
                         tuple(found[key] for key in ("commit", "from", "to", "seconds")))
        self.assertEqual("2 of 3, 1 not run", results.cell(found))

    def test_a_failure_is_published(self):
        self.ran({"a": PASSED, "b": PASSED, "c": PASSED})
        self.ran({"c": FAILED})
        self.assertEqual("2 of 3, 1 failed", results.cell(self.found()))
        self.assertIn("- `c` failed.", results.details({"unit": self.with_build(self.found())}))

    def with_build(self, result):
        return {**result, "on": {**result["on"], "compiler": "gcc 14", "grpc": "archives"}}

    def test_what_is_left_out_says_why_and_what_was_not_built_failed(self):
        self.ran({"a": PASSED, "b": LEFT_OUT, "c": NOT_BUILT})
        found = self.found()
        self.assertEqual(({"b": "no such thing there"}, ["c"]), (found["left_out"], found["failed"]))
        self.assertEqual("1 of 3, 1 failed, 1 left out", results.cell(found))

    def test_a_result_of_other_code_or_another_ceph_counts_no_more(self):
        self.ran({"a": PASSED, "b": PASSED, "c": PASSED})
        self.ran({"a": PASSED}, code=["2"])
        self.assertEqual((1, ["b", "c"]), (self.found()["passed"], self.found()["not_run"]))
        self.ran({"b": PASSED}, code=["2"], on={"ceph": "18.2.8", "ceph_commit": "77", "debian": "x"})
        self.assertEqual((1, ["a", "c"]), (self.found()["passed"], self.found()["not_run"]))

    def test_only_whole_runs_of_a_committed_tree_and_the_release_preset_count(self):
        self.ran({"a": PASSED}, ended=False)
        self.ran({"a": PASSED}, changed=[" M plugin/x.cc"])
        self.ran({"a": PASSED}, preset="dev")
        self.assertIsNone(self.found())

    def test_what_was_published_stays_until_a_later_run(self):
        old = {"tests": 3, "passed": 3, "to": "2026-01-01 12:00"}
        self.ran({"a": PASSED})
        self.assertEqual(old, self.found({"reef": {"unit": old}}))
        self.ran({"a": PASSED})
        self.assertEqual(1, self.found({"reef": {"unit": old}})["passed"])

    def test_what_ran_on_this_machine_itself_is_found_beside_it(self):
        self.ran({"a": PASSED}, folder="build/results", release="pacific")
        self.assertEqual(1, results.collect({})["pacific"]["unit"]["passed"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
