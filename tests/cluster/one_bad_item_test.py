#!/usr/bin/python3
"""One bad item is one bad item: a pool of many extents, five of which cannot be copied, each for a
reason of its own: rotten, open, too large, somebody else's object in the place of its head, in a
placement group that is down. The others are copied, and the numbers add up.

SIPHON_TEST_COUNT: how many extents (default 1,000, for CI). With SIPHON_TEST_GROUPS=1 all are of
one device, 10,005 of them more than one call names; then no group can be down, and four are bad.
"""

import collections
import json
import os
import secrets
import struct
import time

import rados

import harness  # it knows the way to tests/lib
from cli import CONFIRM, PARTIAL, TEMPORARY
from formats import MIB, crc32c, write_random_file
from waiting import wait_until

COUNT = int(os.environ.get("SIPHON_TEST_COUNT", 1000))
GROUPS = int(os.environ.get("SIPHON_TEST_GROUPS", 8))
MOST_BYTES = 4 * MIB  # transfer.max_extent_bytes of the companions
IN_FLIGHT = 64
SILENCE_S = 6  # what the companions wait for an operation, and the commands while a group is down
RUN_S = 600


class OneBadItem(harness.ClusterTest):

    cluster_options = {
        "environment": {"SIPHOND_TRANSFER_MAX_EXTENT_BYTES": str(MOST_BYTES),
                        "SIPHOND_CEPH_OSD_TIMEOUT_SECONDS": str(SILENCE_S)},
        # An OSD that is back waits a tenth of a second before each object that it lacks.
        "options": ["osd_recovery_sleep_hdd=0"]}

    # ---- placement groups

    def group_of(self, pool, name):
        """The placement group of an extent of that name."""
        ask = json.dumps({"prefix": "osd map", "pool": pool, "object": name, "format": "json"})
        code, answer, said = self.cluster.connect().mon_command(ask, b"")
        self.assertEqual(code, 0, said)
        return json.loads(answer)["pgid"]

    def groups(self, pool):
        return self.cluster.ceph("pg", "ls-by-pool", pool, as_json=True)["pg_stats"]

    def leave_one_group(self, pool, osd):
        """Moves the pool's groups, which have one copy each, away from an OSD, but for the one that
        it returns."""
        c = self.cluster
        at = sorted(g["pgid"] for g in self.groups(pool) if g["acting"] == [osd])
        for group in at[1:]:
            c.ceph("osd", "pg-upmap-items", group, osd, 0)
        if not at:
            group = self.groups(pool)[0]
            c.ceph("osd", "pg-upmap-items", group["pgid"], group["acting"][0], osd)
            at = [group["pgid"]]
        wait_until(lambda: [g["pgid"] for g in self.groups(pool) if osd in g["acting"]] == at[:1]
                   and c.pool_is_clean(pool), 120, f"one group of {pool} at osd.{osd}")
        return at[0]

    def wait_serving(self, pool, without, lost=None):
        """Until all groups but the lost one do without the OSD that has gone. Their new primary
        answers nobody until the old one's lease for reads is over, whether it lives or not."""
        def serves(group):
            states = set(group["state"].split("+"))
            return (without not in group["acting"] and "active" in states
                    and not states & {"wait", "laggy", "peering", "stale"})
        wait_until(lambda: all(serves(g) for g in self.groups(pool) if g["pgid"] != lost), 120,
                   f"pool {pool} to do without osd.{without}", poll_s=0.5)

    # ---- extents

    def multiply(self, pool, name, names):
        """Makes extents of `names` that are the inline extent `name`, under private ids of their
        own (docs/extent_format.md: the head register)."""
        io = self.cluster.io(pool, locator=name)
        self.addCleanup(io.close)
        data = io.read(f"siphon.{name}", MIB)
        register = io.get_xattr(f"siphon.{name}", "siphon.head")
        self.assertEqual(struct.unpack("<I", register[-4:])[0], crc32c(register[:-4]))
        under_way = collections.deque()
        for other in names:
            head = register[:16] + secrets.token_bytes(16) + register[32:-4]
            head += struct.pack("<I", crc32c(head))
            io.set_locator_key(other)
            with rados.WriteOpCtx() as op:
                op.new(1)  # exclusively
                op.write_full(data)
                op.set_xattr("siphon.head", head)
                under_way.append(io.operate_aio_write_op(op, f"siphon.{other}"))
                if len(under_way) >= IN_FLIGHT:
                    self.finish(under_way.popleft())
        while under_way:
            self.finish(under_way.popleft())

    def finish(self, completion):
        completion.wait_for_complete()
        self.assertEqual(completion.get_return_value(), 0)

    def names(self, pool, stem, count, lost, inside=False):
        """So many names outside of a group, or inside of it."""
        found = []
        number = 0
        while len(found) < count:
            name = f"{stem}{number:05}"
            if (lost is not None and self.group_of(pool, name) == lost) == inside:
                found.append(name)
            number += 1
        return found

    def make_bad_ones(self, pool, lost):
        """{what is wrong with it: the name}."""
        c = self.cluster
        bad = {what: self.names(pool, what, 1, lost)[0]
               for what in ("rotten", "open", "large", "foreign")}
        for what in ("rotten", "open"):
            path = write_random_file(c.scratch / what, 300, 2)
            c.siphon("put", *(["--open"] if what == "open" else []), f"{pool}/{bad[what]}", path)
        c.put(f"{pool}/{bad['large']}", MOST_BYTES + MIB, 3)
        with c.io(pool, locator=bad["rotten"]) as io:
            data = io.read(f"siphon.{bad['rotten']}", MIB)
            io.write_full(f"siphon.{bad['rotten']}",
                          data[:100] + bytes([data[100] ^ 1]) + data[101:])
        with c.io(pool, locator=bad["foreign"]) as io:
            io.write_full(f"siphon.{bad['foreign']}", b"somebody's")
        return bad

    # ---- what is told

    def timed(self, what, *arguments, **options):
        started = time.monotonic()
        ran = self.cluster.siphon(*arguments, timeout=RUN_S, **options)
        print(f"{what} in {time.monotonic() - started:.1f} s", flush=True)
        return ran

    def summary(self, ran, **expected):
        summary = ran.document["summary"]
        numbers = {key: summary[key] for key in
                   ("listed", "copied", "already_there", "refused", "failed")}
        self.assertEqual(numbers["listed"], numbers["copied"] + numbers["already_there"] +
                         numbers["refused"] + numbers["failed"], str(ran))
        statuses = collections.Counter(e["status"] for e in ran.extents)
        self.assertEqual(statuses["copied"], numbers["copied"], str(ran))
        self.assertEqual(statuses["already there"], numbers["already_there"], str(ran))
        self.assertEqual(len(ran.extents), numbers["listed"])
        # Refused is what somebody looked at; of what did not answer nobody knows.
        self.assertEqual(sum(e["refused"] for e in ran.extents), numbers["refused"], str(ran))
        for extent in ran.extents:
            if extent["problem"] and extent["problem"]["code"] == "DEADLINE_EXCEEDED":
                self.assertFalse(extent["refused"], str(extent))
        for key, value in expected.items():
            self.assertEqual(numbers[key], value, f"{key}: {numbers}\n{ran.stderr[-3000:]}")

    def assert_unlisted(self, ran, group):
        """Whatever could not be listed is that group, and there is something."""
        self.assertEqual(ran.code, PARTIAL, str(ran))
        self.assertTrue(ran.document["unlisted"], str(ran))
        for entry in ran.document["unlisted"]:
            self.assertIn(f"placement group {group} ", entry["problem"]["message"])
        self.assertIn(f"placement group {group} does not answer", ran.stderr)

    def assert_five_problems(self, ran, bad):
        problems = {e["source"]: e["problem"] for e in ran.extents if e["problem"]}
        self.assertEqual(sorted(problems), sorted(f"a/{name}" for name in bad.values()), str(ran))
        words = {"foreign": "is not Siphon's", "large": "takes no more than", "open": "is open",
                 "rotten": "rot at the source", "down": "no answer from the cluster in time"}
        for what, name in bad.items():
            problem = problems[f"a/{name}"]
            self.assertIn(name, problem["message"])
            self.assertIn(words[what], problem["message"])
            self.assertTrue(problem["next_step"], problem)
            self.assertIn(name, ran.stderr)

    # ---- the test

    def test_of_many_extents_those_that_cannot_be_copied_fail_alone(self):
        c, osd, started = self.cluster, self.cluster.osds - 1, time.monotonic()
        c.create_pool("a", size=1, pg_num=GROUPS)
        c.create_pool("b", size=2, pg_num=GROUPS)
        lost = self.leave_one_group("a", osd) if GROUPS > 1 else None
        bad = self.make_bad_ones("a", lost)
        if lost:
            bad["down"] = self.names("a", "down", 1, lost, inside=True)[0]
        good = self.names("a", "e", COUNT - len(bad), lost)
        c.put(f"a/{good[0]}", 300, 1)
        self.multiply("a", good[0], good[1:] + ([bad["down"]] if lost else []))
        print(f"{COUNT} extents made in {time.monotonic() - started:.1f} s", flush=True)
        if lost:
            few = self.make_a_few(osd)
            c.tool("kill", f"osd.{osd}")
            wait_until(lambda: not c.osd_is_up(osd), what="the OSD to be down")
            self.wait_serving("a", osd, lost)
            self.wait_serving("b", osd)
            self.wait_serving("c", osd)
            self.wait_serving("d", osd)

        # What is in the group that is down is listed by nobody: named, it is one of five.
        named = [f"a/{bad['down']}", "--timeout", str(SILENCE_S)] if lost else []
        looks = self.start_looking_at("few") if lost else []
        into = [self.start_siphon(*verb, "d", "few", "--timeout", str(SILENCE_S))
                for verb in (("copy",), ("verify",))] if lost else []
        ran = self.timed("copied", "copy", "a", *named, "b", check=False)
        self.assertEqual(ran.code, PARTIAL, str(ran))
        self.summary(ran, listed=COUNT, copied=len(good), already_there=0)
        self.assert_five_problems(ran, bad)
        if lost:
            self.assert_unlisted(ran, lost)
            self.see_the_rest_of(*few, looks)
            # One silence is waited for, or a few: not one for each extent.
            for run in into:
                ran = run.wait()
                self.assertEqual(ran.code, TEMPORARY, str(ran))
                self.assertEqual(len(ran.extents), 500)
                self.assertEqual({e["problem"]["code"] for e in ran.extents},
                                 {"DEADLINE_EXCEEDED"}, str(ran))
                if "refused" in ran.document.get("summary", {}):
                    self.assertEqual((ran.document["summary"]["refused"],
                                      ran.document["summary"]["failed"]), (0, 500))
            c.tool("start", f"osd.{osd}")
            c.wait_companions()
            for pool in ("a", "b"):
                wait_until(lambda: c.pool_is_clean(pool), 120, f"pool {pool} to be clean")
        self.every_verb_bears_as_many(good, bad)

    def make_a_few(self, osd):
        """(group, names): a pool of sound extents, some of them in that group at that OSD. Pool d
        has many whose names are all of that group."""
        self.cluster.create_pool("few", size=1, pg_num=2)
        for pool in ("c", "d"):
            self.cluster.create_pool(pool, size=2, pg_num=2)
        group = self.leave_one_group("few", osd)
        there = self.names("few", "e", 20, group)
        lost = self.names("few", "e", 500, group, True)
        self.cluster.put(f"few/{there[0]}", 300, 4)
        self.multiply("few", there[0], there[1:] + lost[:2])
        self.cluster.put(f"d/{lost[0]}", 300, 4)
        self.multiply("d", lost[0], lost[1:])
        return group, there

    def start_looking_at(self, pool):
        """Each verb that goes by a listing, in the background: they wait for most of the time."""
        verbs = (("ls", pool), ("verify", pool), ("trash", "ls", pool),
                 ("trash", "purge", CONFIRM, pool), ("scratch", "ls", pool),
                 ("scratch", "purge", pool), ("copy", "--dry-run", pool, "c"))
        return [self.start_siphon(*verb, "--timeout", str(SILENCE_S)) for verb in verbs]

    def see_the_rest_of(self, group, there, looks):
        """No verb calls the part that it has seen the whole."""
        for look in looks:
            ran = look.wait()
            self.assert_unlisted(ran, group)
            if "extents" in ran.document:
                self.assertEqual(len(ran.extents), len(there), str(ran))
        # A source is not called empty whose rest cannot be seen.
        ran = self.cluster.siphon("move", "few", "c", "--accept-degraded", CONFIRM, "--timeout",
                                  str(SILENCE_S), check=False)
        self.assert_unlisted(ran, group)
        self.assertEqual(sorted(ran.document["trashed_sources"]), [f"few/{n}" for n in there])
        (left,) = ran.document["sources_left"]
        self.assertIsNone(left["extents"], str(ran))

    def every_verb_bears_as_many(self, good, bad):
        c = self.cluster
        found = [bad["down"]] if "down" in bad else []  # its group is back
        there = good + found
        again = c.siphon("copy", "a", "b", check=False, as_json=False, timeout=RUN_S)
        self.assertEqual(again.code, PARTIAL, str(again))
        self.assertRegex(again.stdout, rf"{COUNT} extents listed: {len(found)} copied and proven, "
                                       rf"{len(good)} already there, \d refused, \d failed")
        listed = self.timed("listed", "ls", "a", check=False)
        self.assertEqual(listed.code, PARTIAL, str(listed))
        self.assertEqual(len(listed.extents), COUNT)
        self.assertEqual([e["name"] for e in listed.extents if e.get("problem")], [bad["foreign"]])
        with c.io("a", locator=bad["foreign"]) as io:
            self.assertEqual(io.read(f"siphon.{bad['foreign']}", 100), b"somebody's")

        ran = self.timed("verified", "verify", "b")
        self.assertEqual(ran.document["verified"], len(there))
        self.assertEqual(c.siphon("trash", "ls", "b").document["entries"], [])
        self.assertEqual(c.siphon("scratch", "ls", "b").document["entries"], [])

        ran = self.timed("moved", "move", "a", "b", CONFIRM, check=False)
        self.assertEqual(ran.code, PARTIAL, str(ran))
        self.summary(ran, listed=COUNT, copied=0, already_there=len(there))
        self.assertEqual(len(ran.document["trashed_sources"]), len(there))
        (left,) = ran.document["sources_left"]
        self.assertEqual(left["extents"], COUNT - len(there))

        ran = self.timed("trash listed", "trash", "ls", "a", check=False)
        self.assertEqual(ran.code, PARTIAL, str(ran))  # what is foreign has no register
        self.assertEqual(len(ran.document["entries"]), len(there))
        c.siphon("trash", "restore", f"a/{there[-1]}")
        ran = c.siphon("verify", f"a/{there[-1]}", f"b/{there[-1]}")
        self.assertEqual(ran.document["verified"], 1)

        ran = self.timed("removed", "rm", CONFIRM, *(f"b/{name}" for name in there))
        self.assertEqual(len(ran.extents), len(there))
        self.assertEqual(c.siphon("ls", "b").extents, [])
        ran = self.timed("purged", "trash", "purge", CONFIRM, "b")
        self.assertEqual(len(ran.document["entries"]), len(there))
        self.assertEqual(harness.list_objects(c, "b"), [])


if __name__ == "__main__":
    harness.main()
