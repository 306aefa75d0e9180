"""What the cluster tests share: a cluster of their own, the CLI, and checks from outside.

Nothing here imports or links code of Siphon; what it stores is read as tests/lib/formats.py has it.

    class MyTest(harness.ClusterTest):
        cluster_options = {"size": 2}            # optional, see Cluster
        def test_it(self):
            c = self.cluster
            c.create_pool("a")
            c.siphon("put", "a/e1", path)        # -> Ran; fails the test unless the exit code is 0
            bytes_ = harness.Extent(c, "a", "e1").read()
            self.assert_nothing_left("a")

Settings: SIPHON_BIN_DIR (build/release/bin), SIPHON_TEST_PORT (the first of 500 ports; default: a
free range), SIPHON_KEEP_CLUSTER=1 (a cluster stays up after a failure).
"""

import atexit
import contextlib
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
import zlib

import rados

sys.dont_write_bytecode = True
sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[1] / name)
                for name in ("lib", "support")]

import clusters  # noqa: E402 (after the path is known)
from cli import (BIN_DIR, REPO, RUN_DEADLINE_S, SIPHON, SIPHOND, Ran, Run,  # noqa: E402
                 parse_document)
from formats import MIB, Head, write_random_file  # noqa: E402
from ports import listening_ports, own_ports  # noqa: E402
from processes import companion_of, descriptors, osd_pids, thread_count  # noqa: E402
from waiting import DEADLINE_S, wait_until  # noqa: E402

CLUSTER_TOOL = REPO / "vstart-scripts" / "cluster"
PLUGIN = BIN_DIR / "libcls_siphon.so"


def require_binaries():
    """A missing binary is a failure: a test that did not run has not passed."""
    missing = [str(p) for p in (PLUGIN, SIPHON, SIPHOND) if not p.exists()]
    if missing:
        raise RuntimeError("not built: " + ", ".join(missing))


# -------------------------------------------------------------------------------------- the cluster


