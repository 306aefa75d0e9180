"""What the process tests share: two siphond over folders, the CLI, and checks from outside.

Nothing here imports or links code of Siphon: folders are looked at as files (docs/extent_format.md,
"On a plain folder"), ports and descriptors as the kernel tells them, the journal as the SQLite file
that it is. No Ceph is needed.

    class MyTest(two_daemons.TwoDaemonsTest):
        def test_it(self):
            self.put("e1", 16 * MIB)
            copy = self.start_copy("e1", "--bwlimit", "4M")
            copy.wait_streaming(...)

Settings: SIPHON_BIN_DIR (build/release/bin); SIPHON_TEST_PORT (the first of 100 ports; default: a
free range); SIPHON_TEST_SEED (repeats a run: its seed is printed).
"""

import contextlib
import os
import pathlib
import random
import re
import resource
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.dont_write_bytecode = True
sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[1] / name)
                for name in ("lib", "support")]

from cli import BIN_DIR, OK, SIPHON, SIPHOND, Run  # noqa: E402 (after the path is known)
from formats import KIB, sha256_of  # noqa: E402
from lane_proxy import LaneProxy  # noqa: E402
from ports import listening, own_ports  # noqa: E402
from processes import descriptors, end_with_parent, thread_count  # noqa: E402
from waiting import DEADLINE_S, wait_until  # noqa: E402

REDIRECT = BIN_DIR / "redirect_connect.so"
SEED = int(os.environ.get("SIPHON_TEST_SEED", secrets.randbits(32)))


def random_bytes(size, seed):
    return random.Random(seed).randbytes(size)


# ----------------------------------------------------------------------------------------- daemons


