#!/usr/bin/python3
"""More extents than one transfer or one question for headers takes (10,000): the command splits
them, and answers for each. (verify's calls, of 2,000: tests/cluster/one_bad_item_test.py.)

They are one small extent under many names: its file and its head file, copied by hand
(docs/extent_format.md). SIPHON_TEST_MANY: how many (10,050).
"""

import os
import shutil
import subprocess

import two_daemons
from cli import OK, SIPHON
from waiting import DEADLINE_S, wait_until
from two_daemons import TwoDaemonsTest

COUNT = int(os.environ.get("SIPHON_TEST_MANY", 10_050))
PER_TRANSFER = 10_000
AT_ONCE = 2_100  # of what is removed and synced one by one
BYTES = 300
CONFIRM = "--yes-i-really-mean-it"
DEADLINE = 600


class ManyTest(TwoDaemonsTest):

    def setUp(self):
        super().setUp()
        self.names = [f"s{number:05}" for number in range(COUNT)]

    def many(self, *words, secret=True):
        """The document of a command that takes its time and ends well."""
        ran = self.start([SIPHON, *words, "-f", "json",
                          *(("--secret-file", self.secret) if secret else ())]).wait(DEADLINE)
        self.assertEqual(ran.code, OK, str(ran)[-3000:])
        return ran.document

    def at(self, daemon):
        return [f"{daemon.address}/{name}" for name in self.names]

    def clone(self, folder, *places):
        """`places`: of the first name, with NAME for it."""
        for place in places:
            model = folder / place.replace("NAME", self.names[0])
            for name in self.names[1:]:
                shutil.copyfile(model, folder / place.replace("NAME", name))

    def test_more_than_one_call_takes_are_planned_copied_and_removed(self):
        self.source.start()
        self.target.start()
        self.put(self.names[0], BYTES)
        self.clone(self.source.folder, "NAME", ".siphon/head/NAME")
        size = os.stat(self.source.folder / self.names[0]).st_size
        to_target = [*self.at(self.source), f"{self.target.address}/"]

        plan = self.many("copy", "--dry-run", *to_target)
        self.assertEqual(len(plan["extents"]), COUNT)
        self.assertEqual({e["bytes"] for e in plan["extents"]}, {size})
        self.assertEqual(plan["total_bytes"], COUNT * size)
        self.assertEqual(plan["transfers"], -(-COUNT // PER_TRANSFER))

        copied = self.many("copy", *to_target)
        self.assertEqual([e["status"] for e in copied["extents"]], ["copied"] * COUNT)
        self.assertEqual({e["receipt"]["target_extent"] for e in copied["extents"]},
                         set(self.names))
        self.assertEqual(copied["summary"]["transfers"], -(-COUNT // PER_TRANSFER))
        self.assertEqual(self.target.public_names(),
                         dict.fromkeys(self.names, self.digests[self.names[0]]))

        folder, removed = f"posix:{self.target.folder}", self.names[:AT_ONCE]
        self.many("rm", CONFIRM, *(f"{folder}/{name}" for name in removed), secret=False)
        self.assertEqual(set(self.target.public_names()), set(self.names[AT_ONCE:]))
        self.assertEqual(len(self.many("trash", "ls", folder, secret=False)["entries"]), AT_ONCE)
        self.many("trash", "purge", CONFIRM, folder, secret=False)
        self.assertEqual(self.many("trash", "ls", folder, secret=False)["entries"], [])
        self.assertEqual(self.target.leftovers(), [])

    def test_what_more_than_one_call_takes_has_left_is_shown_and_purged(self):
        folder, first = self.target.folder, self.names[0]
        self.names = self.names[:AT_ONCE]
        writer = subprocess.Popen([SIPHON, "put", f"posix:{folder}/{first}", "-"],
                                  stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        try:
            data = folder / ".siphon" / "data"
            writer.stdin.write(b"x" * (8 << 20))
            writer.stdin.flush()
            wait_until(lambda: data.exists() and list(data.iterdir()), DEADLINE_S, "its scratch")
        finally:
            writer.kill()
            writer.wait()
            writer.stdin.close()
        (scratch,) = data.iterdir()
        os.truncate(scratch, BYTES)  # of 10,000 there would be some gigabytes
        self.clone(folder, ".siphon/head/NAME",
                   f".siphon/data/{scratch.name.replace(first, 'NAME')}")
        entries = self.many("scratch", "ls", f"posix:{folder}", secret=False)["entries"]
        self.assertEqual(sorted(e["extent"].rpartition("/")[2] for e in entries), self.names)
        self.many("scratch", "purge", "--all", CONFIRM, f"posix:{folder}", secret=False)
        self.assertEqual(self.many("scratch", "ls", f"posix:{folder}", secret=False)["entries"], [])
        left = [p for place in ("head", "data") for p in (folder / ".siphon" / place).iterdir()]
        self.assertEqual(left, [])


class TableTest(TwoDaemonsTest):
    def test_above_20_rows_the_table_is_left_out_and_that_is_said(self):
        self.source.start()
        self.target.start()
        names = [f"s{number:02}" for number in range(21)]
        for name in names:
            self.put(name, BYTES)

        def copy(some):
            return self.start([SIPHON, "copy", *(f"{self.source.address}/{n}" for n in some),
                               f"{self.target.address}/", "--secret-file", self.secret]).wait()
        ran = copy(names[:20])
        self.assertEqual(ran.code, OK, str(ran))
        self.assertEqual(sum("copied" in line and "->" in line for line in ran.stdout.splitlines()),
                         20, str(ran))
        ran = copy(names)
        self.assertEqual(ran.code, OK, str(ran))
        self.assertIn("21 extents: too many for a table here; -f json tells each of them",
                      ran.stdout)
        self.assertNotIn("->", ran.stdout)
        self.assertIn("21 extents listed: 1 copied and proven, 20 already there", ran.stdout)


if __name__ == "__main__":
    two_daemons.main()