class Cluster:
    """A real cluster in a folder of its own, from the packaged daemons."""

    def __init__(self, osds=3, size=2, plugin=None, options=(), memory="896MiB", store="bluestore",
                 environment=None):
        """`plugin`: another libcls_siphon.so, or "" for none. `options`: KEY=VALUE strings.
        `environment`: for the daemons, companions included (SIPHOND_...)."""
        require_binaries()
        self._environment = {**os.environ, **(environment or {})}
        self.osds = osds
        self._up_options = ["--osds", osds, "--size", size, "--memory", memory, "--store", store]
        self._up_options += ["--no-plugin"] if plugin == "" else ["--plugin", plugin or PLUGIN]
        for option in options:
            self._up_options += ["-o", option]
        self.parent = pathlib.Path(tempfile.mkdtemp(prefix="siphon-test-"))
        self.dir = self.parent / "c"
        self.conf = self.dir / "ceph.conf"
        self.scratch = self.parent / "files"  # for the tests' own files
        self.scratch.mkdir()
        self._stack = contextlib.ExitStack()
        self._connections = {}
        self._is_down = False
        atexit.register(self.down)  # unittest runs no clean-ups after a KeyboardInterrupt
        self.port = self._stack.enter_context(own_ports())
        self.data_ports = (self.port + 300, self.port + 499)
        self.control_ports = (self.port + 200, self.port + 299)

    # ---- up and down

    def up(self):
        self.tool("up", "--port", self.port, *self._up_options)
        return self

    def down(self, keep=False):
        if self._is_down:
            return
        self._is_down = True
        atexit.unregister(self.down)
        for connection in self._connections.values():
            connection.shutdown()
        self._connections.clear()
        if keep and os.environ.get("SIPHON_KEEP_CLUSTER") == "1":
            print(f"left up; end it: {CLUSTER_TOOL} down --dir {self.dir} --purge", file=sys.stderr)
            return
        try:
            if (self.dir / "cluster.json").exists():
                self.tool("down", "--purge")
        finally:
            shutil.rmtree(self.parent, ignore_errors=True)
            self._stack.close()

    def tool(self, verb, *arguments, check=True):
        """vstart-scripts/cluster VERB: up, down, start, stop, kill (a daemon: "osd.1")."""
        command = [CLUSTER_TOOL, verb, "--dir", self.dir, *arguments]
        ran = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True, timeout=300, check=False,
                             env=self._environment)
        if check and ran.returncode != 0:
            raise AssertionError(f"cluster {verb} failed ({ran.returncode}):\n{ran.stdout[-6000:]}")
        return ran

    # ---- commands

    def ceph(self, *arguments, check=True, timeout=DEADLINE_S, as_json=False):
        """The stock `ceph` tool; its stdout, or the parsed JSON."""
        command = ["ceph", "-c", str(self.conf), "--connect-timeout", "20", *map(str, arguments)]
        if as_json:
            command += ["-f", "json"]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        if check and ran.returncode != 0:
            raise AssertionError(f"{' '.join(command)}: {ran.returncode}\n{ran.stderr}")
        return json.loads(ran.stdout) if as_json else ran.stdout

    def rados_tool(self, *arguments, timeout=DEADLINE_S, check=True):
        """The stock `rados` tool; its stdout as bytes."""
        command = ["rados", "-c", str(self.conf), *map(str, arguments)]
        ran = subprocess.run(command, capture_output=True, timeout=timeout, check=False)
        if check and ran.returncode != 0:
            raise AssertionError(f"{' '.join(command)}: {ran.returncode}\n{ran.stderr.decode()}")
        return ran.stdout

    def connect(self, name="client.admin"):
        """A python-rados connection, kept until `down`."""
        if name not in self._connections:
            self._connections[name] = self._new_connection(name)
        return self._connections[name]

    @contextlib.contextmanager
    def connection_of_its_own(self, name):
        """One that nobody else uses."""
        connection = self._new_connection(name)
        try:
            yield connection
        finally:
            connection.shutdown()

    def _new_connection(self, name):
        connection = rados.Rados(conffile=str(self.conf), name=name, conf={
            "rados_osd_op_timeout": "30", "rados_mon_op_timeout": "30",
            "client_mount_timeout": "30"})
        connection.connect()
        return connection

    def io(self, pool, name="client.admin", nspace="", locator=""):
        """A context manager: an ioctx of a pool."""
        io = self.connect(name).open_ioctx(pool)
        io.set_namespace(nspace)
        if locator:
            io.set_locator_key(locator)
        return io

    def admin_socket(self, osd, prefix, **arguments):
        """What `ceph daemon osd.N PREFIX` asks; the parsed answer."""
        return clusters.ask_admin_socket(self.dir, osd, prefix, **arguments)

    def messenger_received_bytes(self):
        """What the messengers of all OSDs have received, in bytes."""
        total = 0
        for osd in range(self.osds):
            counters = self.admin_socket(osd, "perf dump")
            total += sum(values["msgr_recv_bytes"] for name, values in counters.items()
                         if name.startswith("AsyncMessenger::Worker-"))
        return total

    # ---- pools and keys

    def create_pool(self, name, size=2, pg_num=8, tag=True):
        self.ceph("osd", "pool", "create", name, pg_num, pg_num, "replicated", "--autoscale-mode",
                  "off")
        confirm = ["--yes-i-really-mean-it"] if size == 1 else []
        self.ceph("osd", "pool", "set", name, "size", size, *confirm)
        if tag:
            self.ceph("osd", "pool", "application", "enable", name, "siphon")
        wait_until(lambda: self.pool_is_clean(name), DEADLINE_S * 2, f"pool {name} to be clean")
        return name

    def pool_is_clean(self, name):
        stats = json.loads(self.ceph("pg", "ls-by-pool", name, "-f", "json"))["pg_stats"]
        return bool(stats) and all(pg["state"].startswith("active+clean") for pg in stats)

    def pool_id(self, name):
        return self.connect().pool_lookup(name)

    def create_key(self, name, osd_caps, mon_caps="allow r"):
        """client.NAME with these caps, its keyring where every client of this conf finds it.
        Returns "client.NAME"."""
        entity = f"client.{name}"
        self.ceph("auth", "get-or-create", entity, "mon", mon_caps, "osd", osd_caps, "-o",
                  self.dir / f"{entity}.keyring")
        return entity

    def place(self, pool, locator):
        """(primary, acting set) of a locator key."""
        answer = self.ceph("osd", "map", pool, locator, as_json=True)
        return answer["acting_primary"], answer["acting"]

    # ---- processes

    def osd_pid(self, osd):
        """The pid of the live ceph-osd, or None."""
        return osd_pids(self.conf).get(osd)

    def companion_pid(self, osd):
        """The pid of the live siphond that this OSD has started, or None."""
        return companion_of(self.osd_pid(osd))

    def osd_is_up(self, osd):
        dump = self.ceph("osd", "dump", as_json=True)
        return any(o["osd"] == osd and o["up"] for o in dump["osds"])

    def wait_companions(self, deadline_s=DEADLINE_S):
        """Waits until every OSD has a companion that answers; {osd: pid}."""
        def all_answer():
            pids = {osd: self.companion_pid(osd) for osd in range(self.osds)}
            if None in pids.values():
                return None
            ports = listening_ports(*self.control_ports)
            return pids if len(ports) >= self.osds else None
        return wait_until(all_answer, deadline_s, "a companion at every OSD")

    # ---- the CLI

    def command(self, *arguments, key=None, as_json=True):
        command = [SIPHON, *arguments, "-c", self.conf]
        if key:
            command += ["-n", key]
        if as_json:
            command += ["-f", "json"]
        return [str(word) for word in command]

    def siphon(self, *arguments, check=True, as_json=True, key=None, timeout=RUN_DEADLINE_S,
               environment=None):
        """Runs the CLI to its end. `check`: fails unless it exits 0. `key`: "client.NAME".
        `environment`: beside our own."""
        command = self.command(*arguments, key=key, as_json=as_json)
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True,
                                  text=True, timeout=timeout, check=False,
                                  env={**os.environ, **(environment or {})})
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"did not end within {timeout} s: {' '.join(command)}\n"
                                 f"{error.stderr}") from None
        ran = Ran(command, done.returncode, done.stdout, done.stderr, parse_document(done.stdout))
        if check and ran.code != 0:
            raise AssertionError(f"siphon failed: {ran}")
        return ran

    def start_siphon(self, *arguments, key=None, environment=None):
        """Runs the CLI in the background, with --progress json. See Run. `environment`: beside our
        own."""
        return Run([*self.command(*arguments, key=key), "--progress", "json"],
                   environment)

    def put(self, address, size_bytes, seed):
        """Makes an extent of reproducible bytes; returns the file with its content."""
        path = write_random_file(self.scratch / f"content-{seed}-{size_bytes}", size_bytes, seed)
        self.siphon("put", address, path)
        return path

    def running_transfers(self, pool):
        """The transfers that the target pool's devices know and that have not ended."""
        return self.siphon("transfers", pool).document.get("transfers", [])


