// The posix adapter beyond the common contract: crashes at every step, several processes, full and
// read-only file systems.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "plugin/base/crc32.h"
#include "tests/contract/posix_under_test.h"

namespace siphon::contract {
namespace {

namespace fs = std::filesystem;

// ---- crashes ---------------------------------------------------------------------------------

// What happened to "e1" before the crash, the step that ends the process, and what must be there
// afterwards. kOld: as it was; kNew: as it was to be.
struct Crash {
  const char* action;
  const char* step;
  enum { kOld, kNew } outcome;
};
void PrintTo(const Crash& crash, std::ostream* out) { *out << crash.action << "/" << crash.step; }

class PosixCrash : public testing::TestWithParam<Crash> {
 protected:
  static constexpr int kCrashed = 42;

  // The action, in a process that ends at the step. Returns only if the step was never reached.
  int act() {
    PosixOptions options = small_options();
    options.step_hook = [](std::string_view step) {
      if (step == GetParam().step) ::_exit(kCrashed);
    };
    Opened store = open_store(folder_.path(), options);
    const std::string action = GetParam().action;
    if (action == "create" || action == "replace") return code(put(*store.store, "e1", new_, id_));
    if (action == "inline") return code(store->put_inline("e1", id_, new_.bytes, new_.header));
    if (action == "trash") return code(store->trash("e1", *store->stat("e1")));
    if (action == "collect") return code(store->collect("e1", id_));
    return 1;
  }
  static int code(const Status& status) { return status ? 0 : 1; }

  void prepare(ExtentStore& store) {
    const std::string action = GetParam().action;
    if (action == "replace" || action == "trash") {
      // Twice, so that the head file on disk is of the kind that a replace leaves.
      ASSERT_TRUE(put(store, "e1", make_sample(3000, 9)));
      ASSERT_TRUE(put(store, "e1", old_));
      had_old_ = true;
    }
    if (action == "collect") {
      BeginOptions options;
      options.private_id = id_;
      auto scratch = store.begin("e1", options);
      ASSERT_TRUE(scratch);
      ASSERT_TRUE(write_range(**scratch, store.limits(), 0, new_.bytes));
    }
  }

  // Both views, through a fresh store and of somebody who looks at the folder.
  void expect_outcome(ExtentStore& store) {
    const bool happened = GetParam().outcome == Crash::kNew;
    const std::string action = GetParam().action;
    const bool makes_new = action != "trash" && action != "collect";
    const Sample* expected =
        happened ? (makes_new ? &new_ : nullptr) : (had_old_ ? &old_ : nullptr);
    EXPECT_EQ(fs::exists(folder_ / "e1"), expected != nullptr);
    auto page = store.list("", 10, Listing::kExtents);
    ASSERT_TRUE(page);
    EXPECT_EQ(page->names.size(), expected ? 1u : 0u);
    if (!expected) {
      EXPECT_EQ(code_of(store.stat("e1")), "NOT_FOUND");
      return;
    }
    EXPECT_TRUE(read_file(folder_ / "e1") == expected->bytes);
    EXPECT_TRUE(holds(store, "e1", *expected));
    auto info = store.stat("e1");
    ASSERT_TRUE(info);
    EXPECT_EQ(info->header.crc32, expected->header.crc32);
    EXPECT_EQ(info->private_id == id_, expected == &new_);
  }

