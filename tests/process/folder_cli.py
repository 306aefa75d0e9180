"""The command line, a folder for it to store in, and its exit codes, for the tests."""

import json
import os
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))

import cli  # noqa: E402 (after the path is known)
from cli import OK  # noqa: E402
from formats import Head, crc32c  # noqa: E402
from waiting import wait_until  # noqa: E402

SIPHON = str(cli.SIPHON)


def clean_environment(**more):
    environment = {k: v for k, v in os.environ.items()
                   if not k.startswith(("SIPHON_", "CEPH_"))}
    environment.update(more)
    return environment


class CliTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.home = pathlib.Path(folder.name)
        self.store = self.home / "store"
        self.store.mkdir()
        self.random = random.Random(20261122)

    def address(self, name=""):
        return f"posix:{self.store}" + (f"/{name}" if name else "")

    def siphon(self, *arguments, expect=OK, data=None, env=None):
        run = subprocess.run([SIPHON, *map(str, arguments)], input=data or b"",
                             capture_output=True, env=clean_environment(**(env or {})), timeout=60)
        self.assertEqual(run.returncode, expect,
                         f"siphon {arguments}\nstdout: {run.stdout[:2000]}\nstderr: {run.stderr}")
        return run

    def json(self, *arguments, expect=OK, **more):
        run = self.siphon(*arguments, "-f", "json", expect=expect, **more)
        document = json.loads(run.stdout)
        self.assertEqual(document["schema_version"], 2)
        self.assertEqual(document["exit_code"], expect)
        return document

    def content(self, size):
        return self.random.randbytes(size)

    def file(self, name, data):
        path = self.home / name
        path.write_bytes(data)
        return path

    def put(self, name, data, *arguments):
        self.siphon("put", *arguments, self.address(name), "-", data=data)

    def kill_a_put(self):
        """Of e1, when some of it is there."""
        writer = subprocess.Popen([SIPHON, "put", self.address("e1"), "-"], stdin=subprocess.PIPE,
                                  env=clean_environment())
        try:
            writer.stdin.write(self.content(8 << 20))
            writer.stdin.flush()
            wait_until(lambda: self.json("scratch", "ls", self.address())["entries"],
                       what="a scratch extent")
        finally:
            writer.kill()
            writer.communicate()

    def backdate_trash(self, name, hours_of):
        """Rewrites when each generation got there: the youngest, the one before it, ... so many
        hours ago. In the head file, as docs/extent_format.md has it."""
        path = self.store / ".siphon" / "head" / name
        raw = path.read_bytes()
        sizes = struct.unpack_from("<II", raw, 8)
        registers, at, now = [], 16, time.time()
        for size in sizes:
            register = bytearray(raw[at:at + size])
            at += size
            if register:
                reservations, entries = register[62:64]
                fixed, entry_bytes = Head.SIZES[2]
                trash = fixed + Head.RESERVATION * reservations
                for back, hours in enumerate(hours_of[:entries]):
                    entry = trash + entry_bytes * (entries - 1 - back)
                    struct.pack_into("<Q", register, entry + 56, int((now - hours * 3600) * 1000))
                struct.pack_into("<I", register, size - 4, crc32c(register[:-4]))
            registers.append(bytes(register))
        path.write_bytes(raw[:16] + b"".join(registers))

    def leftovers(self):
        """Files of scratch extents and half-written heads."""
        return [p for sub in ("data", "tmp") for p in (self.store / ".siphon" / sub).glob("*")]
