#!/usr/bin/python3
"""The demonstration behind vstart-scripts/quickstart: extents go from pool to pool, and are proven.

Everything here goes through the command lines that a user has (cluster, ceph, siphon, cmp,
sha256sum); what they answer is read as JSON. The content of an extent is the files of this machine,
one after the other, as listed in DIR/quickstart/NAME.files: anybody can make the same bytes again
with `xargs -0 cat` and compare.
"""

import argparse
import contextlib
import hashlib
import json
import math
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

SCRIPTS = pathlib.Path(__file__).resolve().parent
REPO = SCRIPTS.parent
BIN = REPO / "build" / "release" / "bin"
SIPHON = BIN / "siphon"
CLUSTER = SCRIPTS / "cluster"
RELEASE = os.environ.get("SIPHON_RELEASE", "")  # whose chroot we are in, if in one
DEFAULT_DIR = REPO / (f"cluster-{RELEASE}" if RELEASE else "cluster")
CONTENT_FOLDERS = ("/usr/bin", "/usr/lib", "/usr/share")
STEPS = 6
# Beyond the data: logs, BlueStore's own files, room to breathe.
SPARE_BYTES = 1 << 30
OSDS = 3
PLACEMENT_GROUPS = "32"  # enough that every way between two OSDs has some name
GIB = 1 << 30
MIB = 1 << 20


class Failure(Exception):
    """Ends the demonstration with a message, and what to do next."""


def parse_bytes(text):
    match = re.fullmatch(r"(\d+)\s*([KMG]?)(i?B)?", text.strip(), re.IGNORECASE)
    if not match:
        raise argparse.ArgumentTypeError(f"not a size: '{text}' (examples: 1G, 256M)")
    size = int(match[1]) << (10 * " KMG".index(match[2].upper() or " "))
    if not 1 <= size <= 32 * GIB:
        raise argparse.ArgumentTypeError(f"{text}: an extent here has 1 byte to 32 GiB")
    return size


def parse_count(low, high):
    def parse(text):
        if not text.isdigit() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"'{text}' is not a number from {low} to {high}")
        return int(text)
    return parse


def parser():
    p = argparse.ArgumentParser(
        prog="quickstart", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Installs, builds, starts a Ceph cluster on loopback with the plugin in its"
        " OSDs, makes\nextents from real files, copies them from pool to pool out of band, and"
        " proves them.\nLeaves the cluster up. Run it again as often as you like.",
        epilog="examples:\n  quickstart\n  quickstart --extents 4 --size 256M --lanes 2\n"
        "  quickstart --dir cluster-b --port 17289   a second cluster beside the first\n"
        "  quickstart --release tentacle             on Ceph 20.2")
    p.add_argument("--dir", default=str(DEFAULT_DIR),
                   help="the cluster's folder (cluster/ in the checkout, or cluster-NAME/ of a release)")
    p.add_argument("--release", choices=("pacific", "reef", "tentacle"), metavar="NAME",
                   help="which Ceph: pacific (this machine's own), or reef or tentacle in a chroot that"
                   " vstart-scripts/release makes first (pacific)")
    p.add_argument("--port", type=parse_count(1024, 65036),
                   help="the mon's port (16789); all else takes ports from the 499 that follow")
    p.add_argument("--extents", type=parse_count(1, 64), default=2, metavar="N",
                   help="how many extents (2)")
    p.add_argument("--size", type=parse_bytes, default=GIB, metavar="BYTES",
                   help="content of each (1G)")
    p.add_argument("--replicas", type=parse_count(1, OSDS), default=2, metavar="N",
                   help="replicas in both pools (2)")
    p.add_argument("--lanes", type=parse_count(1, 16), default=1, metavar="N",
                   help="TCP connections per transfer (1)")
    p.add_argument("--preflight", action="store_true", help=argparse.SUPPRESS)
    return p


# -------------------------------------------------------------------------------- running programs


def say(text=""):
    print(text, flush=True)


def step(number, text):
    say(f"[{number}/{STEPS}] {text}")