  // What a daemon does after a restart: leftovers go, and the name works again.
  void expect_recovery(ExtentStore& store) {
    Status collected = store.collect("e1", id_);
    auto info = store.stat("e1");
    EXPECT_EQ(code_of(collected), info && info->private_id == id_ ? "FAILED_PRECONDITION" : "OK");
    const Sample again = make_sample(100'000, 10);
    ASSERT_TRUE(put(store, "e1", again));
    EXPECT_TRUE(holds(store, "e1", again));
    ASSERT_TRUE(store.trash("e1", *store.stat("e1")));
    ASSERT_TRUE(store.purge_trash("e1"));
    EXPECT_EQ(count_files_of(folder_.path(), "e1"), 0u);
  }

  TempFolder folder_;
  const Sample old_ = make_sample(150'000, 7);
  const Sample new_ = make_sample(10'000, 8);
  const PrivateId id_ = new_private_id();
  bool had_old_ = false;
};

TEST_P(PosixCrash, LeavesTheOldOrTheNew) {
  {
    Opened store = open_store(folder_.path());
    prepare(*store.store);
  }
  ASSERT_EQ(in_child([&] { return act(); }), kCrashed) << "the step was never reached";
  Opened store = open_store(folder_.path());
  expect_outcome(*store.store);
  expect_recovery(*store.store);
}

// The crash happens again in the attempt that follows, and the name is replaced afterwards
// without any collection in between.
TEST_P(PosixCrash, TwiceInARow) {
  {
    Opened store = open_store(folder_.path());
    prepare(*store.store);
  }
  ASSERT_EQ(in_child([&] { return act(); }), kCrashed);
  (void)in_child([&] { return act(); });  // finds the leftovers of the first one
  Opened store = open_store(folder_.path());
  const Sample again = make_sample(100'000, 11);
  ASSERT_TRUE(put(*store.store, "e1", again));
  EXPECT_TRUE(holds(*store.store, "e1", again));
  // What was published before the crash is a generation in the trash by now.
  const bool published = std::string_view(GetParam().step) == "publish:renamed";
  EXPECT_EQ(code_of(store->collect("e1", id_)), published ? "FAILED_PRECONDITION" : "OK");
  ASSERT_TRUE(store->purge_trash("e1"));
  EXPECT_EQ(count_files_of(folder_.path(), "e1"), 2u);
  EXPECT_TRUE(read_file(folder_ / "e1") == again.bytes);
}

INSTANTIATE_TEST_SUITE_P(EveryStep, PosixCrash,
                         testing::Values(Crash{"create", "begin:reserved", Crash::kOld},
                                         Crash{"create", "publish:intended", Crash::kOld},
                                         Crash{"create", "publish:renamed", Crash::kNew},
                                         Crash{"replace", "begin:reserved", Crash::kOld},
                                         Crash{"replace", "publish:linked", Crash::kOld},
                                         Crash{"replace", "publish:intended", Crash::kOld},
                                         Crash{"replace", "publish:renamed", Crash::kNew},
                                         Crash{"inline", "inline:written", Crash::kOld},
                                         Crash{"inline", "publish:intended", Crash::kOld},
                                         Crash{"inline", "publish:renamed", Crash::kNew},
                                         Crash{"trash", "trash:renamed", Crash::kNew},
                                         Crash{"collect", "collect:condemned", Crash::kNew},
                                         Crash{"collect", "collect:removed", Crash::kNew}));

TEST(PosixStore, ACrashWhileSealingLeavesAnOpenExtent) {
  TempFolder folder;
  const Sample open = make_sample(100'000, 12, true);
  Opened store = open_store(folder.path());
  ASSERT_TRUE(put(*store.store, "e1", open, new_private_id(), ExtentState::kOpen));
  const ExtentInfo seen = *store->stat("e1");
  const Bytes tail(500, std::byte{7});
  SealedHeader header;
  header.extent_bytes = open.bytes.size() + tail.size();
  ASSERT_EQ(
      in_child([&] {
        PosixOptions options = small_options();
        options.step_hook = [](std::string_view) { ::_exit(42); };
        return open_store(folder.path(), options)->seal("e1", seen, open.bytes.size(), tail, header)
                   ? 0
                   : 1;
      }),
      42);
  EXPECT_EQ(store->stat("e1")->state, ExtentState::kOpen);
  ASSERT_TRUE(store->seal("e1", seen, open.bytes.size(), tail, header));
  EXPECT_EQ(store->stat("e1")->state, ExtentState::kSealed);
  EXPECT_EQ(read_file(folder / "e1").size(), header.extent_bytes);
}

// On a file system that renames across folders in two steps, a crash leaves both names.
TEST(PosixStore, AHalfRenameIsAPublish) {
  TempFolder folder;
  Opened store = open_store(folder.path());
  const Sample sample = make_sample(100'000, 21);
  const PrivateId id = new_private_id();
  ASSERT_TRUE(put(*store.store, "e1", sample, id));
  fs::create_hard_link(folder / "e1", folder / (".siphon/data/e1." + to_hex(id)));
  EXPECT_TRUE(holds(*store.store, "e1", sample));
  ASSERT_TRUE(store->trash("e1", *store->stat("e1")));
  EXPECT_FALSE(fs::exists(folder / "e1"));
  EXPECT_EQ(store->purge_trash("e1").value_or(0), 1u);
  EXPECT_EQ(count_files_of(folder.path(), "e1"), 0u);
}

// A process that replaces and purges without end is killed at whatever point it has reached.
TEST(PosixStore, KilledAtRandomPoints) {
  TempFolder folder;
  Opened store = open_store(folder.path());
  const Sample samples[2] = {make_sample(90'000, 13), make_sample(50'000, 14)};
  ASSERT_TRUE(put(*store.store, "e1", samples[0]));
  const std::uint64_t seed = std::random_device{}();
  RecordProperty("seed", std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int round = 0; round < 25; ++round) {
    SCOPED_TRACE("seed " + std::to_string(seed) + " round " + std::to_string(round));
    int pipe_fds[2];
    ASSERT_EQ(::pipe(pipe_fds), 0);
    const pid_t pid = ::fork();
    if (pid == 0) {
      PosixOptions options = small_options();
      options.step_hook = [&](std::string_view) { (void)!::write(pipe_fds[1], ".", 1); };
      Opened mine = open_store(folder.path(), options);
      for (std::uint64_t i = 0;; ++i) {
        if (!put(*mine.store, "e1", samples[i % 2])) ::_exit(1);
        if (!mine->purge_trash("e1")) ::_exit(1);
      }
    }
    ::close(pipe_fds[1]);
    for (std::uint64_t left = 1 + random() % 20; left > 0; --left) {
      char dot;
      ASSERT_EQ(::read(pipe_fds[0], &dot, 1), 1) << "the child ended by itself";
    }
    ::kill(pid, SIGKILL);
    int status = 0;
    ::waitpid(pid, &status, 0);
    ::close(pipe_fds[0]);
    const Bytes file = read_file(folder / "e1");
    EXPECT_TRUE(file == samples[0].bytes || file == samples[1].bytes);
    EXPECT_TRUE(holds(*store.store, "e1", file == samples[0].bytes ? samples[0] : samples[1]));
    // Keep the leftovers of a few rounds, then clear them as the collector does: by the ids that
    // the file names in data/ show.
    if (round % 5 != 4) continue;
    for (const auto& entry : fs::directory_iterator(folder / ".siphon/data")) {
      const std::string hex = entry.path().extension().string().substr(1);
      PrivateId id;
      ASSERT_TRUE(from_hex(hex, id.bytes));
      (void)store->collect("e1", id);
    }
    ASSERT_TRUE(store->purge_trash("e1"));
    EXPECT_TRUE(fs::is_empty(folder / ".siphon/data"));
  }
}

// ---- processes -------------------------------------------------------------------------------

TEST(PosixStore, TwoProcessesShareAFolder) {
  TempFolder folder;
  const Sample samples[2] = {make_sample(90'000, 15), make_sample(50'000, 16)};
  Opened store = open_store(folder.path());
  ASSERT_TRUE(put(*store.store, "e1", samples[0]));
  constexpr int kRounds = 40;
  // Each replaces the same name; who comes second sees a moved generation and gives way.
  auto replace_often = [&](ExtentStore& mine, const Sample& sample) {
    int published = 0;
    for (int i = 0; i < kRounds; ++i) {
      const PrivateId id = new_private_id();
      Status done = put(mine, "e1", sample, id);
      if (done) ++published;
      if (!done && done.error().code != Code::kAborted) return -1;
      if (!done && !mine.collect("e1", id)) return -1;
      if (!mine.purge_trash("e1")) return -1;
      auto bytes = read_all(mine, "e1");
      if (!bytes || (*bytes != samples[0].bytes && *bytes != samples[1].bytes)) return -1;
    }
    return published;
  };
  int pipe_fds[2];
  ASSERT_EQ(::pipe(pipe_fds), 0);
  const pid_t pid = ::fork();
  if (pid == 0) {
    Opened mine = open_store(folder.path());
    const int published = replace_often(*mine.store, samples[1]);
    ::_exit(::write(pipe_fds[1], &published, sizeof published) == sizeof published ? 0 : 1);
  }
  const int ours = replace_often(*store.store, samples[0]);
  int theirs = -1;
  EXPECT_EQ(::read(pipe_fds[0], &theirs, sizeof theirs), static_cast<ssize_t>(sizeof theirs));
  int status = 0;
  ::waitpid(pid, &status, 0);
  EXPECT_GE(ours, 0);
  EXPECT_GE(theirs, 0);
  EXPECT_EQ(store->stat("e1")->generation, 1u + static_cast<unsigned>(ours + theirs));
  EXPECT_EQ(count_files_of(folder.path(), "e1"), 2u);
}

// ---- file systems ----------------------------------------------------------------------------

TEST(PosixStore, AnExtentThatCannotFitIsRefusedAtBegin) {
  TempFolder folder;
  PosixOptions options = small_options();
  options.limits.max_extent_bytes = 1ull << 55;
  Opened store = open_store(folder.path(), options);
  BeginOptions begin;
  begin.private_id = new_private_id();
  begin.extent_bytes = 1ull << 54;
  EXPECT_EQ(code_of(store->begin("e1", begin)), "RESOURCE_EXHAUSTED");
  EXPECT_EQ(count_files_of(folder.path(), "e1"), 0u);
}

// A small file system of its own, in a child process: 1 MiB, then read-only.
// A collector on a full disk that ends before it could write the register, beside a writer that
// still lives: the bytes that are gone must not be published as zeros.
TEST(PosixStore, WhatACollectorTookFromAFullDiskIsNotPublished) {
  TempFolder folder;
  constexpr int kNotPermitted = 77, kCrashed = 42;
  const int code = in_child([&] {
    if (::unshare(CLONE_NEWNS) != 0 ||
        ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("none", folder.path().c_str(), "tmpfs", 0, "size=1m") != 0) {
      return kNotPermitted;
    }
    Sample sample = make_sample(900'000, 23);
    Opened store = open_store(folder.path());
    BeginOptions options;
    options.private_id = new_private_id();
    auto scratch = store->begin("e1", options);
    EXPECT_EQ(code_of(scratch), "OK");
    if (!scratch) return 1;
    const std::size_t half = store->limits().part_bytes * 7;
    const auto bytes = std::span(sample.bytes);
    EXPECT_TRUE(write_range(**scratch, store->limits(), 0, bytes.first(half)));
    ::unlink((folder / ".siphon/spare").c_str());  // somebody has used it up
    const int fill = ::open((folder / "fill").c_str(), O_WRONLY | O_CREAT, 0600);
    const std::vector<char> page(4096);
    while (::write(fill, page.data(), page.size()) > 0) {
    }
    for (const char* last_step : {"collect:hidden", "collect:condemned"}) {
      const int collected = in_child([&] {
        PosixOptions crashing = small_options();
        crashing.step_hook = [&](std::string_view step) {
          if (step == last_step) ::_exit(kCrashed);
        };
        return store_code(open_store(folder.path(), crashing)->collect("e1", options.private_id));
      });
      EXPECT_EQ(collected, kCrashed) << last_step;
      EXPECT_EQ(::ftruncate(fill, 0), 0);  // there is room again
      (void)write_range(**scratch, store->limits(), half, bytes.subspan(half));
      EXPECT_EQ(code_of((*scratch)->publish(sample.header, false, ExtentState::kSealed)),
                "ABORTED");
      EXPECT_EQ(code_of(store->begin("e1", options)), "ABORTED");  // nor resumed
    }
    ::close(fill);
    EXPECT_EQ(code_of(store->collect("e1", options.private_id)), "OK");
    EXPECT_EQ(count_files_of(folder.path(), "e1"), 0u);
    return testing::Test::HasFailure() ? 1 : 0;
  });
  if (code == kNotPermitted) GTEST_SKIP() << "needs the right to mount";
  EXPECT_EQ(code, 0);
}

TEST(PosixStore, FullAndReadOnlyFileSystems) {
  TempFolder folder;
  constexpr int kNotPermitted = 77;
  const int code = in_child([&] {
    if (::unshare(CLONE_NEWNS) != 0 ||
        ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("none", folder.path().c_str(), "tmpfs", 0, "size=1m") != 0) {
      return kNotPermitted;
    }
    const Sample kept = make_sample(100'000, 17), big = make_sample(2'000'000, 18);
    Opened store = open_store(folder.path());
    EXPECT_EQ(code_of(put(*store.store, "kept", kept)), "OK");
    EXPECT_EQ(code_of(put(*store.store, "big", big)), "RESOURCE_EXHAUSTED");  // said at begin
    BeginOptions options;
    options.private_id = new_private_id();
    auto scratch = store->begin("big", options);  // of unknown size: found out while writing
    EXPECT_EQ(code_of(scratch), "OK");
    if (!scratch) return 1;
    EXPECT_EQ(code_of(write_range(**scratch, store->limits(), 0, big.bytes)), "RESOURCE_EXHAUSTED");
    EXPECT_EQ(code_of(store->check_ready(true)), "RESOURCE_EXHAUSTED");
    EXPECT_EQ(code_of((*scratch)->abort()), "OK");
    EXPECT_EQ(count_files_of(folder.path(), "big"), 0u);
    EXPECT_EQ(code_of(store->check_ready(true)), "OK");
    scratch->reset();

    EXPECT_EQ(::mount("none", folder.path().c_str(), "tmpfs", MS_REMOUNT | MS_RDONLY, ""), 0);
    Opened later = open_store(folder.path());
    EXPECT_EQ(code_of(later->check_ready(false)), "OK");
    EXPECT_EQ(code_of(later->check_ready(true)), "FAILED_PRECONDITION");
    EXPECT_EQ(code_of(put(*later.store, "e2", kept)), "FAILED_PRECONDITION");
    EXPECT_TRUE(holds(*later.store, "kept", kept));
    return testing::Test::HasFailure() ? 1 : 0;
  });
  if (code == kNotPermitted) GTEST_SKIP() << "needs the right to mount";
  EXPECT_EQ(code, 0);
}

}  // namespace
}  // namespace siphon::contract
