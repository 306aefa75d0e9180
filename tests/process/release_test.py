#!/usr/bin/python3
"""vstart-scripts/release without a network: a mirror of one file, and a debootstrap that copies a shell
instead of a Debian. The real thing takes minutes: `vstart-scripts/release make reef`.
"""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

REPO = pathlib.Path(__file__).resolve().parents[2]
DEADLINE_S = 60

# What debootstrap makes, as far as the script sees: a root with programs and Debian's folders.
DEBOOTSTRAP = """#!/bin/bash
root=${@: -3:1}
echo "$@" >> "$STUB_DIR/debootstrap.log"
mkdir "$root"
touch "$root/begun"
if [[ -e $STUB_DIR/hang ]]; then echo $$ > "$STUB_DIR/hanging"; exec sleep 600; fi
if [[ -e $STUB_DIR/fail ]]; then echo "E: the mirror broke off"; exit 1; fi
for program in bash env cat ls sleep chroot; do
  program=$(readlink -f "$(command -v $program)")
  mkdir -p "$root/usr/bin"
  cp "$program" "$root/usr/bin/"
  for library in $(ldd "$program" | grep -o '/[^ ]*'); do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
  done
done
ln -s bash "$root/usr/bin/sh"
printf '#!/bin/sh\\n' > "$root/usr/bin/apt-get"
chmod 755 "$root/usr/bin/apt-get"
mkdir -p "$root/usr/lib/locale"
cp -r /usr/lib/locale/C.utf8 "$root/usr/lib/locale/"
mkdir -p "$root"/{etc/dpkg/dpkg.cfg.d,etc/apt/apt.conf.d,usr/sbin,var/lib/dpkg}
[[ -e $root/bin ]] || ln -s usr/bin "$root/bin"
echo packages > "$root/var/lib/dpkg/status"
"""
PACKAGES = """#!/usr/bin/env bash
[[ ${1:-} == --missing ]] || echo "packages ${SIPHON_RELEASE:-outside} $*"
"""
BUILD = """#!/usr/bin/env bash
echo "built in $SIPHON_RELEASE" > build/made
"""


