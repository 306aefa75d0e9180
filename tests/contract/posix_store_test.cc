// The posix adapter beyond the common contract: what lies in the folder, links, foreign files,
// crashes at every step, several processes, full and read-only file systems.
#include "adapters/posix/posix_store.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <functional>
#include <future>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <thread>

#include "adapters/store_util.h"
#include "plugin/base/crc32.h"
#include "tests/contract/samples.h"
#include "tests/contract/temp_folder.h"

namespace siphon::contract {
namespace {

namespace fs = std::filesystem;

PosixOptions small_options() {
  PosixOptions options;
  options.limits.part_bytes = 64 * kKiB;
  options.limits.inline_max_bytes = 16 * kKiB;
  return options;
}

// A provider and its one store.
struct Opened {
  std::unique_ptr<PosixProvider> provider;
  ExtentStore* store = nullptr;
  ExtentStore* operator->() const { return store; }
};

Opened open_store(const std::string& dir, PosixOptions options = small_options()) {
  auto provider = PosixProvider::create(dir, std::move(options));
  EXPECT_TRUE(provider) << provider.error().message;
  if (!provider) return {};
  auto store = (*provider)->open({});
  EXPECT_TRUE(store);
  return {std::move(*provider), store.value_or(nullptr)};
}

Status put(ExtentStore& store, const std::string& name, const Sample& sample,
           const PrivateId& id = new_private_id(), ExtentState state = ExtentState::kSealed) {
  BeginOptions options;
  options.private_id = id;
  options.extent_bytes = sample.bytes.size();
  options.replace = true;
  auto scratch = store.begin(name, options);
  if (!scratch) return fail(std::move(scratch).error());
  SIPHON_TRY(write_range(**scratch, store.limits(), 0, sample.bytes));
  return (*scratch)->publish(sample.header, true, state);
}

Result<Bytes> read_all(ExtentStore& store, const std::string& name, bool allow_open = false) {
  auto reader = store.open(name, {}, allow_open);
  if (!reader) return fail(std::move(reader).error());
  Bytes bytes((*reader)->info().header.extent_bytes);
  SIPHON_TRY(read_range(**reader, store.limits(), 0, bytes));
  return bytes;
}

bool holds(ExtentStore& store, const std::string& name, const Sample& sample) {
  auto bytes = read_all(store, name, true);
  return bytes && *bytes == sample.bytes;
}

int store_code(const Status& status) { return status ? 0 : 1; }

// Runs `body` in a child process; returns its exit code, or minus the signal that ended it.
int in_child(const std::function<int()>& body) {
  const pid_t pid = ::fork();
  if (pid == 0) ::_exit(body());
  int status = 0;
  EXPECT_EQ(::waitpid(pid, &status, 0), pid);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

// ---- the folder ------------------------------------------------------------------------------

TEST(PosixStore, ThePublicFileIsTheStream) {
  TempFolder folder;
  Opened store = open_store(folder.path());
  const Sample sample = make_sample(300'000, 1), small = make_sample(2000, 2);
  ASSERT_TRUE(put(*store.store, "e1", sample));
  ASSERT_TRUE(store->put_inline("e2", new_private_id(), small.bytes, small.header));
  EXPECT_TRUE(read_file(folder / "e1") == sample.bytes);
  EXPECT_EQ(crc32(read_file(folder / "e1")), sample.header.crc32);
  EXPECT_TRUE(read_file(folder / "e2") == small.bytes);
  EXPECT_EQ(count_files_of(folder.path(), "e1"), 2u);  // the file and its head
  EXPECT_TRUE(fs::is_empty(folder / ".siphon/data"));
  EXPECT_TRUE(fs::is_empty(folder / ".siphon/tmp"));
}

TEST(PosixStore, HasNeitherPoolNorNamespace) {
  TempFolder folder;
  Opened store = open_store(folder.path());
  EXPECT_EQ(code_of(store.provider->open({"pool", ""})), "INVALID_ARGUMENT");
  EXPECT_EQ(code_of(store.provider->open({"", "space"})), "INVALID_ARGUMENT");
  EXPECT_EQ(store.provider->pool_id("").value_or(-1), 0);
  EXPECT_EQ(code_of(store.provider->pool_id("pool")), "NOT_FOUND");
  EXPECT_EQ(code_of(PosixProvider::create(folder / "missing")), "NOT_FOUND");
  write_file(folder / "file", "x");
  EXPECT_EQ(code_of(PosixProvider::create(folder / "file")), "FAILED_PRECONDITION");
}

TEST(PosixStore, IsKnownWhateverPathLedThere) {
  TempFolder folder, other, links;
  Opened store = open_store(folder.path());
  ASSERT_TRUE(put(*store.store, "e1", make_sample(3000, 24)));  // the first change makes the id
  fs::create_directory_symlink(folder.path(), links / "link");
  Opened linked = open_store(links / "link");
  EXPECT_TRUE(store->identity().same_as(linked->identity()));
  EXPECT_EQ(store->identity().id, linked->identity().id);
  EXPECT_EQ(read_file(folder / ".siphon/id").size(), 33u);
  // Another host, where device and inode say nothing, sees the id.
  const StoreIdentity elsewhere{store->identity().id, "another boot:1:2"};
  EXPECT_TRUE(store->identity().same_as(elsewhere));
  // An id that was lost or made anew does not make two of one.
  fs::remove(folder / ".siphon/id");
  EXPECT_TRUE(store->identity().same_as(open_store(folder.path())->identity()));
  EXPECT_FALSE(store->identity().same_as(open_store(other.path())->identity()));
  EXPECT_FALSE(StoreIdentity{}.same_as(StoreIdentity{}));
}

TEST(PosixStore, ADamagedIdIsAnErrorAndNotAnotherStore) {
  TempFolder folder;
  ASSERT_TRUE(put(*open_store(folder.path()).store, "e1", make_sample(3000, 25)));
  write_file(folder / ".siphon/id", "no id");
  EXPECT_EQ(code_of(PosixProvider::create(folder.path())), "DATA_LOSS");
}

TEST(PosixStore, ManyWhoWriteToAFreshFolderAtOnceAgreeOnItsId) {
  TempFolder folder;
  std::vector<std::jthread> openers;
  std::array<StoreIdentity, 8> seen;
  for (StoreIdentity& one : seen) {
    openers.emplace_back([&] {
      Opened store = open_store(folder.path());
      EXPECT_TRUE(
          put(*store.store, "e" + std::to_string(&one - seen.data()), make_sample(3000, 26)));
      one = store->identity();
    });
  }
  openers.clear();
  for (const StoreIdentity& one : seen) EXPECT_EQ(one.id, seen.front().id);
  EXPECT_FALSE(seen.front().id.empty());
}

TEST(PosixStore, LinksOutOfTheFolderAreRefused) {
  TempFolder folder, outside;
  write_file(outside / "secret", "not yours");
  Opened store = open_store(folder.path());
  const Sample sample = make_sample(2000, 3);
  fs::create_symlink(outside / "secret", folder / "link");
  EXPECT_EQ(code_of(store->stat("link")), "FAILED_PRECONDITION");
  EXPECT_EQ(code_of(store->open("link", {})), "FAILED_PRECONDITION");
  EXPECT_EQ(code_of(put(*store.store, "link", sample)), "FAILED_PRECONDITION");
  EXPECT_EQ(code_of(store->put_inline("link", new_private_id(), sample.bytes, sample.header)),
            "FAILED_PRECONDITION");

  // A link that takes the place of an extent, with the head still there.
  ASSERT_TRUE(put(*store.store, "e1", sample));
  fs::remove(folder / "e1");
  fs::create_symlink(outside / "secret", folder / "e1");
  EXPECT_EQ(code_of(store->open("e1", {})), "FAILED_PRECONDITION");

  // A link in place of a scratch file, and of a head file.
  const PrivateId id = new_private_id();
  fs::create_symlink(outside / "secret", folder / (".siphon/data/e2." + to_hex(id)));
  BeginOptions options;
  options.private_id = id;
  EXPECT_EQ(code_of(store->begin("e2", options)), "FAILED_PRECONDITION");
  fs::create_symlink(outside / "secret", folder / ".siphon/head/e3");
  EXPECT_EQ(code_of(store->stat("e3")), "FAILED_PRECONDITION");
  EXPECT_EQ(read_file(outside / "secret").size(), 9u);

  TempFolder other;
  fs::create_directory_symlink(outside.path(), other / ".siphon");
  EXPECT_EQ(code_of(PosixProvider::create(other.path())), "FAILED_PRECONDITION");
  EXPECT_EQ(std::distance(fs::directory_iterator(outside.path()), {}), 1);
}

TEST(PosixStore, ForeignFilesAreLeftAlone) {
  TempFolder folder;
  write_file(folder / "notes.txt", "mine");
  fs::create_directory(folder / "subfolder");
  Opened store = open_store(folder.path());
  const Sample sample = make_sample(2000, 4);
  for (const std::string name : {"notes.txt", "subfolder"}) {
    SCOPED_TRACE(name);
    EXPECT_EQ(code_of(store->stat(name)), "FAILED_PRECONDITION");
    EXPECT_EQ(code_of(put(*store.store, name, sample)), "FAILED_PRECONDITION");
    EXPECT_EQ(code_of(store->put_inline(name, new_private_id(), sample.bytes, sample.header)),
              "FAILED_PRECONDITION");
    EXPECT_EQ(code_of(store->trash(name, {})), "FAILED_PRECONDITION");
  }
  auto page = store->list("", 10, Listing::kExtents);
  ASSERT_TRUE(page);
  EXPECT_TRUE(page->names.empty());
  EXPECT_EQ(read_file(folder / "notes.txt").size(), 4u);

  // One that appears while an attempt is under way.
  BeginOptions options;
  options.private_id = new_private_id();
  auto scratch = store->begin("late", options);
  ASSERT_TRUE(scratch);
  ASSERT_TRUE(write_range(**scratch, store->limits(), 0, sample.bytes));
  write_file(folder / "late", "mine too");
  EXPECT_EQ(code_of((*scratch)->publish(sample.header, false, ExtentState::kSealed)),
            "FAILED_PRECONDITION");
  EXPECT_TRUE((*scratch)->abort());
  EXPECT_EQ(count_files_of(folder.path(), "late"), 1u);
  EXPECT_EQ(read_file(folder / "late").size(), 8u);
}

TEST(PosixStore, WhatWasDoneByHandIsNoticed) {
  TempFolder folder;
  Opened store = open_store(folder.path());
  const Sample sample = make_sample(200'000, 5);
  ASSERT_TRUE(put(*store.store, "cut", sample));
  fs::resize_file(folder / "cut", 100'000);
  EXPECT_EQ(code_of(read_all(*store.store, "cut")), "DATA_LOSS");

  ASSERT_TRUE(put(*store.store, "gone", sample));
  fs::remove(folder / "gone");
  EXPECT_EQ(code_of(store->stat("gone")), "NOT_FOUND");
  ASSERT_TRUE(put(*store.store, "gone", sample));
  EXPECT_TRUE(holds(*store.store, "gone", sample));

  ASSERT_TRUE(put(*store.store, "head", sample));
  fs::resize_file(folder / ".siphon/head/head", 50);
  EXPECT_EQ(code_of(store->stat("head")), "DATA_LOSS");
  EXPECT_EQ(code_of(put(*store.store, "head", sample)), "DATA_LOSS");
}

// Every file under the folder that has these bytes.
std::size_t copies_of(const TempFolder& folder, const Sample& sample) {
  std::size_t found = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder.path())) {
    found += entry.is_regular_file() && read_file(entry.path()) == sample.bytes;
  }
  return found;
}

// A backup of the head comes back, from before a replace or two: what each of them published is
// there all the same, and nothing takes it away.
TEST(PosixStore, AHeadFromABackupCostsNoGeneration) {
  for (const std::size_t backed_up : {0u, 1u}) {
    SCOPED_TRACE(backed_up);
    TempFolder folder;
    const Sample samples[] = {make_sample(90'000, 31), make_sample(90'000, 32),
                              make_sample(90'000, 33)};
    PrivateId ids[3];
    {
      Opened store = open_store(folder.path());
      for (std::size_t i = 0; i < 3; ++i) {
        ids[i] = new_private_id();
        ASSERT_TRUE(put(*store.store, "e1", samples[i], ids[i]));
        if (i == backed_up) fs::copy_file(folder / ".siphon/head/e1", folder / "backup");
      }
    }
    fs::copy_file(folder / "backup", folder / ".siphon/head/e1",
                  fs::copy_options::overwrite_existing);
    Opened store = open_store(folder.path());
    EXPECT_EQ(code_of(store->stat("e1")), "FAILED_PRECONDITION");
    EXPECT_EQ(code_of(store->trash("e1", {})), "FAILED_PRECONDITION");
    EXPECT_EQ(code_of(put(*store.store, "e1", samples[0])), "FAILED_PRECONDITION");
    for (const PrivateId& id : ids) (void)store->collect("e1", id);
    EXPECT_TRUE(store->make_room("e1", true));
    for (const Sample& sample : samples) EXPECT_EQ(copies_of(folder, sample), 1u);
    // As the error says: out of the way with the file, and what the head names comes back.
    fs::rename(folder / "e1", folder / "aside");
    auto reg = store->inspect("e1");
    ASSERT_TRUE(reg);
    ASSERT_EQ(reg->trash.size(), backed_up + 1);
    EXPECT_TRUE(reg->reservations.empty());
    for (const TrashEntry& entry : reg->trash) EXPECT_TRUE(store->check_kept("e1", entry));
    ASSERT_TRUE(store->restore("e1", ids[backed_up]));
    EXPECT_TRUE(holds(*store.store, "e1", samples[backed_up]));
    for (const Sample& sample : samples) EXPECT_EQ(copies_of(folder, sample), 1u);
  }
}

// The removal was killed after its rename, and somebody laid a file at the name.
TEST(PosixStore, AFileLaidOverWhatWasTrashedIsNotTakenForIt) {
  TempFolder folder;
  const Sample sample = make_sample(90'000, 34), other = make_sample(90'000, 35);
  const PrivateId id = new_private_id();
  ASSERT_TRUE(put(*open_store(folder.path()).store, "e1", sample, id));
  ASSERT_EQ(in_child([&] {
              PosixOptions options = small_options();
              options.step_hook = [](std::string_view step) {
                if (step == "trash:renamed") ::_exit(42);
              };
              Opened store = open_store(folder.path(), options);
              (void)store->trash("e1", *store->stat("e1"));
              return 1;
            }),
            42);
  write_file(folder / "e1",
             std::string(reinterpret_cast<const char*>(other.bytes.data()), other.bytes.size()));
  Opened store = open_store(folder.path());
  EXPECT_EQ(code_of(store->trash("e1", {})), "FAILED_PRECONDITION");
  EXPECT_EQ(code_of(store->open("e1", {})), "FAILED_PRECONDITION");
  EXPECT_EQ(code_of(put(*store.store, "e1", sample)), "FAILED_PRECONDITION");
  EXPECT_EQ(code_of(store->restore("e1", id)), "FAILED_PRECONDITION");
  EXPECT_EQ(copies_of(folder, sample), 1u);
  EXPECT_EQ(copies_of(folder, other), 1u);
  auto reg = store->inspect("e1");
  ASSERT_TRUE(reg);
  ASSERT_EQ(reg->trash.size(), 1u);
  fs::remove(folder / "e1");
  ASSERT_TRUE(store->restore("e1", id));
  EXPECT_TRUE(holds(*store.store, "e1", sample));
}

// The bytes that the head names have gone with that; but the file is somebody's, and no extent.
TEST(PosixStore, AFileMovedOverASealedExtentIsNeitherTrashedNorReplaced) {
  TempFolder folder;
  Opened store = open_store(folder.path());
  const PrivateId id = new_private_id();
  ASSERT_TRUE(put(*store.store, "e1", make_sample(90'000, 39), id));
  const ExtentInfo before = *store->stat("e1");
  write_file(folder / "theirs", "no extent");
  fs::rename(folder / "theirs", folder / "e1");
  const auto is_refused = [&](const auto& result) {
    ASSERT_FALSE(result);
    const Error& error = result.error();
    EXPECT_EQ(error.code, Code::kFailedPrecondition) << error.message;
    EXPECT_EQ(error.reason, Reason::kNotSiphons) << error.message;
    EXPECT_NE(error.next_step.find("--private-id " + to_hex(id)), std::string::npos);
  };
  is_refused(store->stat("e1"));
  is_refused(store->open("e1", {}));
  is_refused(store->trash("e1", before));
  is_refused(put(*store.store, "e1", make_sample(90'000, 40)));
  EXPECT_EQ(fs::file_size(folder / "e1"), 9u);
  // As the error says.
  fs::rename(folder / "e1", folder / "theirs");
  auto reg = store->inspect("e1");
  ASSERT_TRUE(reg);
  ASSERT_EQ(reg->trash.size(), 1u);
  EXPECT_TRUE(store->purge("e1", id, reg->trash[0].trashed_unix_ms));
  EXPECT_TRUE(put(*store.store, "e1", make_sample(90'000, 41)));
  EXPECT_EQ(fs::file_size(folder / "theirs"), 9u);
}

// Damage is no stranger: what is left of an extent can be removed, and replaced.
TEST(PosixStore, AnExtentThatWasCutShortCanBeReplacedAndRemoved) {
  for (const std::size_t left : {50'000u, 3u, 0u}) {
    TempFolder folder;
    Opened store = open_store(folder.path());
    ASSERT_TRUE(put(*store.store, "e1", make_sample(90'000, 42)));
    fs::resize_file(folder / "e1", left);
    EXPECT_TRUE(put(*store.store, "e1", make_sample(90'000, 43)));
    fs::resize_file(folder / "e1", left);
    EXPECT_TRUE(store->trash("e1", *store->stat("e1")));
    EXPECT_TRUE(store->purge_trash("e1"));
  }
}

// What a head file on disk does not say yet has a time that stays: a purge of what was seen finds
// it.
TEST(PosixStore, WhatWasRemovedByHandIsPurgedAsItWasSeen) {
  TempFolder folder;
  Opened store = open_store(folder.path());
  ASSERT_TRUE(put(*store.store, "e1", make_sample(90'000, 36)));
  fs::remove(folder / "e1");
  auto reg = store->inspect("e1");
  ASSERT_TRUE(reg);
  ASSERT_EQ(reg->trash.size(), 1u);
  const std::uint64_t looked = now_unix_ms();
  while (now_unix_ms() == looked) std::this_thread::yield();
  EXPECT_EQ(code_of(store->purge("e1", reg->trash[0].id, reg->trash[0].trashed_unix_ms)), "OK");
}

// An extent whose head is lost, whether or not its name is used again.
TEST(PosixStore, BytesThatNoHeadNamesGoWhenAskedForAlone) {
  TempFolder folder;
  Opened store = open_store(folder.path());
  const Sample sample = make_sample(90'000, 37), next = make_sample(50'000, 38);
  const PrivateId id = new_private_id();
  ASSERT_TRUE(put(*store.store, "e", sample, id));
  ASSERT_TRUE(store->trash("e", *store->stat("e")));
  fs::remove(folder / ".siphon/head/e");
  const auto tidied = [&](bool has_head) {
    auto reg = store->inspect("e");
    ASSERT_TRUE(reg);
    EXPECT_TRUE(reg->reservations.empty());
    ASSERT_TRUE(store->make_room("e", true));
    EXPECT_EQ(code_of(store->collect("e", id)), "OK");
    EXPECT_TRUE(store->purge_trash("e"));
    EXPECT_EQ(copies_of(folder, sample), 1u);
    auto page = store->list("", 10, Listing::kEverything);
    ASSERT_TRUE(page);
    ASSERT_EQ(page->parts["e"].size(), 1u);
    auto parts = store->parts_under("e");
    ASSERT_TRUE(parts);
    ASSERT_EQ(parts->size(), 1u);
    auto found = store->find_unnamed("e", parts->front());
    ASSERT_TRUE(found);
    ASSERT_TRUE(*found);
    EXPECT_EQ((*found)->bytes, sample.bytes.size());
    EXPECT_EQ((*found)->has_head, has_head);
  };
  tidied(false);
  ASSERT_TRUE(put(*store.store, "e", next));
  tidied(true);
  EXPECT_TRUE(store->remove_unnamed("e", {id, 1}));
  EXPECT_EQ(copies_of(folder, sample), 0u);
  EXPECT_TRUE(holds(*store.store, "e", next));
  EXPECT_EQ(code_of(store->remove_unnamed("e", {store->stat("e")->private_id, 1})),
            "FAILED_PRECONDITION");
}

TEST(PosixStore, WhatACrashLeavesOfASmallPutIsKnownForAnAttempt) {
  TempFolder folder;
  const Sample sample = make_sample(2000, 39);
  ASSERT_EQ(in_child([&] {
              PosixOptions options = small_options();
              options.step_hook = [](std::string_view step) {
                if (step == "inline:written") ::_exit(42);
              };
              (void)open_store(folder.path(), options)
                  ->put_inline("e1", new_private_id(), sample.bytes, sample.header);
              return 1;
            }),
            42);
  Opened store = open_store(folder.path());
  EXPECT_EQ(store->inspect("e1")->reservations.size(), 1u);
  EXPECT_TRUE(store->parts_under("e1")->empty());
  ASSERT_TRUE(store->make_room("e1", false));
  EXPECT_TRUE(store->inspect("e1")->reservations.empty());
  EXPECT_TRUE(fs::is_empty(folder / ".siphon/data"));
}

// Bytes that no head names are kept, as perhaps all there is of an extent: so there must be none.
TEST(PosixStore, ASmallPutWhoseHeadCannotBeWrittenLeavesNothing) {
  TempFolder folder;
  Opened store = open_store(folder.path());
  const Sample sample = make_sample(2000, 40);
  ASSERT_TRUE(put(*store.store, "warm", sample));
  fs::create_directory(folder / ".siphon/tmp/e1");  // where the head file is written first
  EXPECT_FALSE(store->put_inline("e1", new_private_id(), sample.bytes, sample.header));
  EXPECT_TRUE(fs::is_empty(folder / ".siphon/data"));
  EXPECT_FALSE(fs::exists(folder / "e1"));
  fs::remove(folder / ".siphon/tmp/e1");
  EXPECT_TRUE(store->put_inline("e1", new_private_id(), sample.bytes, sample.header));
  EXPECT_TRUE(holds(*store.store, "e1", sample));
}

TEST(PosixStore, ACopyOfTheFolderIsAStore) {
  TempFolder folder, copy;
  Opened store = open_store(folder.path());
  const Sample sample = make_sample(200'000, 19), next = make_sample(100'000, 20);
  ASSERT_TRUE(put(*store.store, "e1", sample));
  ASSERT_TRUE(put(*store.store, "e1", next));
  fs::copy(folder.path(), copy.path(), fs::copy_options::recursive);
  Opened copied = open_store(copy.path());
  EXPECT_TRUE(holds(*copied.store, "e1", next));
  EXPECT_EQ(copied->stat("e1")->trash_count, 1u);
  EXPECT_EQ(copied->purge_trash("e1").value_or(0), 1u);
  EXPECT_EQ(count_files_of(copy.path(), "e1"), 2u);
}

TEST(PosixStore, LookingCreatesNothing) {
  TempFolder folder;
  Opened store = open_store(folder.path());
  EXPECT_EQ(code_of(store->check_ready(true)), "OK");
  EXPECT_EQ(code_of(store->stat("e1")), "NOT_FOUND");
  EXPECT_EQ(code_of(store->open("e1", {})), "NOT_FOUND");
  auto page = store->list("", 10, Listing::kExtents);
  ASSERT_TRUE(page) << page.error().message;
  EXPECT_TRUE(page->names.empty());
  EXPECT_TRUE(fs::is_empty(folder.path()));
  // Who looked before anybody wrote sees what is written later.
  Opened other = open_store(folder.path());
  const Sample sample = make_sample(3000, 21);
  ASSERT_TRUE(put(*other.store, "e1", sample));
  EXPECT_TRUE(holds(*store.store, "e1", sample));
}

TEST(PosixStore, OneDaemonServesAFolder) {
  TempFolder folder;
  PosixOptions options = small_options();
  options.daemon = true;
  Opened first = open_store(folder.path(), options);
  auto second = PosixProvider::create(folder.path(), options);
  EXPECT_EQ(code_of(second), "FAILED_PRECONDITION");
  ASSERT_FALSE(second);
  EXPECT_NE(second.error().message.find("pid " + std::to_string(::getpid())), std::string::npos)
      << second.error().message;
  Opened command_line = open_store(folder.path());  // beside the daemon, name by name
  EXPECT_TRUE(put(*command_line.store, "e1", make_sample(3000, 22)));
  first = {};
  EXPECT_EQ(code_of(PosixProvider::create(folder.path(), options)), "OK");
}

TEST(PosixStore, AnIncompleteAttemptIsNotPublished) {
  TempFolder folder;
  Opened store = open_store(folder.path());
  const Sample sample = make_sample(200'000, 6);
  Sample shorter = sample;
  shorter.bytes.pop_back();
  EXPECT_EQ(code_of(put(*store.store, "e1", shorter)), "FAILED_PRECONDITION");
  EXPECT_EQ(code_of(store->stat("e1")), "NOT_FOUND");
}

TEST(PosixStore, AStuckHolderOfTheLockIsReported) {
  TempFolder folder;
  std::promise<void> locked, release;
  PosixOptions stuck = small_options(), hasty = small_options();
  stuck.step_hook = [&](std::string_view step) {
    if (step != "begin:reserved") return;
    locked.set_value();
    release.get_future().wait();
  };
  hasty.lock_timeout = std::chrono::milliseconds(5);
  Opened holder = open_store(folder.path(), stuck), other = open_store(folder.path(), hasty);
  auto attempt = std::async(std::launch::async, [&] {
    BeginOptions options;
    options.private_id = new_private_id();
    return code_of(holder->begin("e1", options));
  });
  locked.get_future().wait();
  EXPECT_EQ(code_of(other->stat("e1")), "UNAVAILABLE");
  EXPECT_EQ(code_of(other->stat("e2")), "NOT_FOUND");  // another name, another lock
  release.set_value();
  EXPECT_EQ(attempt.get(), "OK");
}

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