# ------------------------------------------------------------------- extents, read from the outside


def read_head(cluster, pool, name, nspace=""):
    """The Head, or None when there is no head object."""
    with cluster.io(pool, nspace=nspace, locator=name) as io:
        try:
            return Head.parse(io.get_xattr(f"siphon.{name}", "siphon.head"))
        except (rados.ObjectNotFound, rados.NoData):
            return None


class Extent:
    """One sealed extent, read straight from its RADOS objects."""

    def __init__(self, cluster, pool, name, nspace=""):
        self.cluster, self.pool, self.name, self.nspace = cluster, pool, name, nspace
        self.head = read_head(cluster, pool, name, nspace)
        if self.head is None or self.head.state != Head.SEALED:
            raise AssertionError(f"{pool}/{name} is not a sealed extent: {self.head}")

    def part_name(self, number):
        return f"siphon.{self.head.current}.{number:08x}"

    def object_names(self):
        if self.head.inline:
            return [f"siphon.{self.name}"]
        return [self.part_name(i) for i in range(self.head.part_count())]

    def pieces(self, stock_tool=False):
        """The byte stream, object by object. `stock_tool`: with `rados --object-locator` instead
        of python-rados."""
        for name in self.object_names():
            if stock_tool:
                namespace = ["-N", self.nspace] if self.nspace else []
                yield self.cluster.rados_tool("-p", self.pool, *namespace, "--object-locator",
                                              self.name, "get", name, "-")
            else:
                with self.cluster.io(self.pool, nspace=self.nspace, locator=self.name) as io:
                    yield io.read(name, 64 * MIB)

    def read(self, stock_tool=False):
        """All bytes, checked for their length and crc32 against the sealed header."""
        stream = b"".join(self.pieces(stock_tool))
        if len(stream) != self.head.extent_bytes:
            raise AssertionError(f"{self.pool}/{self.name}: {len(stream)} bytes, not "
                                 f"{self.head.extent_bytes}")
        if zlib.crc32(stream) != self.head.crc32:
            raise AssertionError(f"{self.pool}/{self.name}: crc32 {zlib.crc32(stream):08x}, sealed "
                                 f"with {self.head.crc32:08x}")
        return stream