def human(count):
    for unit, size in (("GiB", GIB), ("MiB", MIB), ("KiB", 1024)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count} bytes"


class Demo:
    def __init__(self, arguments):
        self.arguments = arguments
        self.dir = pathlib.Path(os.path.abspath(arguments.dir))
        self.notes = self.dir / "quickstart"
        self.conf = self.dir / "ceph.conf"
        # Nothing that the caller's shell says of another cluster.
        self.environment = {k: v for k, v in os.environ.items()
                            if not k.startswith(("CEPH_", "SIPHON_"))}
        self.environment["CEPH_CONF"] = str(self.conf)

    def run(self, argv, **options):
        """The program's standard output. Its errors are shown as they are."""
        result = subprocess.run([str(a) for a in argv], env=self.environment, text=True,
                                stdout=subprocess.PIPE, **options)
        if result.returncode != 0:
            raise Failure(f"this failed with exit code {result.returncode}: "
                          + " ".join(str(a) for a in argv))
        return result.stdout

    def ceph(self, *words):
        """What a ceph command answers as JSON."""
        return json.loads(self.run(["ceph", "--connect-timeout", "30", *words, "-f", "json"]))

    def tell_ceph(self, *words):
        """Runs a ceph command that changes something; it reports on stderr in any case."""
        argv = ["ceph", "--connect-timeout", "30", *words]
        result = subprocess.run(argv, env=self.environment, text=True, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT)
        if result.returncode != 0:
            raise Failure(f"{' '.join(argv)}: {result.stdout.strip()}")

    def siphon(self, *words, ok=(0,)):
        """(exit code, document) of a verb run with -f json."""
        argv = [str(SIPHON), *[str(w) for w in words], "-f", "json"]
        result = subprocess.run(argv, env=self.environment, text=True, stdout=subprocess.PIPE,
                                stderr=None if ok == (0,) else subprocess.PIPE)
        if result.returncode not in ok:
            if result.stderr:
                sys.stderr.write(result.stderr)
            raise Failure(f"this failed with exit code {result.returncode}: {' '.join(argv)}")
        return result.returncode, json.loads(result.stdout)

    # ---------------------------------------------------------------------------------- preflight

    def preflight(self):
        """What can be known to fail before anything is installed, built or started."""
        a = self.arguments
        needed = a.extents * a.size * a.replicas * 2 + SPARE_BYTES
        used = sum(f.stat().st_blocks * 512 for f in self.dir.glob("osd.*/block"))
        place = self.dir
        while not place.exists():
            place = place.parent
        free = shutil.disk_usage(place).free
        if free + used < needed:
            each = (free + used - SPARE_BYTES) // (a.extents * a.replicas * 2 * MIB)
            advice = (f"try --size {each}M" if each >= 16 else
                      "free some space, or name another place with --dir")
            raise Failure(f"{place} has {human(free)} free, and {a.extents} extents of"
                          f" {human(a.size)} with {a.replicas} replicas in two pools need"
                          f" {human(needed)}: {advice}")

    # ------------------------------------------------------------------------------------ cluster

    def start_cluster(self):
        a = self.arguments
        began = time.monotonic()
        argv = [CLUSTER, "up", "--dir", self.dir, "-f", "json"]
        if not (self.dir / "cluster.json").exists():
            capacity = max(8 * GIB, 2 * a.extents * a.size * a.replicas * 2 // OSDS)
            argv += ["--osd-bytes", math.ceil(capacity / GIB) * GIB]
        if a.port:
            argv += ["--port", a.port]
        self.run(argv)
        seconds = time.monotonic() - began
        status = json.loads(self.run([CLUSTER, "status", "--dir", self.dir, "-f", "json"]))
        health = self.ceph("health")
        reasons = ", ".join(health["checks"])
        health = health["status"] + (f" ({reasons})" if reasons else "")
        osds = sum(1 for d in status["daemons"] if d["name"].startswith("osd."))
        version = self.run(["ceph-osd", "--version"]).split()[2]
        step(2, f"a cluster is up in {self.dir}: Ceph {version} from the packages, {osds} OSDs,"
             f" {health} ({seconds:.0f} s)")

    def wait_companions(self):
        """The companions register a moment after their OSDs are up."""
        deadline = time.monotonic() + 60
        while True:
            code, doc = self.siphon("daemons", "demo-src", "demo-dst", ok=(0, 5, 6, 7, 12))
            if code == 0:
                return {d["device"]: d for d in doc["devices"]}
            if time.monotonic() > deadline:
                raise Failure("not every OSD's siphond answers; see their words in "
                              f"{self.dir}/log/osd.*.log and osd.*.out")
            time.sleep(0.5)

    def make_pools(self):
        a = self.arguments
        pools = set(self.ceph("osd", "pool", "ls"))
        made = []
        for pool in ("demo-src", "demo-dst"):
            if pool not in pools:
                self.tell_ceph("osd", "pool", "create", pool, PLACEMENT_GROUPS)
                made.append(pool)
            self.tell_ceph("osd", "pool", "application", "enable", pool, "siphon")
            size = self.ceph("osd", "pool", "get", pool, "size")["size"]
            if size != a.replicas:
                sure = ["--yes-i-really-mean-it"] if a.replicas == 1 else []
                self.tell_ceph("osd", "pool", "set", pool, "size", str(a.replicas), *sure)
        devices = self.wait_companions()
        what = "made pools" if made else "pools"
        step(3, f"{what} demo-src and demo-dst, {a.replicas} replicas, application tag siphon")
        for name, d in sorted(devices.items()):
            say(f"        {name}: siphond pid {d['pid']}, control port {d['control_address']},"
                f" data ports {d['data_ports']}, store {d['adapter']}")
        return devices

    # ------------------------------------------------------------------------------------ extents

    def choose_names(self):
        """Names whose primaries differ in the two pools, so that every copy goes from OSD to OSD.

        The first few are also chosen so that no two copies have the same way.
        """
        names, ways, number = [], set(), 0
        while len(names) < self.arguments.extents:
            number += 1
            if number > 1000:
                raise Failure("no names found whose primary OSDs differ in the two pools; does the"
                              " cluster have more than one OSD up?")
            name = f"files-{number}"
            way = tuple(self.ceph("osd", "map", pool, name)["acting_primary"]
                        for pool in ("demo-src", "demo-dst"))
            if way[0] != way[1] and (way not in ways or number > 12):
                names.append(name)
                ways.add(way)
        return names

    def all_files(self):
        files = []
        for folder in CONTENT_FOLDERS:
            for where, subfolders, leaves in os.walk(folder):
                subfolders.sort()
                for leaf in sorted(leaves):
                    path = os.path.join(where, leaf)
                    with contextlib.suppress(OSError):
                        if os.path.isfile(path) and not os.path.islink(path):
                            if size := os.path.getsize(path):
                                files.append((path, size))
        if not files:
            raise Failure(f"no files under {', '.join(CONTENT_FOLDERS)}")
        return files

    def write_list(self, name, index, files):
        """Which files make up the extent: from another one on for each, around if need be."""
        size = self.arguments.size
        path = self.notes / f"{name}.files"
        start = (index * 7919) % len(files)
        chosen, total = [], 0
        while total < size:
            file, length = files[(start + len(chosen)) % len(files)]
            chosen.append(file)
            total += length
        path.write_bytes(b"".join(os.fsencode(f) + b"\0" for f in chosen))
        return path, len(chosen)

    def content(self, name):
        """The shell words that make the content again; head ends xargs, which grumbles."""
        return (f"xargs -0 cat 2>/dev/null < '{self.notes / name}.files'"
                f" | head -c {self.arguments.size}")

    def content_sha256(self, name):
        return self.run(["bash", "-c", self.content(name) + " | sha256sum"]).split()[0]

    def stat(self, extent):
        """What is recorded of an extent; None when there is none."""
        code, doc = self.siphon("stat", extent, ok=(0, 3))
        return doc["info"] if code == 0 else None

    def put(self, name, index, files):
        """Writes one extent, unless the one of an earlier run is there. Returns its SHA-256."""
        note = self.notes / f"{name}.json"
        there = self.stat(f"demo-src/{name}")
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            known = json.loads(note.read_text())
            if (there["private_id"] == known["private_id"]
                    and there["header"]["content_bytes"] == self.arguments.size
                    and self.content_sha256(name) == known["sha256"]):
                return known["sha256"], None
        self.notes.mkdir(exist_ok=True)
        _, count = self.write_list(name, index, files())
        sha256 = self.content_sha256(name)
        if there:
            self.siphon("rm", "--purge", "--yes-i-really-mean-it", f"demo-src/{name}")
        began = time.monotonic()
        command = f"{self.content(name)} | '{SIPHON}' put --no-progress demo-src/{name} - -f json"
        info = json.loads(self.run(["bash", "-c", command]))["info"]
        seconds = time.monotonic() - began
        if info["header"]["content_bytes"] != self.arguments.size:
            raise Failure(f"the files in {self.notes / name}.files have become fewer bytes;"
                          " run it again")
        note.write_text(json.dumps({"private_id": info["private_id"], "sha256": sha256}) + "\n")
        say(f"        demo-src/{name}: {human(self.arguments.size)} of {count} files,"
            f" {info['header']['blocks']} blocks, crc32 {info['header']['crc32']}"
            f" ({self.arguments.size / 1e6 / seconds:.0f} MB/s)")
        return sha256, seconds

    def make_extents(self):
        names = self.choose_names()
        cache = []

        def files():
            if not cache:
                cache.append(self.all_files())
            return cache[0]

        step(4, f"extents from the files in {', '.join(CONTENT_FOLDERS)}")
        sha256 = {}
        for index, name in enumerate(names):
            sha256[name], seconds = self.put(name, index, files)
            if seconds is None:
                say(f"        demo-src/{name}: there already, from an earlier run")
        return sha256

    # --------------------------------------------------------------------------------------- copy

    def remove_old(self, names):
        """Earlier runs' copies, and their sources under names not used any more."""
        old = []
        for pool, kept in (("demo-src", names), ("demo-dst", ())):
            _, doc = self.siphon("ls", pool)
            old += [f"{pool}/{e['name']}" for e in doc["extents"]
                    if e["name"].startswith("files-") and e["name"] not in kept]
        if old:
            self.siphon("rm", "--purge", "--yes-i-really-mean-it", *old)
        return len(old)

    def messenger_bytes(self):
        """What all OSDs together have received through Ceph's messenger."""
        total = 0
        for socket in sorted((self.dir / "run").glob("ceph-osd.*.asok")):
            counters = json.loads(self.run(["ceph", "daemon", socket, "perf", "dump"]))
            total += sum(worker.get("msgr_recv_bytes", 0) for key, worker in counters.items()
                         if key.startswith("AsyncMessenger::Worker"))
        return total

    def copy(self, names):
        a = self.arguments
        removed = self.remove_old(names)
        step(5, "copy demo-src to demo-dst"
             + (f" (after removing {removed} extents of earlier runs)" if removed else ""))
        receipts = self.notes / "receipts.ndjson"
        before = self.messenger_bytes()
        sources = [f"demo-src/{name}" for name in names]
        _, doc = self.siphon("copy", "--lanes", a.lanes, "--receipts", receipts, *sources,
                             "demo-dst")
        doc["messenger_bytes"] = self.messenger_bytes() - before
        return doc

    def print_copy(self, doc, devices):
        a, summary = self.arguments, doc["summary"]
        for item in doc["extents"]:
            r = item["receipt"]
            say(f"        {item['source']} -> {item['target']}: {r['bytes']} bytes")
            for role in ("source", "target"):
                d = devices.get(r[f"{role}_device"], {})
                say(f"            {role}: {r[f'{role}_device']} (siphond pid {d.get('pid', '?')},"
                    f" control {d.get('control_address', '?')}), crc32 {r[f'{role}_crc32']}")
            say(f"            data port {r['data_endpoint']}, {r['lanes']} lane(s); sealed header's"
                f" crc32 {r['header']['crc32']}")
        moved = summary["bytes"]
        say(f"        {human(moved)} in {summary['seconds']:.2f} s:"
            f" {moved / 1e6 / summary['seconds']:.0f} MB/s on {os.cpu_count()} cores")
        say(f"        on the data lanes: {summary['lane_bytes']} bytes;"
            f" on gRPC, from target to source and back: {summary['rpc_bytes']} bytes")
        replicas = moved * (a.replicas - 1)
        beyond = max(0, doc["messenger_bytes"] - replicas)
        text = f"        received by all OSDs through Ceph's messenger: {human(beyond)}"
        if replicas:
            text += f", beside the {human(replicas)} with which RADOS makes the other replicas"
        say(text)
        say(f"        operations that had to go through librados instead:"
            f" {summary['fallback_parts']}")

    # ------------------------------------------------------------------------------------- verify

    def verify(self, sha256):
        step(6, "verify")
        for name, expected in sha256.items():
            _, doc = self.siphon("verify", f"demo-src/{name}", f"demo-dst/{name}")
            if doc["exit_code"] != 0:
                raise Failure(f"siphon verify found a difference at {name}")
            say(f"        siphon verify demo-src/{name} demo-dst/{name}: the same, every block's"
                " SHA-256 checked beside each OSD")
            actual = self.read_back(name)
            if actual != expected:
                raise Failure(f"demo-dst/{name} reads back with SHA-256 {actual}, the files have"
                              f" {expected}")
            say(f"        siphon get demo-dst/{name} - | cmp: identical to the files, SHA-256"
                f" {actual}")

    def read_back(self, name):
        """The SHA-256 of the copy's content, which cmp compares with the files meanwhile."""
        digest = hashlib.sha256()
        get = subprocess.Popen([SIPHON, "get", "--no-progress", f"demo-dst/{name}", "-"],
                               env=self.environment, stdout=subprocess.PIPE)
        compare = subprocess.Popen(["bash", "-c", f"cmp - <({self.content(name)})"],
                                   env=self.environment, stdin=subprocess.PIPE)
        with contextlib.suppress(BrokenPipeError):  # cmp stops at the first difference
            while piece := get.stdout.read(MIB):
                digest.update(piece)
                compare.stdin.write(piece)
            compare.stdin.close()
        get.stdout.close()
        if get.wait() != 0 or compare.wait() != 0:
            raise Failure(f"demo-dst/{name} does not read back as the files it was made of")
        return digest.hexdigest()

    def farewell(self, doc):
        receipt = doc["extents"][0]["receipt"]
        say()
        say("The receipt of the first extent"
            f" (all of them: {self.notes / 'receipts.ndjson'}):")
        say(json.dumps(receipt, indent=2))
        where = "" if self.dir == REPO / "cluster" else f" --dir {self.dir}"
        shell = f"\n  {SCRIPTS / 'release'} shell {RELEASE}" if RELEASE else ""
        say(f"""
The cluster stays up. Look around:
{shell}
  export CEPH_CONF={self.conf} PATH={BIN}:$PATH
  ceph -s                                 # services: siphon: {OSDS} daemons active
  siphon daemons                          # what each OSD's siphond says of itself
  siphon ls -l demo-dst                   # the copies
  siphon transfers --all                  # what has been done
  siphon get demo-dst/{receipt['target_extent']} - | sha256sum
  siphon copy --help

Take it down:

  {CLUSTER} down{where}            # data stays; {CLUSTER.name} up brings it back
  {CLUSTER} down{where} --purge    # and now it does not""")


def main():
    arguments = parser().parse_args()
    demo = Demo(arguments)
    try:
        demo.preflight()
        if arguments.preflight:
            return 0
        demo.start_cluster()
        devices = demo.make_pools()
        sha256 = demo.make_extents()
        doc = demo.copy(list(sha256))
        demo.print_copy(doc, devices)
        demo.verify(sha256)
        demo.farewell(doc)
    except Failure as failure:
        print(f"quickstart: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"quickstart: interrupted; a cluster may be up: {CLUSTER} status --dir {demo.dir}",
              file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main())
