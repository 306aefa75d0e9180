#!/usr/bin/python3
"""What a name really stands for, before anything is destroyed: a thing under another spelling, a pool
under another's name, the namespaces of a pool, copies that are not yet where they should be.
"""

import concurrent.futures
import json
import os
import pathlib
import shutil
import signal
import subprocess
import threading

import harness
from cli import (BIN_DIR, CONFIRM, FATAL, NOTHING_TO_DO, NOT_FIT, OK, PARTIAL, PERMISSION,
                 RUN_DEADLINE_S, SIPHON, TEMPORARY, USAGE, Ran, parse_document)
from formats import MIB
from ports import listening_ports
from waiting import wait_until

from lane_proxy import LaneProxy

REDIRECT = BIN_DIR / "redirect_connect.so"


class Identity(harness.ClusterTest):
    cluster_options = {"size": 2}

    def setUp(self):
        self.name = self.id().rsplit(".", 1)[-1][5:25].replace("_", "")
        self.a, self.b = self.name + "a", self.name + "b"
        for pool in (self.a, self.b):
            self.cluster.create_pool(pool)

    def names(self, pool, *options):
        ran = self.cluster.siphon("ls", pool, *options)
        return {f"{e['namespace']}/{e['name']}".lstrip("/") for e in ran.document["extents"]}

    def move(self, *words, check=True, environment=None):
        return self.cluster.siphon("move", *words, CONFIRM, check=check, environment=environment)

    # ---- A1

    def conf_spellings(self):
        """Options that all lead to this one cluster, by pairs of source and target."""
        c, folder = self.cluster, pathlib.Path(self.cluster.scratch)
        copy, link = folder / "copy.conf", folder / "link.conf"
        shutil.copy(c.conf, copy)
        link.unlink(missing_ok=True)
        link.symlink_to(c.conf)
        return [[], ["--source-conf", c.conf], ["--target-conf", c.conf],
                ["--source-conf", copy, "--target-conf", link],
                ["--source-conf", os.path.relpath(copy), "--target-conf", c.conf],
                ["--source-id", "admin"], ["--target-name", "client.admin"],
                ["--source-id", "admin", "--target-id", "admin"],
                ["--source-conf", copy, "--source-cluster", "ceph"],
                ["--source-conf", copy, "--source-cluster", "other"],
                ["--source-name", self.mover]]

    def test_nothing_is_moved_onto_itself_under_any_spelling(self):
        c = self.cluster
        self.mover = c.create_key("mover", "allow *")
        c.put(f"{self.a}/e", 9 * MIB, 1)
        c.put(f"{self.a}/ns/e", 2 * MIB, 2)
        before = harness.fingerprint(c, self.a)
        for options in self.conf_spellings():
            for source, target in ((f"{self.a}/e", f"{self.a}/e"), (f"{self.a}/e", self.a),
                                   (self.a, self.a), (f"{self.a}/ns/", f"{self.a}/ns/"),
                                   (f"ceph:{self.a}/e", self.a)):
                for verb in ("move", "copy"):
                    with self.subTest(options=options, source=source, target=target, verb=verb):
                        words = [CONFIRM] if verb == "move" else []
                        ran = c.siphon(verb, *options, source, target, *words, check=False)
                        self.assert_fails(ran, USAGE, "one and the same")
                        self.assertEqual(harness.fingerprint(c, self.a), before)
        # Elsewhere in the same pool is another place.
        self.move(f"{self.a}/e", f"{self.a}/f")
        self.assertEqual(self.names(self.a), {"f", "ns/e"})

    def test_a_cluster_under_another_name_is_the_same_cluster(self):
        """Its configuration and keyring are found by that name, as NAME.conf here."""
        c, folder = self.cluster, pathlib.Path(self.cluster.scratch) / "named"
        folder.mkdir()
        conf = "".join(f"keyring = {folder}/$cluster.$name.keyring\n"
                       if line.startswith("keyring =") and "$name" in line else line
                       for line in pathlib.Path(c.conf).read_text().splitlines(keepends=True))
        keyring = next(k for k in (c.dir / "client.admin.keyring", c.dir / "keyring")
                       if k.exists())
        for name in ("other", "third"):
            (folder / f"{name}.conf").write_text(conf)
            shutil.copy(keyring, folder / f"{name}.client.admin.keyring")
        c.put(f"{self.a}/e", 3 * MIB, 1)
        before = harness.fingerprint(c, self.a)

        def run(*words):
            command = [str(word) for word in (SIPHON, *words, "-f", "json")]
            done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL,
                                  capture_output=True, text=True, check=False,
                                  timeout=RUN_DEADLINE_S)
            return Ran(command, done.returncode, done.stdout, done.stderr,
                               parse_document(done.stdout))
        names = (["--source-cluster", "other", "--target-conf", c.conf],
                 ["--source-conf", c.conf, "--target-cluster", "third"],
                 ["--source-cluster", "other", "--target-cluster", "third"],
                 ["--cluster", "other", "--target-cluster", "third"])
        for options in names:
            for source, target in ((f"{self.a}/e", f"{self.a}/e"), (self.a, self.a)):
                for verb in (("move", CONFIRM), ("copy",)):
                    with self.subTest(options=options, source=source, verb=verb):
                        ran = run(*verb, *options, source, target)
                        self.assert_fails(ran, USAGE, "one and the same")
                        self.assertEqual(harness.fingerprint(c, self.a), before)
        # It is the cluster that was meant: what is not the same is moved.
        ran = run("move", CONFIRM, "--source-cluster", "other", "--target-cluster", "third",
                  f"{self.a}/e", self.b)
        self.assertEqual(ran.code, OK, str(ran))
        self.assertEqual((self.names(self.a), self.names(self.b)), (set(), {"e"}))

    def test_a_target_with_the_sources_own_private_ids_lets_no_source_go(self):
        """A pool whose objects were copied one by one, as `rados cppool` does. To the plan it is
        another pool with the same content; the look before each trashing sees one private id."""
        c = self.cluster
        c.put(f"{self.a}/e", 9 * MIB, 1)
        c.put(f"{self.a}/small", 1000, 2)
        for nspace, locator, name in harness.list_objects(c, self.a):
            with c.io(self.a, nspace=nspace, locator=locator) as source, \
                    c.io(self.b, nspace=nspace, locator=locator) as target:
                target.write_full(name, source.read(name, 64 * MIB))
                for key, value in source.get_xattrs(name):
                    target.set_xattr(name, key, value)
        before = harness.fingerprint(c, self.a)
        ran = self.move(self.a, self.b, check=False)
        self.assertEqual(ran.code, USAGE, str(ran))
        self.assertEqual(ran.document["trashed_sources"], [], str(ran))
        for extent in ran.extents:
            self.assertRegex(extent["problem"]["message"], "the source stays.*private id")
        self.assertEqual(harness.fingerprint(c, self.a), before)

    def test_an_overlay_that_comes_after_the_plan_lets_no_source_go(self):
        """Planned as two pools; before the two ends are verified, the one has become the other's
        cache: both are read from it."""
        c = self.cluster
        c.put(f"{self.a}/e", 3 * MIB, 1)
        c.siphon("copy", f"{self.a}/e", self.b)
        before = {pool: harness.fingerprint(c, pool) for pool in (self.a, self.b)}
        overlaid, one_by_one = threading.Event(), threading.Lock()
        tier = ({"prefix": "osd tier add", "pool": self.a, "tierpool": self.b,
                 "force_nonempty": "--force-nonempty"},
                {"prefix": "osd tier cache-mode", "pool": self.b, "mode": "writeback"},
                {"prefix": "osd tier set-overlay", "pool": self.a, "overlaypool": self.b})
        monitors = c.connect()

        def overlay(_):
            with one_by_one:
                if overlaid.is_set():
                    return
                overlaid.set()
                for command in tier:
                    code, _, words = monitors.mon_command(json.dumps(command), b"")
                    self.assertEqual(code, 0, words)
        ports = listening_ports(*c.control_ports)
        door = LaneProxy(ports)  # of the calls, here: the first is made when all is planned
        self.addCleanup(door.close)
        door.before_connect = overlay
        try:
            ran = self.move(f"{self.a}/e", self.b, check=False, environment={
                "LD_PRELOAD": str(REDIRECT),
                "SIPHON_TEST_REDIRECT_PORTS": f"{ports[0]}-{ports[-1]}"})
            self.assertTrue(overlaid.is_set(), str(ran))
        finally:
            c.ceph("osd", "tier", "remove-overlay", self.a)
            c.ceph("osd", "tier", "cache-mode", self.b, "none", "--yes-i-really-mean-it",
                   check=False)
            c.ceph("osd", "tier", "remove", self.a, self.b, check=False)
        self.assert_fails(ran, USAGE, "the source stays.*private id")
        self.assertEqual(ran.document["trashed_sources"], [], str(ran))
        for pool, was in before.items():
            self.assertEqual(harness.fingerprint(c, pool), was)

    def test_a_cache_tier_and_the_pool_behind_it_are_one_thing(self):
        c = self.cluster
        c.create_pool(self.name + "c")
        c.put(f"{self.a}/e", 2 * MIB, 1)
        before = harness.fingerprint(c, self.a)
        tier = (("osd", "tier", "add", self.a, self.b),
                ("osd", "tier", "cache-mode", self.b, "writeback"),
                ("osd", "tier", "set-overlay", self.a, self.b))
        for words in tier:
            c.ceph(*words)
        try:
            for source, target in ((self.a, self.b), (self.b, self.a)):
                for one in ("", "/e"):
                    ran = self.move(source + one, target + one, check=False)
                    self.assert_fails(ran, USAGE, "one and the same")
            # Elsewhere, from either name: refused before anything is granted, the tier by its name.
            for source in (self.a, self.b):
                for verb in (("copy", f"{source}/e", self.name + "c"), ("verify", f"{source}/e")):
                    ran = c.siphon(*verb, check=False)
                    self.assertEqual(ran.code, NOT_FIT, str(ran))
                    self.assertRegex(ran.stdout + ran.stderr,
                                     f"cache tier.*remove-overlay {self.a}")
            self.assertEqual([o for pool in (self.a, self.b, self.name + "c")
                              for o in harness.list_objects(c, pool) if "grant" in o[2]], [])
        finally:
            c.ceph("osd", "tier", "remove-overlay", self.a)
            c.ceph("osd", "tier", "cache-mode", self.b, "none", "--yes-i-really-mean-it",
                   check=False)
            c.ceph("osd", "tier", "remove", self.a, self.b, check=False)
        self.assertEqual(harness.fingerprint(c, self.a), before)

    def test_moves_both_ways_at_once_leave_a_copy_of_each(self):
        c = self.cluster
        names = {f"e{i}" for i in range(16)}
        for i, name in enumerate(sorted(names)):
            c.put(f"{self.a}/{name}", 3000, i)
        c.siphon("copy", self.a, self.b)
        for _ in range(3):
            there = self.start_siphon("move", self.a, self.b, CONFIRM)
            back = self.start_siphon("move", self.b, self.a, CONFIRM)
            there.wait()
            back.wait()
            self.assertEqual(self.names(self.a) | self.names(self.b), names)
            c.siphon("copy", self.a, self.b, check=False)
            c.siphon("copy", self.b, self.a, check=False)
            self.assertEqual((self.names(self.a), self.names(self.b)), (names, names))

    def test_a_copy_that_leaves_a_folders_daemon_after_the_trash_step_brings_the_source_back(self):
        c = self.cluster
        for i, name in enumerate(("e", "gone", "small")):
            c.put(f"{self.a}/{name}", 3 * MIB if i < 2 else 1000, i + 40)
        with harness.folder_daemon(c, self.name) as (folder, control, secret):
            removed, one_by_one = threading.Event(), threading.Lock()

            def remove_the_copy(_):
                """Once the source is in the trash, and before the daemon is asked again."""
                with one_by_one:
                    if removed.is_set() or "gone" in self.names(self.a):
                        return
                    c.siphon("rm", f"posix:{folder}/gone", CONFIRM)
                    removed.set()
            door = LaneProxy([control])  # of the calls, here
            self.addCleanup(door.close)
            door.before_connect = remove_the_copy
            ran = self.move("--secret-file", secret, *(f"{self.a}/{n}" for n in
                                                       ("e", "gone", "small")),
                            f"127.0.0.1:{control}/", check=False, environment={
                                "LD_PRELOAD": str(REDIRECT),
                                "SIPHON_TEST_REDIRECT_PORTS": f"{control}-{control}"})
            self.assertTrue(removed.is_set(), str(ran))
            self.assert_fails(ran, PARTIAL)
            self.assertEqual(ran.document["trashed_sources"],
                             [f"{self.a}/e", f"{self.a}/small"], str(ran))
            problem = next(e["problem"] for e in ran.extents if e["problem"])
            self.assertIn(f"the source stays: {self.a}/gone", problem["message"])
            self.assertEqual(problem["suspect"], "target", problem)
            self.assertEqual(self.names(self.a), {"gone"})
            self.assertEqual({p.name for p in folder.iterdir()} - {".siphon"}, {"e", "small"})

    # ---- A14

    def test_a_pool_is_all_of_its_namespaces(self):
        c = self.cluster
        for place in ("e1", "e2", "n1/e1", "n2/e3"):
            c.put(f"{self.a}/{place}", 100_000, 3)
        everything = {"e1", "e2", "n1/e1", "n2/e3"}
        self.assertEqual(self.names(self.a), everything)
        self.assertEqual(self.names(self.a, "--namespace", "n1"), {"n1/e1"})
        c.siphon("copy", "--namespace", "n1", self.a, self.b)
        self.assertEqual(self.names(self.b), {"n1/e1"})
        dry = c.siphon("move", "--dry-run", self.a, self.b)
        self.assertEqual(set(dry.document["would_trash"]), {f"{self.a}/{p}" for p in everything})
        for odd in (f"{self.a}/", f"ceph:{self.a}/"):
            ran = self.move(odd, self.b, check=False)
            self.assert_fails(ran, USAGE, "nothing after the slash")
        self.assertEqual(self.names(self.a), everything)
        ran = self.move(self.a, self.b)
        self.assertEqual(ran.document["sources_left"],
                         [{"store": self.a, "namespace": None, "extents": 0, "problem": None}])
        self.assertEqual(ran.document["summary"]["listed"], 4)
        self.assertEqual(ran.document["summary"]["copied"], 3)
        self.assertEqual(ran.document["summary"]["already_there"], 1)
        self.assertEqual(self.names(self.a), set())
        self.assertEqual(self.names(self.b), everything)

    def test_one_namespace_of_a_pool_is_not_called_the_pool(self):
        c = self.cluster
        for place in ("e1", "n1/e2"):
            c.put(f"{self.a}/{place}", 100_000, 3)
        # A key that sees one namespace and not that there are others.
        caps = ", ".join(f"allow class siphon {cap}" for cap in
                         ("hello", f"grant_read pool={self.a}", f"grant_read pool={self.b}",
                          f"grant_write pool={self.b}"))
        key = c.create_key(f"{self.name}-one", f"{caps}, allow rw pool={self.a} namespace='', "
                                               f"allow r pool={self.b}")
        for words in (("ls", self.a), ("copy", self.a, self.b),
                      ("move", self.a, self.b, "--accept-degraded", CONFIRM)):
            ran = c.siphon(*words, key=key, check=False)
            self.assertEqual(ran.code, PARTIAL, str(ran))
            self.assertEqual([u["problem"]["code"] for u in ran.document["unlisted"]],
                             ["PERMISSION_DENIED"], str(ran))
        self.assertEqual(ran.document["trashed_sources"], [f"{self.a}/e1"], str(ran))
        (left,) = ran.document["sources_left"]
        self.assertIsNone(left["extents"], str(ran))
        c.siphon("trash", "restore", f"{self.a}/e1")
        ran = c.siphon("move", "--namespace", "", self.a, self.b, CONFIRM, as_json=False)
        self.assertIn(f"\nthe default namespace of {self.a} is empty of extents now", ran.stdout)
        self.assertNotIn(f"\n{self.a} is empty", ran.stdout)
        self.assertEqual(self.names(self.a), {"n1/e2"})

    def test_a_removal_stays_in_the_pool_that_it_began_in(self):
        c = self.cluster
        names = [f"e{number}" for number in range(200)]
        places = [f"{pool}/{name}" for pool in (self.a, self.b) for name in names]
        content = c.put(places[0], 1000, 7)
        with concurrent.futures.ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda place: c.siphon("put", place, content), places[1:]))
        run = self.start_siphon("rm", "--purge", CONFIRM, *[f"{self.a}/{name}" for name in names])
        wait_until(lambda: run.ended() or len(harness.list_objects(c, self.a)) < len(names),
                   what="some of them are gone")
        run.send(signal.SIGSTOP)
        self.assertFalse(run.ended(), "over before the pools have other names")
        old = self.a + "old"
        c.ceph("osd", "pool", "rename", self.a, old)
        c.ceph("osd", "pool", "rename", self.b, self.a)
        run.send(signal.SIGCONT)
        ran = run.wait()
        self.assertEqual(self.names(self.a), set(names), str(ran))

    def test_verify_says_what_is_only_in_the_target(self):
        c = self.cluster
        c.put(f"{self.a}/e1", 100_000, 4)
        c.put(f"{self.a}/n1/e1", 100_000, 5)
        c.siphon("copy", self.a, self.b)
        c.put(f"{self.b}/n1/more", 100_000, 6)
        ran = c.siphon("verify", self.a, self.b)
        self.assertEqual(ran.document["only_in_target"], [f"{self.b}/n1/more"])
        self.assertEqual(ran.document["verified"], 2)
        ran = c.siphon("verify", "--exact", self.a, self.b, check=False)
        self.assertEqual(ran.code, PARTIAL, str(ran))

    # ---- A15, D13

    def test_what_is_there_already_but_short_is_not_there(self):
        c = self.cluster
        c.put(f"{self.a}/e", 20 * MIB, 7)
        c.siphon("copy", f"{self.a}/e", self.b)
        ran = c.siphon("copy", f"{self.a}/e", self.b, check=False)
        self.assertEqual(ran.code, NOTHING_TO_DO, str(ran))
        ran = c.siphon("copy", "--check", f"{self.a}/e", self.b, check=False)
        self.assertEqual(ran.code, NOTHING_TO_DO, str(ran))
        part = harness.Extent(c, self.b, "e").part_name(1)
        io = c.io(self.b, locator="e")
        io.remove_object(part)
        ran = c.siphon("copy", f"{self.a}/e", self.b, check=False)
        whole = f"whole up to byte {8 * MIB} alone"
        self.assert_fails(ran, FATAL, "missing or short", whole)
        ran = self.move(f"{self.a}/e", self.b, check=False)
        self.assertEqual(ran.code, FATAL, str(ran))
        self.assertEqual(self.names(self.a), {"e"})
        c.siphon("copy", "--replace", CONFIRM, f"{self.a}/e", self.b)
        # The parts behind the missing one are there still, and so they are not called gone.
        (kept,) = c.siphon("trash", "ls", f"{self.b}/e").document["entries"]
        self.assertIn(whole, kept["problem"]["message"])
        self.assertIn(f"siphon.{kept['private_id']}.NUMBER FILE; or remove the entry: ",
                      kept["problem"]["next_step"])
        self.assertRegex(kept["problem"]["next_step"],
                         f"trash purge --private-id {kept['private_id']} {self.b}/e$")
        # All is there: what was done is that the source went.
        ran = self.move(f"{self.a}/e", self.b)
        self.assertEqual(ran.code, OK)
        self.assertEqual(self.names(self.a), set())
        # A source that is short: its plan says what the copy does.
        c.io(self.b, locator="e").remove_object(harness.Extent(c, self.b, "e").part_name(1))
        for plan in (("--dry-run",), ()):
            ran = c.siphon("copy", *plan, f"{self.b}/e", f"{self.a}/again", check=False)
            self.assert_fails(ran, FATAL)
            self.assertEqual(ran.problem["suspect"], "source", str(ran))

    def test_what_may_not_be_read_at_the_target_is_not_called_damaged(self):
        c = self.cluster
        c.put(f"{self.a}/e", 2 * MIB, 7)
        c.siphon("copy", f"{self.a}/e", self.b)
        key = c.create_key("writer", f"allow class siphon hello, allow class siphon grant_read "
                                     f"pool={self.a}, allow class siphon grant_write "
                                     f"pool={self.b}, allow r pool={self.a}")
        ran = c.siphon("copy", "--check", f"{self.a}/e", self.b, key=key, check=False)
        self.assert_fails(ran, PERMISSION, "there already|at the target already",
                          "grant_read")
        self.assertNotIn("damaged", str(ran))

    # ---- parts that no head names

    def test_parts_that_no_head_names_are_shown_and_removed_with_care(self):
        c = self.cluster
        c.put(f"{self.a}/e", 20 * MIB, 9)
        before = harness.fingerprint(c, self.a)
        late, lost = "ab" * 16, "cd" * 16
        # Beyond any gap that a walk from the first part would bridge; and in a namespace of nothing
        # else.
        for nspace, name, object_name in (("", "e", f"siphon.{late}.00000100"),
                                          ("n", "gone", f"siphon.{lost}.00000000")):
            c.io(self.a, nspace=nspace, locator=name).write_full(object_name, b"x" * 1000)

        def shown():
            entries = c.siphon("scratch", "ls", self.a).document["entries"]
            return {(e["extent"], e["private_id"], e["bytes"], e["named"]) for e in entries}
        both = {(f"{self.a}/e", late, 1000, False), (f"{self.a}/n/gone", lost, 1000, False)}
        self.assertEqual(shown(), both)
        self.assertEqual(c.siphon("trash", "ls", self.a).document["entries"], [])
        # They may be all there is of an extent whose head was lost, its name used again or not.
        for used_again in (False, True):
            if used_again:
                c.put(f"{self.a}/n/gone", 1000, 9)
            ran = c.siphon("scratch", "purge", self.a, check=False)
            self.assertEqual(ran.code, NOTHING_TO_DO, str(ran))
            self.assertRegex(ran.stderr, "2 private ids: bytes that no head names")
            self.assertEqual(shown(), both)
        c.siphon("rm", "--purge", CONFIRM, f"{self.a}/n/gone")
        c.siphon("scratch", "purge", "--all", CONFIRM, self.a)
        self.assertEqual(shown(), set())
        self.assertEqual(harness.fingerprint(c, self.a), before)

    # ---- A10

    def test_a_source_stays_while_its_copy_is_on_too_few_osds(self):
        c = self.cluster
        c.create_pool(self.name + "c", size=3)
        c.put(f"{self.a}/e", 9 * MIB, 8)
        before = harness.fingerprint(c, self.a)
        c.ceph("osd", "set", "noout")
        serving = {c.place(pool, "e")[0] for pool in (self.a, self.name + "c")}
        osd = next(o for o in range(3) if o not in serving)
        try:
            c.tool("kill", f"osd.{osd}")
            c.ceph("osd", "down", str(osd))
            wait_until(lambda: not c.osd_is_up(osd), what="the OSD is down")
            dry = c.siphon("move", "--dry-run", "--timeout", "3", f"{self.a}/e", self.name + "c",
                           check=False)
            self.assert_fails(dry, TEMPORARY, "the source would stay.*of 3 OSDs")
            self.assertEqual(dry.document["would_trash"], [])
            ran = self.move("--timeout", "3", f"{self.a}/e", self.name + "c", check=False)
            self.assert_fails(ran, TEMPORARY, "of 3 OSDs",
                              f"the source stays: {self.a}/e .{self.name}c/e is there")
            # It is no failure of the copy, whose number it is.
            told = {k: ran.document["summary"][k] for k in ("copied", "failed", "sources_staying")}
            self.assertEqual(told, {"copied": 1, "failed": 0, "sources_staying": 1}, str(ran))
            self.assertEqual([e["status"] for e in ran.extents], ["copied"], str(ran))
            self.assertEqual(harness.fingerprint(c, self.a), before)
            self.move("--accept-degraded", f"{self.a}/e", self.name + "c")
            self.assertEqual(self.names(self.a), set())
        finally:
            c.tool("start", f"osd.{osd}")
            c.ceph("osd", "unset", "noout")
            c.wait_companions()


if __name__ == "__main__":
    harness.main()