@contextlib.contextmanager
def folder_daemon(cluster, name, environment=None):
    """A siphond over a new folder of that name; yields (folder, control port, secret file).
    `environment`: beside our own."""
    folder, secret = cluster.scratch / name, cluster.scratch / f"{name}.secret"
    folder.mkdir()
    secret.touch(mode=0o600)
    secret.write_bytes(os.urandom(32))
    control, last = cluster.control_ports[1], cluster.data_ports[1]
    daemon = subprocess.Popen(
        [SIPHOND, "--store", f"posix:{folder}", "--listen", f"127.0.0.1:{control}",
         "--data-ports", f"{last - 3}-{last}", "--secret-file", secret],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, **(environment or {})})
    try:
        wait_until(lambda: listening_ports(control, control), what="the daemon")
        yield folder, control, secret
    finally:
        daemon.kill()
        daemon.wait()


def list_objects(cluster, pool):
    """Every object of a pool, all namespaces: sorted [(namespace, locator, name)]."""
    with cluster.io(pool) as io:
        io.set_namespace(rados.LIBRADOS_ALL_NSPACES)
        return sorted((o.nspace, o.locator_key or "", o.key) for o in io.list_objects())


def leftovers(cluster, pool):
    """What a pool holds beyond its current extents: sentences, none when it is tidy.

    Every object must be the head of a current extent or one of exactly its parts, and no head may
    name a reservation or trash.
    """
    found, expected = [], set()
    objects = set(list_objects(cluster, pool))
    for nspace, locator, name in sorted(objects):
        if name != f"siphon.{locator}":
            continue
        head = read_head(cluster, pool, locator, nspace)
        if head is None:
            found.append(f"{name}: an object with a head's name and no register")
            continue
        found += [f"{name}: reservation {i}" for i in head.reservations]
        found += [f"{name}: trash {i}" for i in head.trash]
        if head.state == 0:
            found.append(f"{name}: a head with nothing current")
        expected.add((nspace, locator, name))
        if head.state == Head.OPEN:  # it grows, and its register does not say how far it has come
            expected |= {o for o in objects if o[2].startswith(f"siphon.{head.current}.")}
        elif head.current:
            expected |= {(nspace, locator, f"siphon.{head.current}.{i:08x}")
                         for i in range(head.part_count())}
    found += [f"{name} (locator {locator}): nobody's" for _, locator, name in
              sorted(objects - expected)]
    found += [f"{name} (locator {locator}): missing" for _, locator, name in
              sorted(expected - objects)]
    return found


def fingerprint(cluster, pool):
    """Everything a pool holds, for "as before": {(namespace, locator, name): (bytes, xattrs)}."""
    state = {}
    for nspace, locator, name in list_objects(cluster, pool):
        with cluster.io(pool, nspace=nspace, locator=locator) as io:
            data = io.read(name, 64 * MIB)
            xattrs = tuple(sorted(io.get_xattrs(name)))
        state[nspace, locator, name] = (len(data), zlib.crc32(data), xattrs)
    return state


# ---------------------------------------------------------------------------------- the test's base


