"""A cluster to measure on, and what measuring means: wall time, CPU seconds and memory of every
process that takes part, and the OSDs' own counters, before and after one command."""

import concurrent.futures
import contextlib
import itertools
import json
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

import rados

import results

sys.path.insert(0, str(results.REPO / "tests" / "lib"))
from ports import port_range  # noqa: E402 (after the path is known)

CLUSTER = results.REPO / "vstart-scripts" / "cluster"
TICKS = os.sysconf("SC_CLK_TCK")
TIMEOUT_S = 300
MIB = 1 << 20
GIB = 1 << 30


class Failed(Exception):
    pass


def run(command, **options):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False,
                          timeout=TIMEOUT_S, **options)
    if done.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))}: exit {done.returncode}\n"
                     f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return done.stdout


def until(what, condition, seconds=120):
    deadline = time.monotonic() + seconds
    while True:
        if condition():
            return
        if time.monotonic() > deadline:
            raise Failed(f"{what} took longer than {seconds} s")
        time.sleep(0.1)


# ---- processes ----------------------------------------------------------------------------------


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory_kib(pid):
    wanted = {"RssAnon", "RssFile", "RssShmem"}
    found = {}
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key in wanted:
            found[key] = int(value.split()[0])
    return found


class MemoryWatch(threading.Thread):
    """The peak of each process' memory by kind, looked at 20 times a second."""

    PERIOD_S = 0.05

    def __init__(self, pids):
        super().__init__(daemon=True)
        self.pids = pids
        self.private_kib = {}  # anonymous and file: what is not the region
        self.anonymous_kib = {}
        self.ended = threading.Event()

    def look(self):
        for name, pid in self.pids.items():
            with contextlib.suppress(OSError):
                now = memory_kib(pid)
                private = now["RssAnon"] + now["RssFile"]
                self.private_kib[name] = max(self.private_kib.get(name, 0), private)
                self.anonymous_kib[name] = max(self.anonymous_kib.get(name, 0), now["RssAnon"])

    def run(self):
        while not self.ended.wait(self.PERIOD_S):
            self.look()

    def stop(self):
        self.ended.set()
        self.join()
        self.look()


def run_clients(pipeline):
    """Runs commands, each one's output into the next; returns their CPU seconds and the last
    one's output."""
    clients = []
    with tempfile.TemporaryFile() as errors:
        source = subprocess.DEVNULL
        for command in pipeline:
            client = subprocess.Popen([str(c) for c in command], stdin=source,
                                      stdout=subprocess.PIPE, stderr=errors)
            if clients:
                clients[-1].stdout.close()
            source = client.stdout
            clients.append(client)
        output = clients[-1].stdout.read().decode(errors="replace")
        cpu = 0.0
        failed = []
        for client, command in zip(clients, pipeline):
            _, status, usage = os.wait4(client.pid, 0)
            client.returncode = os.waitstatus_to_exitcode(status)
            cpu += usage.ru_utime + usage.ru_stime
            if client.returncode != 0:
                failed.append(f"{command[0]}: exit {client.returncode}")
        if failed:
            errors.seek(0)
            raise Failed("; ".join(failed) + "\n" + output[-1500:]
                         + errors.read().decode(errors="replace")[-1500:])
    return cpu, output


# ---- the cluster --------------------------------------------------------------------------------


