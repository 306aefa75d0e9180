"""4 KiB client writes alone, and beside transfers: their latency"""

import contextlib
import json
import subprocess
import threading

import testbed
from testbed import MIB

PART = 8 * MIB
LARGE = 64 * MIB
SMALL = 64 << 10


class Beside:
    """Runs one copy after another, for as long as the context lasts."""

    def __init__(self, bed, make_command):
        self.bed = bed
        self.make_command = make_command
        self.ended = threading.Event()
        self.process = None
        self.copies = 0
        self.error = None
        self.thread = threading.Thread(target=self.loop, daemon=True)

    def loop(self):
        while not self.ended.is_set():
            command = [str(c) for c in self.make_command(self.copies)]
            self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL,
                                            stderr=subprocess.PIPE, text=True)
            _, errors = self.process.communicate()
            if self.process.returncode == 0:
                self.copies += 1
            elif not self.ended.is_set():
                self.error = f"{' '.join(command)}: exit {self.process.returncode}\n{errors}"
                return

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        with contextlib.suppress(AttributeError, ProcessLookupError):
            self.process.terminate()
        self.thread.join()
        if self.error:
            raise testbed.Failed(self.error)


def cancel_all(bed, where):
    """A requester that is ended leaves its transfers running at their target."""
    for line in subprocess.run([str(c) for c in bed.siphon("transfers", "-f", "json", where)],
                               capture_output=True, text=True, check=False).stdout.splitlines():
        with contextlib.suppress(ValueError):
            for one in json.loads(line).get("transfers", []):
                if one.get("phase") not in ("succeeded", "failed", "cancelled"):
                    subprocess.run([str(c) for c in bed.siphon("cancel", one["id"], where)],
                                   capture_output=True, check=False)


def client(bed, seconds, before):
    """Starts the writer; `before` runs when it is ready to write and returns a context."""
    command = bed.tool("client_writes", "--pool", "client", "--seconds", str(seconds), "--depth",
                       "2")
    with subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as writer:
        with before:
            ready = writer.stdout.readline()
            answer = writer.stdout.readline()
            if ready.strip() != "ready" or not answer:
                raise testbed.Failed("client_writes: " + writer.stderr.read())
        return json.loads(answer)


def run(arguments, result):
    result.columns = [("p50_ms", "p50 ms", ".2f"), ("p99_ms", "p99 ms", ".2f"),
                      ("p999_ms", "p99.9 ms", ".2f"), ("writes_per_s", "writes/s", ".0f"),
                      ("copies", "copies", ".0f")]
    seconds = 2 if arguments.quick else 10
    extent = (128 if arguments.quick else 512) * MIB
    larges, smalls = (2, 500) if arguments.quick else (16, 10000)
    result.notes.append(f"A closed loop of 4 KiB writes, two in flight, {seconds} s each; the copy "
                        f"is of one extent of {extent // MIB} MiB (copy_from: the same bytes in "
                        "objects of 8 MiB, 8 in flight), or of a pool of "
                        f"{larges} x {LARGE // MIB} MiB or {smalls:,} x {SMALL >> 10} KiB, again and "
                        "again. copies: how many ended.")
    with testbed.Testbed(arguments) as bed:
        bed.make_pools("client", "objects", "extents", "larges", "smalls", "target")
        bed.fill("objects", "objects", extent // PART, PART)
        bed.fill("extents", "extents", 1, extent)
        bed.fill("larges", "extents", larges, LARGE)
        bed.fill("smalls", "extents", smalls, SMALL, "--depth", "16")

        def siphon(*words):
            return lambda n: bed.siphon("copy", "extents/e00000", f"target/c{n}", "--progress",
                                        "none", *words)

        def siphon_pool(pool):
            return lambda n: bed.siphon("copy", pool, f"target/n{n}/", "--progress", "none")

        def copy_from(_):
            return bed.tool("copy_from", "--src", "objects", "--dst", "target", "--depth", "8")

        # What a plain client's writes of the same operations at the same rate do: the floor.
        def plain_writes(n):
            return bed.tool("fill", "--kind", "objects", "--pool", "target", "--count",
                            str(extent // MIB), "--bytes", str(MIB), "--rate", str(50 * MIB),
                            "--prefix", f"w{n}-")

        beside = {"alone": None,
                  "beside plain writes of 1 MiB, 50 MB/s": plain_writes,
                  "beside siphon --bwlimit 50M": siphon("--bwlimit", "50M"),
                  "beside siphon, no limit": siphon(),
                  "beside siphon, no limit, a pool of large ones": siphon_pool("larges"),
                  "beside siphon, no limit, a pool of small ones": siphon_pool("smalls"),
                  "beside copy_from, 8 in flight": copy_from}
        for _ in range(arguments.runs):
            for name, make_command in beside.items():
                load = Beside(bed, make_command) if make_command else contextlib.nullcontext()
                answer = client(bed, seconds, load)
                result.add(name, p50_ms=answer["p50_ms"], p99_ms=answer["p99_ms"],
                           p999_ms=answer["p999_ms"], writes_per_s=answer["writes"] / seconds,
                           copies=load.copies if make_command else 0)
                if make_command:  # the last copy, wherever it went
                    for where in ("target", f"target/n{load.copies}/"):
                        cancel_all(bed, where)
                bed.empty_pool("target")
    alone = result.median("alone", "p99_ms")
    result.ratio("citizen_p99", result.median("beside siphon --bwlimit 50M", "p99_ms") / alone)
    result.ratio("citizen_p99_plain_writes",
                 result.median("beside plain writes of 1 MiB, 50 MB/s", "p99_ms") / alone)
    result.ratio("citizen_p99_unthrottled",
                 result.median("beside siphon, no limit", "p99_ms") / alone)
    for size in ("large", "small"):
        row = f"beside siphon, no limit, a pool of {size} ones"
        result.ratio(f"citizen_p99_{size}_pool", result.median(row, "p99_ms") / alone)
    result.ratio("citizen_p99_copy_from",
                 result.median("beside copy_from, 8 in flight", "p99_ms") / alone)
    for name in ("unthrottled", "large_pool", "small_pool"):
        result.ratio(f"citizen_{name}_vs_copy_from",
                     result.ratios[f"citizen_p99_{name}"] / result.ratios["citizen_p99_copy_from"])
