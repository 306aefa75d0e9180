#!/usr/bin/python3
"""Each check of tests/lint/run is seen to fail: a fault of each kind is planted in a copy of the
tree, and the run must name the check, the file and the fault.
"""

import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

REPO = pathlib.Path(__file__).resolve().parents[2]

# Check: [(file, what stands there, what is planted instead, what the run says)]. "" stands at the
# end of every file, and is all of a new one.
FAULTS = {
    "format": [("plugin/base/throttle.h", "", "int  x;\n", r"base/throttle\.h:\d+:.*format")],
    "shell": [("vstart-scripts/build", "", "rm -r $x/*\n", r"In vstart-scripts/build line")],
    "python": [("tests/lint/layers.py", "import re\n", "import re\nimport os\n", r"'os' imported")],
    "spelling": [("docs/architecture.md", "The rooms", "T" "eh rooms",
                  r"architecture\.md:\d+: \w+ ==>")],
    "subjects": [],  # the commit's own
    "words": [("plugin/rpc/client.cc", "", 'bool f(Error* e) { return e->message.find("x"); }\n',
               r"rpc/client\.cc:\d+:.*message\.find")],
    "layers": [
        ("plugin/stream/frame.h", "#include <cstdint>\n", '#include "plugin/rpc/client.h"\n',
         r"stream/frame\.h:\d+ includes plugin/rpc/client\.h: stream may not include rpc, only: "),
        ("plugin/osd/region.cc", "", "#include <fmt/format.h>\n",
         r"osd/region\.cc:\d+ includes fmt/format\.h: osd may not use fmt, only: objclass"),
        ("plugin/stream/receiver.cc", "", "#include <boost/asio.hpp>\n",
         r"stream/receiver\.cc:\d+ includes boost/asio\.hpp: stream may not use boost"),
        ("plugin/stream/sender.cc", "", "#include <asio/ip.hpp>\n",
         r"stream/sender\.cc:\d+ includes asio/ip\.hpp: it is of no room and no library"),
        ("adapters/newcomer/store.h", "", "// new\n", r"adapters/newcomer/store\.h is in no room"),
        ("plugin/base/types.cc", "", '#include "plugin/exchange/exchange.h"\n',
         r"base/types\.cc:\d+ includes plugin/exchange/exchange\.h: base may not include exchange"),
        ("docs/architecture.md", "    base --> core\n", "", r"architecture\.md is not drawn from"),
    ],
}
# By tests/lint/threads.py: what a mutex guards, touched without it.
UNLOCKED = [
    ("plugin/osd/region.h", "  Mutex grants_mutex_;",
     "  std::uint64_t planted_ SIPHON_GUARDED_BY(grants_mutex_) = 0;\n  Mutex grants_mutex_;"),
    ("plugin/osd/region.h", "  void count_stale() {", "  void count_stale() {\n    ++planted_;"),
]
SUBJECT = "A subject that goes on and on, far beyond the column that a list of commits has room for"


class PlantedFaultsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        scratch = tempfile.TemporaryDirectory()
        cls.addClassCleanup(scratch.cleanup)
        tree = pathlib.Path(scratch.name) / "tree"
        tree.mkdir()
        for name in (".clang-format", ".codespellrc"):
            shutil.copy(REPO / name, tree)
        for name in ("plugin", "adapters", "docs", "tests/lint", "vstart-scripts"):
            shutil.copytree(REPO / name, tree / name,
                            ignore=shutil.ignore_patterns("__pycache__", "img", "cli"))
        git = ["git", "-C", str(tree), "-c", "user.name=x", "-c", "user.email=x@example.org"]
        for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", SUBJECT]):
            subprocess.run([*git, *command], check=True)
        for faults in [*FAULTS.values(), UNLOCKED]:
            for name, old, new, *_ in faults:
                path = tree / name
                path.parent.mkdir(exist_ok=True)
                text = path.read_text(encoding="utf-8") if path.exists() else ""
                assert old in text, f"{name} has no {old!r} any more"
                path.write_text(text.replace(old, new, 1) if old else text + new, encoding="utf-8")
        ran = subprocess.run([str(tree / "tests" / "lint" / "run")], text=True, check=False,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        cls.said, cls.status = ran.stdout, ran.returncode
        cls.tree = tree

    def test_each_check_has_a_fault(self):
        names = re.search(r"^readonly checks=\((.*)\)$", (REPO / "tests/lint/run").read_text(
            encoding="utf-8"), flags=re.M)[1].split()
        self.assertEqual(list(FAULTS), names)

    def test_each_fault_is_found(self):
        self.assertEqual(1, self.status, self.said)
        for check, faults in FAULTS.items():
            self.assertRegex(self.said, rf"(?m)^lint: {check}: FAILED")
            for name, _, _, expected in faults:
                with self.subTest(check=check, file=name):
                    self.assertRegex(self.said, expected)
        self.assertIn(f"{len(SUBJECT)} columns: {SUBJECT}", self.said)

    def test_who_touches_what_is_guarded_without_its_lock_is_found(self):
        for tree, status, expected in [
                (self.tree, 1, r"osd/region\.h:\d+:\d+: error: writing variable 'planted_' requires "
                               r"holding mutex 'grants_mutex_'"), (REPO, 0, r"^$")]:
            ran = subprocess.run(["tests/lint/threads.py", "plugin/osd/region.cc"], cwd=tree,
                                 text=True, check=False, stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT)
            self.assertRegex(ran.stdout, expected)
            self.assertEqual(status, ran.returncode, ran.stdout)


if __name__ == "__main__":
    unittest.main()
