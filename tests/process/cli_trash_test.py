"""Removing from a plain folder, its trash and its scratch, from outside."""

import os
import re
import shlex
import unittest

from folder_cli import CliTest
from cli import CONFIRM, FATAL, NEEDS_CONFIRMATION, NOTHING_TO_DO, NOT_FOUND, PARTIAL, USAGE


class Removing(CliTest):
    def test_trash_then_purge(self):
        self.put("a", self.content(3_000_000))
        self.siphon("rm", self.address("a"), expect=NEEDS_CONFIRMATION)
        self.siphon("rm", "--dry-run", self.address("a"))
        self.siphon("stat", self.address("a"))
        self.siphon("rm", self.address("a"), CONFIRM)
        self.siphon("stat", self.address("a"), expect=NOT_FOUND)
        self.assertEqual(len(self.leftovers()), 1)
        self.siphon("rm", "--purge", self.address("a"), CONFIRM)
        self.assertEqual(self.leftovers(), [])
        self.siphon("rm", "--purge", self.address("a"), CONFIRM, expect=NOT_FOUND)

    def test_several_one_of_them_missing(self):
        self.put("a", b"a")
        self.put("b", b"b")
        run = self.siphon("rm", CONFIRM, self.address("a"), self.address("none"),
                          self.address("b"), expect=PARTIAL)
        self.assertIn(b"none", run.stderr)
        self.assertEqual(self.siphon("ls", self.address()).stdout, b"")

    def test_many_at_once_each_name_and_each_generation_once(self):
        """Side by side, but for what changes one register; told in the order they were named."""
        names = [f"e{number:03}" for number in range(40)]
        for name in names:
            self.put(name, name.encode())
        twice = [self.address(name) for name in names for _ in range(2)]
        ran = self.json("rm", CONFIRM, *twice)
        self.assertEqual([entry["extent"] for entry in ran["extents"]], twice[::2])
        for name in names:
            self.put(name, name.encode() * 2)
        self.siphon("rm", CONFIRM, *(self.address(name) for name in names))
        ran = self.json("trash", "purge", CONFIRM, self.address())
        self.assertEqual(len(ran["entries"]), 2 * len(names))
        self.assertEqual(self.leftovers(), [])


class CorruptHeads(CliTest):
    def corrupt(self, name):
        path = self.store / ".siphon" / "head" / name
        raw = bytearray(path.read_bytes())
        raw[40] ^= 0xFF
        path.write_bytes(raw)
        return bytes(raw)

    def test_ls_tells_of_a_head_that_does_not_decode(self):
        for name in "abc":
            self.put(name, name.encode())
        self.corrupt("b")
        run = self.siphon("ls", self.address(), expect=PARTIAL)
        self.assertEqual(run.stdout, b"a\nb\nc\n")
        self.assertIn(b"head file of extent b is damaged", run.stderr)
        for more in ((), ("-l",)):
            entries = self.json("ls", *more, self.address(), expect=PARTIAL)["extents"]
            self.assertEqual([bool(e.get("problem")) for e in entries], [False, True, False])
            self.assertEqual(entries[1]["problem"]["code"], "DATA_LOSS")
            self.assertIn("--corrupt-head", entries[1]["problem"]["next_step"])

    def test_a_corrupt_head_is_given_up_when_its_bytes_are_kept(self):
        self.put("a", b"content")
        raw = self.corrupt("a")
        record, address = self.home / "record", self.address("a")
        for verb in (("rm", CONFIRM), ("put", "--replace", CONFIRM), ("stat",)):
            self.siphon(*verb, address, expect=FATAL, data=b"other")
        give_up = ("rm", "--corrupt-head", address)
        self.siphon(*give_up, CONFIRM, expect=USAGE)
        self.siphon("rm", "--save", record, address, CONFIRM, expect=USAGE)
        self.siphon(*give_up, "--save", record, expect=NEEDS_CONFIRMATION)
        self.siphon(*give_up, "--save", record, "--dry-run")
        record.write_bytes(b"somebody's")
        self.siphon(*give_up, "--save", record, CONFIRM, expect=FATAL)
        self.assertEqual(record.read_bytes(), b"somebody's")
        self.siphon("stat", address, expect=FATAL)  # there still
        record.unlink()
        document = self.json(*give_up, "--save", record, CONFIRM)
        self.assertEqual(record.read_bytes(), raw)
        self.assertEqual(document["saved"], [str(record)])
        # The bytes are a plain file now, and nobody's: not overwritten, not removed.
        stored = (self.store / "a").read_bytes()
        self.assertIn(b"content", stored)
        self.siphon("put", address, "-", data=b"other", expect=FATAL)
        self.assertEqual((self.store / "a").read_bytes(), stored)
        (self.store / "a").rename(self.home / "aside")
        self.put("a", b"anew")
        self.assertEqual(self.siphon("get", address, "-").stdout, b"anew")

    def test_what_is_in_order_or_not_there_is_no_corrupt_head(self):
        self.put("a", b"content")
        record = self.home / "record"
        give_up = ("rm", "--corrupt-head", "--save", record, CONFIRM)
        self.siphon(*give_up, self.address("a"), expect=FATAL)
        self.siphon(*give_up, self.address("none"), expect=NOT_FOUND)
        (self.store / "foreign").write_bytes(b"somebody's")
        self.siphon(*give_up, self.address("foreign"), expect=NOT_FOUND)
        self.assertEqual((self.store / "foreign").read_bytes(), b"somebody's")
        self.assertFalse(record.exists())
        self.assertEqual(self.siphon("get", self.address("a"), "-").stdout, b"content")


