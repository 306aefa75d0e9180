#!/usr/bin/python3
"""Small inputs from public bug reports of tools that do this job: tests/cluster/cases/*.sh, each a
script with the fault, its sources and the right outcome in its head. A script prints a line per
check, `ok: ...` or `WRONG: ...`, and exits 0 or 1.
"""

import os
import pathlib
import subprocess

import harness
from cli import BIN_DIR

CASES = pathlib.Path(__file__).resolve().parent / "cases"
CASE_DEADLINE_S = 300


class CasesTest(harness.ClusterTest):
    cluster_options = {"size": 2}

    def run_case(self, name):
        environment = dict(os.environ, CEPH_CONF=str(self.cluster.conf),
                           PATH=f"{BIN_DIR}:{os.environ['PATH']}")
        ran = subprocess.run([str(CASES / f"{name}.sh")], env=environment, text=True, check=False,
                             timeout=CASE_DEADLINE_S, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT)
        self.assertNotIn("WRONG", ran.stdout, ran.stdout)
        self.assertIn("ok: ", ran.stdout, "it checked nothing")
        self.assertEqual(0, ran.returncode, ran.stdout)


def add_cases():
    for script in sorted(CASES.glob("*.sh")):
        if script.stem == "lib":
            continue

        def test(self, name=script.stem):
            self.run_case(name)

        setattr(CasesTest, f"test_{script.stem}", test)


add_cases()

if __name__ == "__main__":
    harness.main()
