#!/usr/bin/python3
"""What tests/support/coverage.py makes of gcovr's figures."""

import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
import coverage


def counted(filename, lines, branches=(0, 0)):
    return {"filename": filename, "line_covered": lines[0], "line_total": lines[1],
            "branch_covered": branches[0], "branch_total": branches[1]}


class CoverageTest(unittest.TestCase):

    FILES = [counted("plugin/base/crc32.cc", (10, 20), (1, 4)),
             counted("plugin/base/fd.h", (10, 10)),
             counted("plugin/cli/doctor/caps.cc", (0, 8)),
             counted("adapters/store_util.h", (3, 4), (1, 2))]

    def test_files_are_added_up_by_room(self):
        rows = coverage.table(self.FILES, {}).splitlines()[2:]
        self.assertEqual(rows, ["| adapters | 4 | 75.0 % | 2 | 50.0 % | - |",
                                "| plugin/base | 30 | 66.7 % | 4 | 25.0 % | - |",
                                "| plugin/cli | 8 | 0.0 % | 0 | - | - |",
                                "| all | 42 | 54.8 % | 6 | 33.3 % | - |"])

    def test_what_is_not_in_the_build_is_told(self):
        path = "adapters/rados/parts.cc"
        missing = coverage.not_built(self.FILES, [path, "plugin/base/crc32.cc"])
        self.assertEqual({room: list(files) for room, files in missing.items()},
                         {"adapters/rados": [path]})
        lines = len((coverage.REPO / path).read_text().splitlines())
        rows = coverage.table(self.FILES, missing).splitlines()
        self.assertIn(f"| adapters/rados | 0 | - | 0 | - | {lines} |", rows)
        self.assertTrue(rows[-1].endswith(f"| {lines} |"), rows[-1])

    def test_the_page_has_all_its_figures(self):
        text = coverage.page(self.FILES, [], {"suites": "unit", "commit": "c0ffee", "changed": "",
                                              "date": "2026-01-01"})
        self.assertNotIn("{{", text)
        self.assertIn("tests/run --preset coverage unit\n", text)
        self.assertLess(text.index("`plugin/base/crc32.cc` | 10 | 20"),
                        text.index("`plugin/cli/doctor/caps.cc` | 8 | 8"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