class TrashAndScratch(CliTest):
    SURE = "--yes-i-really-mean-it"

    def put_and_get(self, name, data):
        self.put(name, data, "--replace", self.SURE)

    def test_looking_creates_nothing(self):
        for verb in ("ls", "trash ls", "scratch ls"):
            self.siphon(*verb.split(), self.address() + "/")
        self.siphon("stat", self.address("e1"), expect=NOT_FOUND)
        self.siphon("put", "--dry-run", self.address("e1"), self.file("in", b"x" * 5000))
        self.assertEqual(os.listdir(self.store), [])

    def test_restore_brings_an_older_generation_back(self):
        old, new = self.content(3 << 20), self.content(5 << 20)
        self.put_and_get("e1", old)
        self.put_and_get("e1", new)
        entry, = self.json("trash", "ls", self.address("e1"))["entries"]
        self.assertTrue(entry["restorable"])
        self.siphon("trash", "restore", self.address("e1"), expect=FATAL)
        self.siphon("rm", self.address("e1"), self.SURE)
        entries = self.json("trash", "ls", self.address() + "/")["entries"]
        self.assertEqual(len(entries), 2)
        before = sorted(os.listdir(self.store))
        self.siphon("trash", "restore", "--dry-run", self.address("e1"))
        self.assertEqual(sorted(os.listdir(self.store)), before)
        self.siphon("trash", "restore", self.address("e1"), "--private-id", entry["private_id"])
        self.assertEqual(self.siphon("get", self.address("e1"), "-").stdout, old)

    def test_purge_by_name_and_age_needs_a_confirmation(self):
        self.put_and_get("e1", self.content(2 << 20))
        self.siphon("rm", self.address("e1"), self.SURE)
        self.siphon("trash", "purge", self.address("e1"), expect=NEEDS_CONFIRMATION)
        self.siphon("trash", "purge", "--older-than", "1h", self.address("e1"), self.SURE,
                    expect=NOTHING_TO_DO)
        self.siphon("trash", "purge", "--older-than", "soon", self.address("e1"), expect=USAGE)
        self.siphon("trash", "purge", "--dry-run", self.address("e1"))
        self.assertEqual(len(self.json("trash", "ls", self.address("e1"))["entries"]), 1)
        self.siphon("trash", "purge", self.address("e1"), self.SURE)
        self.assertEqual(self.leftovers(), [])

    def test_purge_by_age_takes_the_old_and_leaves_the_young(self):
        for name in ("e1", "e2"):
            for i in range(4):
                self.put_and_get(name, bytes([i]) * 2_000_000)
        self.backdate_trash("e1", [0, 2, 49])
        self.backdate_trash("e2", [1, 30, 24 * 8])
        first, second = self.removed("e1"), self.removed("e2")
        words = ("trash", "purge", self.SURE, "--older-than")

        def gone(age, where, *more):
            ran = self.json(*words, age, where, *more)
            return [e["private_id"] for e in ran["entries"]]

        old = [first[0]["private_id"], *(e["private_id"] for e in second[:2])]
        self.assertEqual(sorted(gone("1d", self.address(), "--dry-run")), sorted(old))
        self.assertEqual(len(self.removed("e1") + self.removed("e2")), 6)
        self.assertEqual(gone("7d", self.address()), [second[0]["private_id"]])
        self.assertEqual(gone("90m", self.address("e1"), "--private-id",
                              first[1]["private_id"]), [first[1]["private_id"]])
        self.assertEqual(sorted(gone("24h", self.address())),
                         sorted([first[0]["private_id"], second[1]["private_id"]]))
        self.siphon(*words, "2h", self.address(), expect=NOTHING_TO_DO)
        self.assertEqual(self.removed("e1"), first[2:])
        self.assertEqual(self.removed("e2"), second[2:])
        self.assertEqual(len(self.leftovers()), 2)
        for name in ("e1", "e2"):
            self.siphon("rm", self.address(name), self.SURE)
            young = (first if name == "e1" else second)[2]["private_id"]
            self.siphon("trash", "restore", self.address(name), "--private-id", young)
            self.assertEqual(self.siphon("get", self.address(name), "-").stdout,
                             bytes([2]) * 2_000_000)

    def test_many_replacements_never_lock_the_name(self):
        for i in range(20):
            self.put_and_get("e1", bytes([i]) * 5000)
        self.assertEqual(len(self.removed("e1")), self.MOST_KEPT)
        self.siphon("rm", self.address("e1"), self.SURE)
        self.siphon("rm", "--purge", self.address("e1"), self.SURE)
        self.assertEqual(self.leftovers(), [])

    def removed(self, name):
        """Its generations in the trash, youngest last."""
        return self.json("trash", "ls", self.address(name))["entries"]

    # What the trash of one name holds at most, for who knows no trash.keep (which may be 15).
    MOST_KEPT = 15

    def test_rm_says_which_generation_it_pushes_out_of_the_trash(self):
        for i in range(self.MOST_KEPT):
            self.put("e1", bytes([i]) * (5000 + i))
            ran = self.json("rm", self.address("e1"), self.SURE)
            self.assertEqual(ran["extents"][0]["left_for_good"], [])
        oldest, second = self.removed("e1")[:2]
        self.put("e1", b"one more")
        dry = self.json("rm", "--dry-run", self.address("e1"))
        self.assertEqual([g["private_id"] for g in dry["extents"][0]["left_for_good"]],
                         [oldest["private_id"]])
        self.assertIn(f"would leave the trash for good, to make room: private id "
                      f"{oldest['private_id']}".encode(),
                      self.siphon("rm", "--dry-run", self.address("e1")).stdout)
        self.assertEqual(len(self.removed("e1")), self.MOST_KEPT)
        ran = self.json("rm", self.address("e1"), self.SURE)["extents"][0]
        self.assertEqual(ran["purged"], 1)
        self.assertEqual(ran["left_for_good"], [{k: oldest[k] for k in
                                                 ("private_id", "since", "bytes")}])
        self.put("e1", b"and one more")
        said = self.siphon("rm", self.address("e1"), self.SURE).stdout.decode()
        self.assertIn(f"left the trash for good, to make room: private id "
                      f"{second['private_id']}", said)
        self.assertEqual(len(self.removed("e1")), self.MOST_KEPT)

    def test_a_dry_removal_says_what_the_removal_does(self):
        for i in range(3):
            self.put_and_get("e1", bytes([i]) * 5000)
        self.put("only-trash", b"x")
        self.siphon("rm", self.address("only-trash"), self.SURE)
        names = [self.address("e1"), self.address("only-trash")]
        for words in (["rm", "--purge", *names], ["rm", names[0], names[0]]):
            dry = self.json(*words, "--dry-run")
            ran = self.json(*words, self.SURE)
            self.assertEqual(dry["extents"], ran["extents"], words)
            self.put("e1", b"y" * 5000)
        self.assertEqual([e["purged"] for e in self.json(
            "rm", "--purge", "--dry-run", names[0])["extents"]], [2])
        self.assertIn(b"(2 generations)",
                      self.siphon("rm", "--purge", "--dry-run", names[0]).stdout)
        self.siphon("rm", "--purge", "--dry-run", names[1], expect=NOT_FOUND)

    def test_a_name_that_is_given_twice_is_removed_once(self):
        self.put("e1", b"x")
        (self.home / "other").symlink_to(self.store)
        both = [self.address("e1"), self.address("e1"), f"posix:{self.home}/other/e1",
                f"posix:{self.home}/./store//e1"]
        for more in (["--dry-run"], [self.SURE]):
            ran = self.json("rm", *both, *more)
            self.assertEqual([e["extent"] for e in ran["extents"]], [self.address("e1")])

    def test_put_says_which_generation_it_pushes_out_of_the_trash(self):
        for i in range(self.MOST_KEPT + 1):
            self.put_and_get("e1", bytes([i]) * 5000)
        oldest = self.removed("e1")[0]
        source = self.file("in", b"x" * 5000)
        words = ("put", "--replace", self.address("e1"), source)
        for more in (("--dry-run",), (self.SURE,)):
            ran = self.json(*words, *more)
            self.assertEqual([g["private_id"] for g in ran["left_for_good"]],
                             [oldest["private_id"]])

    def test_nothing_leaves_the_trash_by_its_age_or_number_that_a_setting_may_keep(self):
        """trash.keep and trash.grace_hours are the devices': the command line cannot know them."""
        for i in range(12):
            self.put_and_get("e1", bytes([i]) * 5000)
        self.backdate_trash("e1", [24 * 30 * (i + 1) for i in range(11)])
        kept = [e["private_id"] for e in self.removed("e1")]
        self.assertEqual(len(kept), 11)
        for change in (("rm", self.address("e1"), self.SURE),
                       ("put", self.address("e1"), __file__),
                       ("put", "--replace", self.address("e1"), __file__, self.SURE)):
            for more in (("--dry-run",), ()):
                ran = self.json(*change, *more)
                self.assertEqual(ran.get("left_for_good", []), [], change)
                for extent in ran.get("extents", []):
                    self.assertEqual((extent["purged"], extent["left_for_good"]), (0, []))
            self.assertEqual([e["private_id"] for e in self.removed("e1")][:11], kept, change)
        self.assertEqual(len(self.removed("e1")), 13)
        said = self.siphon("trash", "ls", self.address("e1")).stdout.decode()
        self.assertIn(" 330 d ", said)
        self.assertNotIn("due", said)  # by which setting, nobody here knows

    def test_a_generation_whose_bytes_are_gone_is_marked_and_not_restored(self):
        self.put("e1", b"older" * 1000)
        self.siphon("rm", self.address("e1"), self.SURE)
        self.put("e1", b"younger" * 1000)
        (self.store / "e1").unlink()  # by somebody who knows nothing of Siphon
        older, younger = self.removed("e1")
        self.assertEqual((older["restorable"], younger["restorable"]), (True, False))
        self.assertIn("gone", younger["problem"]["message"])
        listed = self.siphon("trash", "ls", self.address() + "/").stdout.decode()
        self.assertEqual(sum("not whole" in line for line in listed.splitlines()), 1, listed)
        # As it says: when its file was moved away, and not removed, it comes back.
        moved = shlex.split(re.search(r"move that to (\S+);", younger["problem"]["next_step"])[1])
        self.assertEqual(moved, [f"{self.store}/e1"])
        for more in (["--dry-run"], []):
            run = self.siphon("trash", "restore", *more, self.address("e1"), expect=FATAL)
            self.assertIn(younger["private_id"].encode(), run.stderr)
            self.assertIn(f"--private-id {older['private_id']}".encode(), run.stderr)
        self.siphon("trash", "restore", self.address("e1"), "--private-id", older["private_id"])
        self.assertEqual(self.siphon("get", self.address("e1"), "-").stdout, b"older" * 1000)
        # Cut short is as bad as gone.
        self.siphon("rm", self.address("e1"), self.SURE)
        for kept in (self.store / ".siphon" / "data").iterdir():
            os.truncate(kept, 100)
        entries = self.removed("e1")
        self.assertEqual([e["restorable"] for e in entries], [False, False])
        run = self.siphon("trash", "restore", self.address("e1"), expect=FATAL)
        # What is left is not called gone, and where it is comes before how it goes.
        self.assertIn(f"whole up to byte 100 alone, of the {entries[-1]['bytes']} bytes".encode(),
                      run.stderr)
        self.assertNotIn(b"gone", run.stderr)
        said = run.stderr.decode().partition("next: ")[2]
        left, _, purge = said.partition("; or remove the entry: ")
        self.assertIn(f"/.siphon/data/e1.{entries[-1]['private_id']}", left)
        self.siphon(*shlex.split(purge)[1:], self.SURE, "--dry-run")
        self.siphon(*shlex.split(purge)[1:], self.SURE)
        self.siphon("trash", "purge", self.address("e1"), self.SURE)
        self.assertEqual(self.leftovers(), [])

    LOOKS = (("trash", "ls"), ("trash", "purge", SURE), ("scratch", "ls"), ("scratch", "purge"))

    def test_nothing_is_called_empty_that_is_not_there(self):
        for where in (self.address("none"), f"posix:{self.home}/no-folder",
                      f"posix:{self.home}/no/folder"):
            for words in self.LOOKS:
                run = self.siphon(*words, where, expect=NOT_FOUND)
                self.assertEqual(run.stdout, b"")
        self.put("e1", b"with nothing behind it")
        said = self.siphon("trash", "ls", self.address("e1")).stdout
        self.assertEqual(said, b"the trash is empty\n")
        self.siphon("trash", "purge", self.SURE, self.address("e1"), expect=NOTHING_TO_DO)

    def test_nothing_is_called_empty_that_could_not_be_looked_at(self):
        self.put("e1", b"e1")
        self.put("whole", b"whole")
        self.siphon("rm", self.address("e1"), self.SURE)
        (self.store / ".siphon" / "head" / "e1").write_bytes(b"no head")
        for words in self.LOOKS:
            run = self.siphon(*words, self.address("e1"), expect=FATAL)
            self.assertIn(b"the head file of extent e1 is damaged", run.stderr)
            self.assertEqual(run.stdout, b"")
        for words, said in ((("trash", "ls"), b"the trash is empty"),
                            (("scratch", "ls"), b"no attempts in progress or left over")):
            run = self.siphon(*words, self.address(), expect=PARTIAL)
            self.assertEqual(run.stdout, said + b", as far as it could be looked at\n")

    def test_a_purge_says_why_it_found_nothing(self):
        self.put("e1", b"e1")
        self.siphon("rm", self.address("e1"), self.SURE)
        purge = ("trash", "purge", self.SURE, self.address())
        run = self.siphon(*purge, "--private-id", "ab" * 16, expect=NOTHING_TO_DO)
        self.assertIn(b"nothing to remove: no entry in the trash has that private id", run.stdout)
        run = self.siphon(*purge, "--older-than", "1h", expect=NOTHING_TO_DO)
        self.assertIn(b"nothing to remove: nothing in the trash is as old as that", run.stdout)
        # A clock that was ahead makes no entry too young to be seen.
        self.backdate_trash("e1", [-24])
        self.siphon(*purge)
        self.assertIn(b"the trash is empty", self.siphon(*purge, expect=NOTHING_TO_DO).stdout)

    def test_what_a_killed_put_leaves_is_shown_and_purged(self):
        self.kill_a_put()
        listed = self.json("scratch", "ls", self.address() + "/")
        entry, = listed["entries"]
        self.assertEqual(entry["extent"], self.address("e1"))
        # Of a stream: nobody has counted what came, and that is not 0.
        self.assertIsNone(entry["bytes"])
        self.assertIsNone(listed["bytes"])
        said = self.siphon("scratch", "ls", self.address() + "/").stdout.decode()
        self.assertTrue(said.endswith("1 entry, 1 of a size not known\n"), said)
        self.siphon("scratch", "purge", self.address("e1"), expect=NOTHING_TO_DO)  # its lease
        self.siphon("scratch", "purge", "--all", self.address("e1"), expect=NEEDS_CONFIRMATION)
        self.siphon("scratch", "purge", "--all", self.address("e1"), self.SURE)
        self.assertEqual(self.json("scratch", "ls", self.address())["entries"], [])
        self.assertEqual(self.leftovers(), [])


