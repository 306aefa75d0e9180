"""cluster's large part with the OSDs' devices in memory: what is left when no disk limits (root)"""

import contextlib
import copy
import pathlib
import subprocess
import tempfile

import testbed
from suites import cluster
from testbed import GIB, MIB

OSD_GIB = 4  # a third of 2 GiB of sources and 1 GiB of target, twice, and BlueStore's own
NEEDED = 3 * OSD_GIB * GIB + 4 * GIB  # devices, daemons


def available_bytes():
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


@contextlib.contextmanager
def folder_in_memory():
    with tempfile.TemporaryDirectory(prefix="siphon-bench-") as folder:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={NEEDED}", "siphon", folder],
                                 capture_output=True, text=True, check=False)
        if mounted.returncode != 0:
            raise SystemExit(f"the suite memory mounts a tmpfs, which only root may: {mounted.stderr}")
        try:
            yield pathlib.Path(folder)
        finally:
            testbed.run(["umount", folder])


def run(arguments, result):
    if available_bytes() < NEEDED:
        raise SystemExit(f"the suite memory needs {NEEDED // GIB} GiB of free memory, "
                         f"{available_bytes() // GIB} are there")
    cluster.describe(result)
    with folder_in_memory() as folder:
        here = copy.copy(arguments)
        here.dir = folder / "c"
        with testbed.Testbed(here, osd_gib=OSD_GIB) as bed:
            cluster.run_large(bed, result, arguments.runs, 128 * MIB if arguments.quick else GIB)
    cluster.large_ratios(result, "memory")