class ClusterTest(unittest.TestCase):
    """A test case whose class has one cluster, `self.cluster`."""

    cluster_options = {}
    maxDiff = 4000

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.cluster = Cluster(**cls.cluster_options)
        cls.failed = False
        cls.addClassCleanup(lambda: cls.cluster.down(keep=cls.failed))
        cls.cluster.up()
        if cls.cluster_options.get("plugin") != "":
            cls.cluster.wait_companions()

    def run(self, result=None):
        before = len(result.failures) + len(result.errors) if result is not None else 0
        outcome = super().run(result)
        if result is not None and len(result.failures) + len(result.errors) > before:
            type(self).failed = True
        return outcome

    def start_siphon(self, *arguments, key=None, environment=None):
        run = self.cluster.start_siphon(*arguments, key=key, environment=environment)
        self.addCleanup(run.close)
        return run

    def assert_nothing_left(self, *pools, deadline_s=DEADLINE_S):
        """Within the deadline, as removals may go on in the background."""
        for pool in pools:
            left = ["not looked yet"]

            def tidy(pool=pool):
                nonlocal left
                left = leftovers(self.cluster, pool)
                return not left
            try:
                wait_until(tidy, deadline_s, "tidy", poll_s=0.2)
            except AssertionError:
                self.fail(f"pool {pool} is not tidy: " + "; ".join(left[:20]))

    # ---- what the companions hold

    # What stays for a while is gRPC's: threads that have served calls and wait for the next ones,
    # the connection of a requester or of a peer until it has been idle for a minute.
    SPARE_THREADS, SPARE_DESCRIPTORS = 2, 2
    IDLE_DEADLINE_S = 150

    def held_by_companions(self):
        """{osd: (pid, threads, descriptors)}, once two looks agree."""
        last = None

        def same():
            nonlocal last
            before, last = last, {
                osd: (pid, thread_count(pid), len(descriptors(pid)))
                for osd, pid in self.cluster.wait_companions().items()}
            return last == before and last
        return wait_until(same, self.IDLE_DEADLINE_S, "a steady number of threads", poll_s=1)

    def assert_companions_have_all_back(self, before, *pools, but=None):
        """Every thread, descriptor, data port, slot and byte of memory, within the bounds of
        docs/failure_model.md ("Waits"). `before`: of held_by_companions; a companion that is not
        that old is idle all the same. `but`: not that OSD's, which is held."""
        c, left = self.cluster, []

        def back():
            left[:] = [f"port {p} listens" for p in listening_ports(*c.data_ports)]
            ran = c.siphon("daemons", *pools, check=False)
            for device in (ran.document or {}).get("devices", []):
                if device["device"] != f"osd.{but}":
                    left.extend(f"{device['device']}: {key} = {device.get(key, 'not told')}"
                                for key in ("transfers_in", "transfers_out", "bytes_in_flight",
                                            "open_data_port") if device.get(key, True))
            for osd, (pid, threads, count) in before.items():
                if osd == but or pid != c.companion_pid(osd):
                    continue
                now = thread_count(pid), len(descriptors(pid))
                if now[0] > threads + self.SPARE_THREADS:
                    left.append(f"osd.{osd}: {now[0]} threads, {threads} before")
                if now[1] > count + self.SPARE_DESCRIPTORS:
                    left.append(f"osd.{osd}: {now[1]} descriptors, {count} before")
            return not left
        with contextlib.suppress(AssertionError):
            wait_until(back, self.IDLE_DEADLINE_S, "all is back", poll_s=1)
        self.assertEqual(left, [])

    @contextlib.contextmanager
    def companions_with(self, settings):
        """All of them anew, with these lines of TOML beside their settings."""
        config = self.cluster.dir / "siphond.toml"
        before = config.read_text()
        config.write_text(f"{before}\n{settings}\n")
        try:
            self.new_companions()
            yield
        finally:
            config.write_text(before)
            self.new_companions()

    @contextlib.contextmanager
    def companion_environment(self, **variables):
        """What the companions that start from now on have in their environment, beside their own."""
        program = self.cluster.dir / "classes" / "siphond"
        real = program.with_name("siphond.real")
        real.symlink_to(os.readlink(program))
        program.unlink()
        words = " ".join(shlex.quote(f"{name}={value}") for name, value in variables.items())
        program.write_text(f'#!/bin/sh\nexport {words}\nexec {real} "$@"\n')
        program.chmod(0o755)
        try:
            yield
        finally:
            program.unlink()
            real.rename(program)

    def new_companions(self):
        c = self.cluster
        old = c.wait_companions()
        for pid in old.values():
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not set(old.values()) & set(c.wait_companions().values()),
                   what="other companions")

    def assert_fails(self, ran, code, *words):
        """An exit code, and an error whose sentence holds all the words (regular expressions)."""
        self.assertEqual(ran.code, code, str(ran))
        self.assertIsNotNone(ran.problem, str(ran))
        text = f"{ran.problem['message']} {ran.problem['next_step'] or ''}"
        for word in words:
            self.assertRegex(text, re.compile(word, re.IGNORECASE), str(ran))


class PromptResult(unittest.TextTestResult):
    """Shows a failure when it happens, not at the end: a time limit may come first."""

    def _show(self, test, error):
        self.stream.writeln(f"\n{self._exc_info_to_string(error, test)}")
        self.stream.flush()

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._show(test, err)

    def addError(self, test, err):
        super().addError(test, err)
        self._show(test, err)

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._show(subtest, err)

    def printErrors(self):
        """They have been shown."""


def main():
    """Runs the module's tests; SIGTERM (ctest's time limit) still takes the cluster down."""
    def stop(number, _frame):
        raise KeyboardInterrupt(f"signal {number}")
    signal.signal(signal.SIGTERM, stop)
    unittest.main(module="__main__", verbosity=2, testRunner=unittest.TextTestRunner(
        resultclass=PromptResult, verbosity=2))