class Testbed:
    """Three OSDs, each with its companion. Their devices are files that have been written from end
    to end: a real device has no holes, and how fast a file system fills them is not in question."""

    OSDS = 3
    GROUPS = 32  # of a pool
    EVEN = ("--groups", str(GROUPS))  # for fill: as many names in each group

    def __init__(self, arguments, osd_gib=10):
        self.bin = arguments.bin.resolve()
        self.temporary = None if arguments.dir else tempfile.mkdtemp(prefix="siphon-bench-")
        self.dir = pathlib.Path(arguments.dir or self.temporary + "/c")
        self.conf = self.dir / "ceph.conf"
        self.settings = arguments.settings
        self.port = arguments.port
        self.ports = None
        self.pids = {}
        self.osd_gib = osd_gib
        self.thick = ["--thick"] if not arguments.quick else []

    def __enter__(self):
        environment = dict(os.environ)
        for setting in self.settings:
            key, _, value = setting.partition("=")
            environment["SIPHOND_" + key.upper().replace(".", "_")] = value
        try:
            if self.port is None:
                self.ports = port_range()
                self.port = self.ports.__enter__()
            # No pause between the steps of a pool's removal: it must not reach into the next run.
            run([CLUSTER, "up", "--dir", self.dir, "--port", self.port, "--osds", self.OSDS,
                 "--memory", "896MiB", "--osd-bytes", f"{self.osd_gib}GiB", *self.thick, "--plugin",
                 self.bin / "libcls_siphon.so", "-o", "osd_delete_sleep=0"], env=environment)
            until("three companions", lambda: len(self.status()["companions"]) == self.OSDS)
            self.pids = self.processes()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_):
        subprocess.run([CLUSTER, "down", "--dir", self.dir, "--purge"], capture_output=True,
                       check=False)
        if self.ports:
            self.ports.__exit__(None, None, None)
        if self.temporary:
            shutil.rmtree(self.temporary, ignore_errors=True)

    def status(self):
        return json.loads(run([CLUSTER, "status", "--dir", self.dir, "-f", "json"]))

    def ceph(self, *words):
        return run(["ceph", "-c", self.conf, *words])

    def siphon(self, *words):
        return [self.bin / "siphon", "-c", self.conf, *words]

    def tool(self, name, *words):
        return [self.bin / f"bench_{name}", "--conf", self.conf, *words]

    def fill(self, pool, kind, count, size_bytes, *words):
        run(self.tool("fill", "--pool", pool, "--kind", kind, "--count", str(count), "--bytes",
                      str(size_bytes), *words))

    def ask_osd(self, osd, command):
        """What `ceph daemon osd.N COMMAND` answers, by the admin socket."""
        with socket.socket(socket.AF_UNIX) as admin:
            admin.settimeout(60)
            admin.connect(str(self.dir / "run" / f"ceph-osd.{osd}.asok"))
            admin.sendall(json.dumps({"prefix": command}).encode() + b"\0")
            data = b""
            while len(data) < 4 or len(data) < 4 + struct.unpack(">I", data[:4])[0]:
                piece = admin.recv(1 << 16)
                if not piece:
                    raise Failed(f"osd.{osd} cut its answer short")
                data += piece
        return data[4:].decode()

    def osd_counters(self, osd):
        return json.loads(self.ask_osd(osd, "perf dump"))["osd"]

    def drop_caches(self):
        """Bulk data is cold in life, and copy_from leaves what it reads in the OSDs' caches."""
        for osd in range(self.OSDS):
            self.ask_osd(osd, "cache drop")

    def make_pools(self, *names, groups=GROUPS):
        def make(name):
            self.ceph("osd", "pool", "create", name, str(groups))
            self.ceph("osd", "pool", "application", "enable", name, "siphon")
        with concurrent.futures.ThreadPoolExecutor() as threads:
            list(threads.map(make, names))
        self.settle()

    def spread(self, target, *sources):
        """Gives every OSD the same share of each pool, as the balancer does in life for pools of
        many groups: of the few here, CRUSH may give one OSD half as many again as another, and a
        ratio would be that luck. A group of the target has another way (primary and second) than that
        of the same number in the sources. To be filled by names that are spread EVEN."""
        numbers = {pool["poolname"]: pool["poolnum"]
                   for pool in json.loads(self.ceph("osd", "lspools", "-f", "json"))}
        ways = sorted(itertools.permutations(range(self.OSDS), 2),  # their primaries alternate
                      key=lambda way: (way[1] - way[0]) % self.OSDS)
        wanted = {}
        for name in (target, *sources):
            for group in range(self.GROUPS):
                turn = group // len(ways) % (len(ways) - 1) + 1 if name == target else 0
                wanted[f"{numbers[name]}.{group:x}"] = list(ways[(group + turn) % len(ways)])

        client = rados.Rados(conffile=str(self.conf))
        client.connect()

        def give(group):
            command = {"prefix": "osd pg-upmap", "pgid": group, "id": wanted[group]}
            result, _, text = client.mon_command(json.dumps(command), b"")
            if result != 0:
                raise Failed(f"osd pg-upmap {group}: {text}")

        def missing():
            pgs = json.loads(self.ceph("pg", "dump", "pgs_brief", "-f", "json"))["pg_stats"]
            acting = {pg["pgid"]: pg["acting"] for pg in pgs}
            return [group for group in wanted if acting.get(group) != wanted[group]]
        self.ceph("osd", "set-require-min-compat-client", "luminous")
        # All at once: the monitor answers when a new map is out, and one map takes many of them.
        try:
            with concurrent.futures.ThreadPoolExecutor(len(wanted)) as threads:
                list(threads.map(give, wanted))
        finally:
            client.shutdown()
        self.settle()
        until("the placement groups to be where they should", lambda: not missing())

    def drop_pools(self, *names):
        for name in names:
            self.ceph("osd", "pool", "rm", name, name, "--yes-i-really-really-mean-it")
        self.settle()

    def empty_pool(self, name):
        run(self.tool("empty", "--pool", name))

    def settle(self):
        """Waits until all groups are clean and nothing of a removed pool is left to remove."""
        def clean():
            status = json.loads(self.ceph("pg", "stat", "-f", "json"))["pg_summary"]
            states = {s["name"] for s in status["num_pg_by_state"]}
            return states <= {"active+clean"}
        until("the placement groups to be clean", clean)
        until("the removal of a pool", lambda: not any(
            self.osd_counters(osd)["numpg_removing"] for osd in range(self.OSDS)))

    def processes(self):
        status = self.status()
        pids = {d["name"]: d["pid"] for d in status["daemons"]}
        pids.update({f"siphond.{pid}": pid for pid in status["companions"]})
        return pids

    def measure(self, pipeline, moved_bytes, items=None):
        """One measured command or pipeline, with the OSDs' caches cold, as metrics. CPU is
        everything's: OSDs, companions, mon, mgr and clients."""
        self.drop_caches()
        pids = self.pids
        for pid in pids.values():
            pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")
        watch = MemoryWatch(pids)
        watch.look()
        counters = [self.osd_counters(osd) for osd in range(self.OSDS)]
        before = {name: cpu_seconds(pid) for name, pid in pids.items()}
        watch.start()
        started = time.monotonic()
        client_cpu, output = run_clients(pipeline)
        seconds = time.monotonic() - started
        spent = {name: cpu_seconds(pid) - before[name] for name, pid in pids.items()}
        watch.stop()
        after = [self.osd_counters(osd) for osd in range(self.OSDS)]

        def of_kind(kind, values):
            return [value for name, value in values.items() if name.startswith(kind)]

        def grown(counter):
            return sum(a[counter] - b[counter] for a, b in zip(after, counters)) / MIB

        gib = moved_bytes / GIB
        total = client_cpu + sum(spent.values())
        metrics = {
            "seconds": seconds, "mb_per_s": moved_bytes / 1e6 / seconds,
            "cpu_s_per_gib": total / gib,
            "osd_cpu_s_per_gib": sum(of_kind("osd", spent)) / gib,
            "companion_cpu_s_per_gib": sum(of_kind("siphond", spent)) / gib,
            "client_cpu_s_per_gib": client_cpu / gib,
            "mon_mgr_cpu_s_per_gib": sum(of_kind("mon", spent) + of_kind("mgr", spent)) / gib,
            "osd_anonymous_mib": max(of_kind("osd", watch.anonymous_kib)) / 1024,
            "osd_rss_mib": max(of_kind("osd", watch.private_kib)) / 1024,
            "companion_private_mib": max(of_kind("siphond", watch.private_kib)) / 1024,
            "op_in_mib": grown("op_in_bytes"), "op_out_mib": grown("op_out_bytes"),
            "op_r_out_mib": grown("op_r_out_bytes"), "op_w_in_mib": grown("op_w_in_bytes"),
            "osd_anonymous_each_mib": [v / 1024 for v in of_kind("osd", watch.anonymous_kib)],
            "companion_private_each_mib": [v / 1024 for v in of_kind("siphond", watch.private_kib)],
        }
        if items:
            metrics["items_per_s"] = items / seconds
        return metrics, output