class ReleaseTest(unittest.TestCase):

    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="siphon-release-"))
        self.addCleanup(shutil.rmtree, self.dir)
        self.tree, self.place = self.dir / "tree", self.dir / "place"
        scripts, bin_dir = self.tree / "vstart-scripts", self.dir / "bin"
        scripts.mkdir(parents=True)
        bin_dir.mkdir()
        self.script = scripts / "release"
        shutil.copy(REPO / "vstart-scripts" / "release", self.script)
        for path, text in ((scripts / "packages", PACKAGES), (scripts / "build", BUILD),
                           (bin_dir / "debootstrap", DEBOOTSTRAP)):
            path.write_text(text)
            path.chmod(0o755)
        self.mirror = self.dir / "mirror"
        for suite in ("trixie", "forky"):
            (self.mirror / "dists" / suite).mkdir(parents=True)
            (self.mirror / "dists" / suite / "InRelease").write_text(f"Codename: {suite}\n")
        codename = re.search(r"^VERSION_CODENAME=(\w+)$", pathlib.Path("/etc/os-release").read_text(),
                             flags=re.M)[1]
        self.sources = self.dir / "sources.list"
        self.sources.write_text(f"deb file:{self.mirror} {codename} main\n")
        self.apt_conf = self.dir / "apt.conf"
        self.set_apt("")
        self.environment = {
            **os.environ, "SIPHON_RELEASES": str(self.place), "STUB_DIR": str(self.dir),
            "PATH": f"{bin_dir}:/usr/sbin:/usr/bin:/sbin:/bin", "APT_CONFIG": str(self.apt_conf),
            "CCACHE_DIR": str(self.dir / "ccache")}

    def set_apt(self, more):
        self.apt_conf.write_text('Dir::Etc::main "/dev/null";\nDir::Etc::parts "/dev/null";\n'
                                 f'Dir::Etc::sourcelist "{self.sources}";\n'
                                 f'Dir::Etc::sourceparts "/dev/null";\n{more}')

    def start(self, *words, **options):
        return subprocess.Popen([self.script, *words], env=self.environment, text=True,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, cwd=self.tree, **options)

    def run_it(self, *words, code=0):
        process = self.start(*words)
        stdout, stderr = process.communicate(timeout=DEADLINE_S)
        self.assertEqual(code, process.returncode, stdout + stderr)
        return stdout, stderr

    def one_line(self, *words, code=1):
        """The one line that a command that cannot be done says."""
        stdout, stderr = self.run_it(*words, code=code)
        self.assertEqual("", stdout)
        self.assertEqual(1, stderr.count("\n"), stderr)
        return stderr

    def made(self):
        """How often debootstrap was called."""
        log = self.dir / "debootstrap.log"
        return log.read_text().count("\n") if log.exists() else 0

    def wait_for(self, path):
        end = time.monotonic() + DEADLINE_S
        while not path.exists():
            self.assertLess(time.monotonic(), end, f"no {path}")
            time.sleep(0.05)

    def assert_nothing_mounted(self):
        self.assertNotIn(str(self.dir), pathlib.Path("/proc/self/mountinfo").read_text())

    def test_an_unknown_name_is_told_with_the_known_ones(self):
        for words in (("make", "squid"), ("run", "squid", "true"), ("shell", ""), ("rm", "../reef")):
            self.assertIn("the releases are: pacific reef tentacle", self.one_line(*words, code=2))

    def test_who_is_not_root_is_told(self):
        self.dir.chmod(0o755)
        ran = subprocess.run(["setpriv", "--reuid", "65534", "--clear-groups", self.script, "make",
                              "reef"], env=self.environment, capture_output=True, text=True)
        self.assertEqual((1, "release: must be root: it makes a chroot and mounts in it\n"),
                         (ran.returncode, ran.stderr))

    def test_a_place_without_space_is_told_before_anything_is_made(self):
        self.place.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", str(self.place)]
        ran = subprocess.run(["unshare", "--mount", "sh", "-c", '"$@" && exec "$0" make reef',
                              self.script, *mount], env=self.environment, capture_output=True,
                             text=True)
        self.assertEqual(1, ran.returncode)
        self.assertRegex(ran.stderr, r"\Arelease: \S+/place has \d MiB free, and reef takes \d+:.*\n\Z")
        self.assertEqual(0, self.made())

    def test_no_mirror_is_told(self):
        (self.mirror / "dists" / "trixie" / "InRelease").unlink()
        self.assertRegex(self.one_line("make", "reef", code=3),
                         r"no mirror: file:\S+, of apt's sources, does not give Debian trixie")
        self.sources.write_text("")
        self.assertIn("no mirror: apt's sources name none", self.one_line("make", "reef", code=3))
        self.assertEqual(0, self.made())

    def test_a_mirror_past_its_date_is_taken_only_if_apt_is_set_to_take_it(self):
        (self.mirror / "dists" / "trixie" / "InRelease").write_text(
            "Codename: trixie\nValid-Until: Fri, 06 Nov 2020 08:08:01 UTC\n")
        self.assertIn("Acquire::Check-Valid-Until", self.one_line("make", "reef", code=3))
        self.set_apt('Acquire::Check-Valid-Until "false";\n')
        _, stderr = self.run_it("make", "reef")
        self.assertIn("The signatures are checked as ever", stderr)
        self.assertIn("--force-check-gpg", (self.dir / "debootstrap.log").read_text())
        self.assertIn('Check-Valid-Until "false"',
                      (self.place / "reef/etc/apt/apt.conf.d/90siphon").read_text())

    def test_a_command_runs_in_a_tree_whose_build_folder_is_the_releases(self):
        _, stderr = self.run_it("make", "tentacle")
        self.assertIn("in " + str(self.place / "tentacle"), stderr)
        self.assertEqual("built in tentacle\n", (self.tree / "build/tentacle/made").read_text())
        stdout, stderr = self.run_it("run", "tentacle", "--", "bash", "-c",
                                     "pwd; cat build/made; echo $SIPHON_RELEASE; exec cat /begun")
        self.assertEqual((f"{self.tree}\nbuilt in tentacle\ntentacle\n", ""), (stdout, stderr))
        self.run_it("run", "tentacle", "sh", "-c", "exit 7", code=7)
        self.assertEqual(1, self.made())
        self.assert_nothing_mounted()
        self.assertRegex(self.run_it("list")[0], r"(?m)^tentacle .* ready .*MiB .*/place/tentacle$")

    def test_other_packages_make_a_build_anew(self):
        self.run_it("make", "reef")
        configured = self.tree / "build/reef/release"
        configured.mkdir()
        (configured / "build.ninja").touch()
        self.run_it("make", "reef")
        self.assertTrue(configured.exists())
        (self.place / "reef/var/lib/dpkg/status").write_text("others\n")
        self.run_it("make", "reef")
        self.assertFalse(configured.exists())

    def test_a_make_that_was_killed_is_waited_for_and_made_anew(self):
        (self.dir / "hang").touch()
        killed = self.start("make", "reef")
        self.wait_for(self.dir / "hanging")
        killed.kill()
        killed.communicate()
        (self.dir / "hang").unlink()
        self.assertIn("reef is being made", self.one_line("rm", "reef"))
        self.assertRegex(self.run_it("list")[0], r"(?m)^reef .* half made ")
        again = self.start("make", "reef")
        self.assertIn("waiting for another", again.stderr.readline())
        os.kill(int((self.dir / "hanging").read_text()), signal.SIGKILL)
        _, stderr = again.communicate(timeout=DEADLINE_S)
        self.assertEqual(0, again.returncode, stderr)
        self.assertIn("half made; making it anew", stderr)
        self.assertEqual(2, self.made())
        self.assert_nothing_mounted()

    def test_a_make_that_fails_shows_why(self):
        (self.dir / "fail").touch()
        _, stderr = self.run_it("make", "reef", code=3)
        self.assertIn("E: the mirror broke off\n", stderr)
        self.assertIn("the whole log: " + str(self.place / "reef.log"), stderr)
        self.assertRegex(self.run_it("list")[0], r"(?m)^reef .* half made ")

    def test_rm_leaves_the_tree_and_refuses_while_somebody_is_there(self):
        kept = self.tree / "kept"
        kept.touch()
        self.run_it("make", "reef")
        started = self.dir / "started"
        inside = self.start("run", "reef", "sh", "-c", f"echo > {started}; exec sleep 600")
        self.wait_for(started)
        try:
            self.assertRegex(self.run_it("list")[0], r"(?m)^reef .* in use ")
            self.assertIn(f"in use by process {inside.pid};", self.one_line("rm", "reef"))
        finally:
            inside.kill()
            inside.communicate()
        self.run_it("rm", "reef")
        self.assertFalse((self.place / "reef").exists())
        self.assertTrue(kept.exists())
        self.assertTrue((self.tree / "build/reef/made").exists())
        self.assertIn("not there; nothing to do", self.run_it("rm", "reef")[1])
        self.assertIn("this machine itself", self.one_line("rm", "pacific"))


if __name__ == "__main__":
    if os.environ.get("SIPHON_RELEASE"):
        print("in a release's chroot no other one is made")
        sys.exit(77)
    unittest.main(verbosity=2)
