#!/usr/bin/python3
"""What the build must keep to, whatever is built: read from the tree and from what was built;
nothing is compiled."""

import os
import pathlib
import re
import subprocess
import tempfile
import unittest

REPO = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ["SIPHON_BIN_DIR"]).parent
SHIPPED = [pathlib.Path(os.environ["SIPHON_BIN_DIR"]) / name
           for name in ("siphond", "siphon", "libcls_siphon.so")
           if name != "libcls_siphon.so" or os.environ.get("SIPHON_WITH_CEPH") != "OFF"]


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


    def test_what_is_installed_where(self):
        with tempfile.TemporaryDirectory() as prefix:
            def installed(component):
                subprocess.run(["cmake", "--install", BUILD, "--prefix", prefix, "--component",
                                component], check=True, capture_output=True)
                return {str(path.relative_to(prefix)) for path in pathlib.Path(prefix).rglob("*")
                        if path.is_file()}
            client = {"bin/siphon", "bin/siphond"}
            self.assertEqual(installed("client"), client)
            for name in client:
                subprocess.run([f"{prefix}/{name}", "--version"], check=True, capture_output=True)
            if os.environ.get("SIPHON_WITH_CEPH") == "OFF":
                return
            osd = installed("osd") - client
            library = next(name for name in osd if name.endswith("rados-classes/libcls_siphon.so"))
            siphond = str(pathlib.Path(library).parent / "siphond")
            settings = "share/doc/siphon/siphond.toml"
            self.assertEqual(osd, {library, siphond, settings,
                                   "lib/systemd/system/ceph-osd@.service.d/siphon.conf"})
            subprocess.run([f"{prefix}/{siphond}", "--config", f"{prefix}/{settings}",
                            "--check-config"], check=True, capture_output=True)
            # Every setting that the file shows is one, and is shown with its default.
            shown = pathlib.Path(prefix, settings).read_text()
            used = pathlib.Path(prefix, "used.toml")
            used.write_text(re.sub(r"(?m)^# (\w+ = .*)$", r"\1", re.sub(
                r"(?s)\[tls\].*?(?=\n\[)", "", shown)))

            def checked(*words):
                text = subprocess.run([f"{prefix}/{siphond}", *words, "--check-config"], check=True,
                                      capture_output=True, text=True).stdout
                return text.splitlines()[1:]  # without the one that names the file
            from_file = checked("--config", used)
            self.assertIn("  # file,", "\n".join(from_file))
            self.assertEqual([line.replace("  # file,", "  # default,") for line in from_file],
                             checked())


if __name__ == "__main__":
    unittest.main(verbosity=2)