class Daemon:
    """A siphond over a folder, that can be killed, held and started again at the same address."""

    user = None  # it runs as this one (root as it is, without)
    program = SIPHOND

    def __init__(self, folder, port, data_ports, secret, settings=(), environment=None):
        self.folder, self.port, self.data_ports = pathlib.Path(folder), port, data_ports
        self.address = f"127.0.0.1:{port}"
        self.settings = list(settings)
        self.secret, self._environment = secret, environment or {}  # no secret: ""
        self.log = self.folder.parent / f"{self.folder.name}.log"
        self.process = None
        self.idle_descriptors = 0  # how many it has when nothing goes on

    def start(self):
        command = [self.program, "--store", f"posix:{self.folder}", "--listen", self.address,
                   "--data-ports", f"{self.data_ports[0]}-{self.data_ports[-1]}",
                   "--secret-file", self.secret, "--log-level", "debug"]
        for setting in self.settings:
            command += ["--set", setting]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, **self._environment}, user=self.user, preexec_fn=end_with_parent)
        wait_until(self._serves, DEADLINE_S, f"{self.folder.name} serves\n{self.log_tail()}")
        return self

    def _serves(self):
        if self.process.poll() is not None:
            raise AssertionError(f"siphond ended: {self.process.returncode}\n{self.log_tail()}")
        return listening([self.port])

    @property
    def pid(self):
        return self.process.pid

    def is_alive(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        self.process.kill()
        self.process.wait()

    def restart(self):
        self.kill()
        return self.start()

    def hold(self):
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def descriptor_count(self):
        return len(descriptors(self.pid))

    def thread_count(self):
        return thread_count(self.pid)

    def log_tail(self):
        with contextlib.suppress(OSError):
            return self.log.read_text(errors="replace")[-3000:]
        return ""

    def close(self):
        if self.is_alive():
            self.go_on()
            self.kill()

    # ---- the folder, as files

    def public_names(self):
        """Everything a user of the folder sees: {name: sha256}."""
        return {p.name: sha256_of(p) for p in self.folder.iterdir() if p.name != ".siphon"}

    def leftovers(self):
        """Scratch and half-written files, heads without an extent, journal rows."""
        meta = self.folder / ".siphon"
        found = [f"data/{p.name}" for p in (meta / "data").iterdir()]
        found += [f"tmp/{p.name}" for p in (meta / "tmp").iterdir()]
        found += [f"head/{p.name}" for p in (meta / "head").iterdir()
                  if not (self.folder / p.name).exists()]
        journal = sqlite3.connect(f"file:{meta / 'journal'}?mode=ro", uri=True)
        with contextlib.closing(journal):
            tables = journal.execute("SELECT name FROM sqlite_master WHERE type='table'").fetchall()
            for (table,) in tables:
                if table in ("receipts", "watched"):  # what was published is no leftover
                    continue
                (rows,) = journal.execute(f'SELECT count(*) FROM "{table}"').fetchone()
                found += [f"journal: {rows} rows in {table}"] if rows else []
        return found


class PublicNameWatch(threading.Thread):
    """Invariant I1: looks at a public name all the time; whenever it is there, it is all there."""

    def __init__(self, path, digest):
        super().__init__(daemon=True)
        self._path, self._digest = path, digest
        self._over = threading.Event()
        self._seen_inode = None
        self.partial = None

    def run(self):
        while not self._over.is_set():
            with contextlib.suppress(FileNotFoundError):
                inode = os.stat(self._path).st_ino
                if inode != self._seen_inode:
                    digest = sha256_of(self._path)
                    if digest != self._digest:
                        self.partial = f"{self._path} was visible with sha256 {digest}"
                        return
                    self._seen_inode = inode
            self._over.wait(0.01)

    def end(self):
        self._over.set()
        self.join()


# -------------------------------------------------------------------------------- the test's base


class TwoDaemonsTest(unittest.TestCase):
    """A test case with a source and a target of its own for each test."""

    source_settings = ()
    target_settings = ()
    maxDiff = 4000

    @classmethod
    def setUpClass(cls):
        for program in (SIPHON, SIPHOND, REDIRECT):
            if not program.exists():
                raise RuntimeError(f"not built: {program}")
        cls.base_port = cls.enterClassContext(own_ports())

    def setUp(self):
        self.random = random.Random(f"{SEED} {self.id()}")
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="siphon-process-"))
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)
        self.secret = self.dir / "secret"
        self.secret.write_bytes(secrets.token_bytes(32))
        self.secret.chmod(0o600)
        for name in ("source", "target"):
            (self.dir / name).mkdir()
        self.data_ports = range(self.base_port + 10, self.base_port + 14)
        self.source = self.make_daemon("source", self.base_port, range(
            self.base_port + 20, self.base_port + 24), self.source_settings)
        self.target = self.make_daemon("target", self.base_port + 1, self.data_ports,
                                       self.target_settings)
        self.digests = {}  # of the source's files, as they were put

    def make_daemon(self, name, port, data_ports, settings):
        environment = {}
        if name == "source":
            environment = {"LD_PRELOAD": str(REDIRECT), "SIPHON_TEST_REDIRECT_PORTS":
                           f"{self.data_ports[0]}-{self.data_ports[-1]}",
                           "SIPHON_TEST_REDIRECT_WHILE": str(self.dir / "proxied")}
        daemon = Daemon(self.dir / name, port, data_ports, self.secret, settings, environment)
        self.addCleanup(daemon.close)
        return daemon

    def start_daemons(self):
        """Starts both and lets them do a small copy, after which they have all they keep open."""
        self.source.start()
        self.target.start()
        self.put("warm", 64 * KIB)
        self.copy("warm")
        for daemon in (self.source, self.target):
            daemon.idle_descriptors = self.settled_descriptors(daemon)

    def settled_descriptors(self, daemon):
        """Its number of descriptors once two looks, a while apart, agree."""
        last = [-1]

        def same():
            now, last[0], before = daemon.descriptor_count(), daemon.descriptor_count(), last[0]
            time.sleep(0.1)
            return now == before
        wait_until(same, DEADLINE_S, "a steady number of descriptors")
        return last[0]

    def start_proxy(self):
        """From now on the lanes go through it."""
        proxy = LaneProxy(self.data_ports)
        self.addCleanup(proxy.close)
        (self.dir / "proxied").touch()
        return proxy

    # ---- the CLI

    def siphon(self, *arguments, code=OK, secret=True):
        """Runs the CLI to its end, which must be `code`."""
        command = [SIPHON, *arguments, "-f", "json"]
        ran = self.start(command + (["--secret-file", self.secret] if secret else [])).wait()
        if code is not None:
            self.assertEqual(ran.code, code, str(ran))
        return ran

    def start(self, command, environment=None):
        run = Run(command, environment)
        self.addCleanup(run.close)
        return run

    def put(self, name, size):
        """An extent of random bytes at the source, as a user of the folder would put it."""
        content = self.dir / f"content-{name}"
        content.write_bytes(random_bytes(size, self.random.random()))
        ran = self.start([SIPHON, "put", f"posix:{self.source.folder}/{name}", content]).wait()
        self.assertEqual(ran.code, OK, str(ran))
        self.digests[name] = sha256_of(self.source.folder / name)
        return self.source.folder / name

    def copy_words(self, name, *options):
        return ["copy", f"{self.source.address}/{name}", f"{self.target.address}/{name}", *options]

    def copy(self, name, *options, code=OK):
        return self.siphon(*self.copy_words(name, *options), code=code)

    def start_copy(self, name, *options):
        """In the background, watched for I1."""
        watch = PublicNameWatch(self.target.folder / name, self.digests[name])
        watch.start()
        self.addCleanup(self.assert_never_partial, watch)
        return self.start([SIPHON, *self.copy_words(name, *options), "-f", "json",
                           "--secret-file", self.secret])

    def assert_never_partial(self, watch):
        watch.end()
        self.assertIsNone(watch.partial)

    def transfers(self, *options):
        """What the target knows of its transfers."""
        ran = self.siphon("transfers", f"{self.target.address}/", *options, code=None)
        return ran.document.get("transfers", []) if ran.document else []

    def describe(self, daemon):
        return self.siphon("daemons", f"{daemon.address}/").document["devices"][0]

    def wait_streaming(self, run, at_least_bytes=1):
        """Waits until the progress says: streaming, so many bytes and not all are there."""
        def streaming():
            if run.ended():
                raise AssertionError(f"ended before it streamed: {run.wait()}")
            return next((t for t in self.transfers() if t["progress"]["phase"] == "stream" and
                         at_least_bytes <= t["progress"]["received_bytes"]), None)
        found = wait_until(streaming, DEADLINE_S, "a transfer that streams")
        if found["progress"]["total_bytes"]:
            self.assertLess(found["progress"]["received_bytes"], found["progress"]["total_bytes"])
        return found

    def wait_problem(self, transfer_id):
        """Waits until that transfer has failed; how."""
        def ended():
            return next((t["problem"] for t in self.transfers("--all")
                         if t["id"] == transfer_id and t["problem"]), None)
        return wait_until(ended, DEADLINE_S, f"the end of transfer {transfer_id}")

    # ---- the checks

    def assert_is_problem(self, problem, *words, suspect=None, extent="e1"):
        """One sentence that names the extent, and all of `words` (regular expressions)."""
        self.assertIsNotNone(problem)
        message = problem["message"]
        self.assertNotIn("\n", message)
        for word in (extent, *words):
            self.assertRegex(message, re.compile(word, re.IGNORECASE))
        if suspect is not None:
            self.assertEqual(problem["suspect"], suspect, problem)

    def assert_source_untouched(self, name="e1"):
        """Invariant I2."""
        self.assertEqual(sha256_of(self.source.folder / name), self.digests[name])
        self.assertEqual(self.source.leftovers(), [])

    def assert_copied(self, name="e1"):
        """Invariants I1 and I5, read from the files themselves."""
        self.assertEqual(sha256_of(self.target.folder / name), self.digests[name])

    def assert_nothing_left(self):
        """Invariants I7 and I14: scratch, ports, memory, descriptors, as before."""
        left = ["not looked"]

        def tidy():
            left[:] = self.target.leftovers()
            left.extend(f"port {p} listens" for p in listening(self.data_ports))
            for daemon in (self.source, self.target):
                left.extend(self._busy(daemon))
            return not left
        with contextlib.suppress(AssertionError):
            wait_until(tidy, DEADLINE_S, "tidy")
        self.assertEqual(left, [], self.target.log_tail())

    def _busy(self, daemon):
        """What an idle daemon must not have."""
        if not daemon.is_alive():
            return [f"{daemon.folder.name} is dead: {daemon.process.returncode}"]
        found = self.describe(daemon)
        busy = [f"{daemon.folder.name}: {key} = {found[key]}" for key in
                ("transfers_in", "transfers_out", "bytes_in_flight", "open_data_port")
                if found[key]]
        if daemon.idle_descriptors and daemon.descriptor_count() > daemon.idle_descriptors:
            busy.append(f"{daemon.folder.name}: {daemon.descriptor_count()} descriptors, "
                        f"{daemon.idle_descriptors} before")
        return busy

    def assert_as_before(self):
        """A failed copy of e1: source untouched, nothing new at the target, nothing left."""
        self.assert_source_untouched()
        self.assert_nothing_left()
        self.assertEqual(set(self.target.public_names()), {"warm"})

    def assert_retry_succeeds(self, *options):
        ran = self.copy("e1", *options)
        self.assert_copied()
        self.assert_source_untouched()
        self.assert_nothing_left()
        self.assertEqual(ran.receipt["source_crc32"], ran.receipt["target_crc32"])
        return ran


def limit_descriptors(pid, count):
    """Changes the process's soft limit; returns the one before."""
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (count, hard))
    return soft


def main():
    print(f"SIPHON_TEST_SEED={SEED}", file=sys.stderr, flush=True)
    unittest.main(module="__main__", verbosity=2)
