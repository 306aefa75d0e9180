"""The command line as the tests run it: where it is, its exit codes, and how a run of it ended."""

import contextlib
import dataclasses
import json
import os
import pathlib
import subprocess
import threading
import time

from processes import end_with_parent
from waiting import DEADLINE_S

REPO = pathlib.Path(__file__).resolve().parents[2]
BIN_DIR = pathlib.Path(os.environ.get("SIPHON_BIN_DIR", REPO / "build" / "release" / "bin"))
SIPHON, SIPHOND = BIN_DIR / "siphon", BIN_DIR / "siphond"

RUN_DEADLINE_S = 180  # for one run

# plugin/cli/exit_codes.h.
(OK, OTHER, USAGE, NOT_FOUND, PERMISSION, TEMPORARY, PARTIAL, FATAL, LIMIT, NOTHING_TO_DO,
 _, NEEDS_CONFIRMATION, NOT_FIT) = range(13)
INTERRUPTED = 130
EXIT_CONFIG = 78  # of siphond

CONFIRM = "--yes-i-really-mean-it"


@dataclasses.dataclass
class Ran:
    """How a run of the CLI ended."""

    command: list
    code: int
    stdout: str
    stderr: str
    document: dict  # of -f json; None when there was none

    def __str__(self):
        return (f"{' '.join(map(str, self.command))}\nexit code {self.code}\n"
                f"--- stdout\n{self.stdout[-3000:]}\n--- stderr\n{self.stderr[-3000:]}")

    @property
    def extents(self):
        return self.document["extents"]

    @property
    def receipt(self):
        """Of the first extent."""
        return self.extents[0]["receipt"]

    @property
    def summary(self):
        return self.document["summary"]

    @property
    def problem(self):
        """The first error that is told: {"code", "message", "suspect", "next_step"}."""
        if self.document is None:
            return None
        if self.document.get("error"):
            return self.document["error"]
        return next((e["problem"] for e in self.document.get("extents", []) if e.get("problem")),
                    None)


class Run:
    """It in the background, its progress read as it comes. `environment`: beside our own.

    `transfer_ids` and the receipts are in the document at the end; while it runs the ids are found
    with `siphon transfers`, as an operator would.
    """

    def __init__(self, command, environment=None):
        self.command = [str(word) for word in command]
        self.progress = []  # the objects of --progress json, as they come
        self._lines = []
        self._changed = threading.Condition()
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, preexec_fn=end_with_parent,
            env={**os.environ, **(environment or {})})
        self.stdout = ""
        self._readers = [threading.Thread(target=self._read_stderr, daemon=True),
                         threading.Thread(target=self._read_stdout, daemon=True)]
        for reader in self._readers:
            reader.start()

    def _read_stdout(self):
        self.stdout = self.process.stdout.read()

    def _read_stderr(self):
        for line in self.process.stderr:
            with self._changed:
                self._lines.append(line)
                if line.startswith('{"schema_version"'):
                    with contextlib.suppress(ValueError, KeyError):
                        self.progress.append(json.loads(line)["progress"])
                self._changed.notify_all()

    @property
    def pid(self):
        return self.process.pid

    def ended(self):
        return self.process.poll() is not None

    def wait_progress(self, predicate, deadline_s=DEADLINE_S, what="the progress"):
        """Waits for a progress object that satisfies `predicate`, and returns it."""
        end = time.monotonic() + deadline_s
        with self._changed:
            seen = 0
            while True:
                for seen in range(seen, len(self.progress)):
                    if predicate(self.progress[seen]):
                        return self.progress[seen]
                seen = len(self.progress)
                if self.ended() or time.monotonic() > end:
                    break
                self._changed.wait(0.2)
        raise AssertionError(f"{what} was not seen; it {'has ended' if self.ended() else 'runs'}\n"
                             + "".join(self._lines[-20:]))

    def wait_streaming(self, at_least_bytes=1, deadline_s=DEADLINE_S):
        """Waits until some bytes, and not yet all, are durable at the target."""
        return self.wait_progress(
            lambda p: p["done_bytes"] >= at_least_bytes and not p["finished"], deadline_s,
            f"a transfer with {at_least_bytes} bytes done")

    def send(self, number):
        self.process.send_signal(number)

    def wait(self, deadline_s=RUN_DEADLINE_S):
        """How it ended. Kills it, and fails, when it does not end."""
        try:
            code = self.process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"did not end within {deadline_s} s: {' '.join(self.command)}\n"
                                 + "".join(self._lines[-20:])) from None
        for reader in self._readers:
            reader.join(DEADLINE_S)
        return Ran(self.command, code, self.stdout, "".join(self._lines),
                   parse_document(self.stdout))

    def close(self):
        """Ends it whatever it does; for addCleanup."""
        if not self.ended():
            self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join(DEADLINE_S)
        self.process.stdout.close()
        self.process.stderr.close()


def parse_document(text):
    with contextlib.suppress(ValueError):
        return json.loads(text)
    return None
