#!/usr/bin/python3
"""What the build must keep to, whatever is built: read from the tree and from what was built;
nothing is compiled."""

import os
import pathlib
import re
import subprocess
import unittest

REPO = pathlib.Path(__file__).resolve().parents[2]
SHIPPED = [pathlib.Path(os.environ["SIPHON_BIN_DIR"]) / name
           for name in ("siphond", "siphon", "libcls_siphon.so")]


def readelf(path, *options):
    return subprocess.run(["readelf", "-W", *options, path], capture_output=True, text=True,
                          check=True).stdout


class BuildTest(unittest.TestCase):

    def test_no_precompiled_header_holds_what_the_build_generates(self):
        """Such a header once was older than the messages in it, and the daemon that it made mixed two
        layouts of one message."""
        found = 0
        for path in [REPO / "CMakeLists.txt", *REPO.glob("*/**/CMakeLists.txt")]:
            if "build" in path.relative_to(REPO).parts:
                continue
            for headers in re.findall(r"target_precompile_headers\(([^)]*)\)", path.read_text()):
                found += 1
                self.assertNotRegex(headers, r"BINARY_DIR|\.pb\.h|\$\{GEN\}", str(path))
        self.assertGreater(found, 0)

    def test_what_is_shipped_is_hardened(self):
        for path in SHIPPED:
            with self.subTest(path.name):
                symbols = readelf(path, "--dyn-syms")
                if re.search(r"__[at]san_init", readelf(SHIPPED[0], "--dyn-syms")):
                    self.skipTest("a sanitizer's build has the sanitizer instead")
                self.assertIn("DYN (", readelf(path, "--file-header"))
                self.assertRegex(readelf(path, "--dynamic"), r"FLAGS_1.*\bNOW\b")
                segments = readelf(path, "--segments")
                self.assertIn("GNU_RELRO", segments)
                self.assertRegex(segments, r"GNU_STACK.* RW +0x")
                self.assertIn("__stack_chk_fail", symbols)
                if path.suffix != ".so":  # the class copies nothing whose size the compiler knows
                    self.assertRegex(symbols, r"\b__(mem|str|vsn|sn|f?printf|read|recv)\w*_chk\b")


if __name__ == "__main__":
    unittest.main(verbosity=2)