class NothingBehindTheSlash(CliTest):
    """What "$POOL/$EXTENT" is when EXTENT is not set: never a whole store to who changes."""

    SURE = "--yes-i-really-mean-it"
    # Every verb that changes something, before and after the odd word.
    CHANGES = {"put": ((), (__file__,)), "seal": ((), ()), "rm": ((SURE,), ()),
               "copy": ((), ("p2/e",)), "move": ((SURE,), ("p2/e",)),
               "cancel": (("0" * 32,), ()),
               "trash restore": ((), ()), "trash purge": ((SURE,), ()),
               "scratch purge": (("--all", SURE), ())}
    READING = ("ls", "verify", "trash ls", "scratch ls")

    def test_the_verbs_that_change_something_are_these(self):
        said = self.siphon("xyzzy", expect=USAGE).stderr.decode()
        verbs = said.split("there are: ")[1].splitlines()[0].split(", ")
        verbs = [v for v in verbs if v not in ("trash", "scratch", "config")]
        verbs += ["trash ls", "trash restore", "trash purge", "scratch ls", "scratch purge"]
        changing = {v for v in verbs
                    if b"--dry-run" in self.siphon(*v.split(), "--help").stdout}
        self.assertEqual(changing, set(self.CHANGES))

    def refused(self, verb, *words, whole):
        """With what to write when all is meant; nothing was connected to."""
        for more in ((), ("--dry-run",)):
            run = self.siphon(*verb.split(), *words, *more, expect=USAGE,
                              env={"CEPH_CONF": "/dev/null"})
            self.assertIn(b"names nothing after the slash", run.stderr)
            self.assertIn(f"all of it: {whole}\n".encode(), run.stderr)

    def test_every_verb_that_changes_something_refuses_it(self):
        self.put("e2", b"kept")
        self.siphon("rm", self.address("e2"), self.SURE)
        self.kill_a_put()
        before = self.json("trash", "ls", self.address()), self.json("scratch", "ls",
                                                                     self.address())
        folder = self.address()
        for verb, (first, last) in self.CHANGES.items():
            for odd, whole in (("p1/", "p1"), ("ceph:p1/", "ceph:p1"), (f"{folder}/", folder),
                               (f"{folder}//", folder)):
                with self.subTest(verb=verb, odd=odd):
                    self.refused(verb, *first, odd, *last, whole=whole)
        self.assertEqual((self.json("trash", "ls", self.address()),
                          self.json("scratch", "ls", self.address())), before)

    def test_where_a_copy_or_a_removal_of_many_has_it_last_it_is_refused_too(self):
        self.refused("copy", "p1/e", "p2/", whole="p2")
        self.refused("move", self.SURE, "p1/e", "p1/", "p2", whole="p1")
        self.refused("rm", self.SURE, self.address("e"), self.address() + "/",
                     whole=self.address())

    def test_what_removes_for_good_refuses_a_namespace_too(self):
        for verb in ("trash purge", "scratch purge"):
            self.refused(verb, self.SURE, "p1/ns/", whole="--namespace ns p1")

    def test_who_reads_only_may_write_it(self):
        self.put("e1", b"a")
        for verb in self.READING:
            self.siphon(*verb.split(), self.address() + "/")

    def test_a_flag_with_an_empty_value_is_not_the_default(self):
        self.put("e1", b"kept")
        self.siphon("rm", self.address("e1"), self.SURE)
        for words, flag in ((("trash", "purge", self.SURE, self.address()), "--older-than"),
                            (("trash", "purge", self.SURE, self.address("e1")), "--private-id"),
                            (("trash", "restore", self.address("e1")), "--private-id"),
                            (("put", self.address("e2"), __file__), "--expect-sha256"),
                            (("put", self.address("e2"), __file__), "--expect-bytes"),
                            (("move", self.SURE, "p1/e", "p2"), "--receipts"),
                            (("rm", self.SURE, "p1/e"), "--conf"),
                            (("move", self.SURE, "p1/e", "p2"), "--source-conf")):
            for given in ((flag, ""), (f"{flag}=",)):
                with self.subTest(words=words, given=given):
                    run = self.siphon(*words, *given, expect=USAGE)
                    self.assertIn(flag.encode(), run.stderr)
        self.assertEqual(len(self.json("trash", "ls", self.address())["entries"]), 1)
        self.assertEqual(self.siphon("ls", self.address()).stdout, b"")


if __name__ == "__main__":
    unittest.main(verbosity=2)
