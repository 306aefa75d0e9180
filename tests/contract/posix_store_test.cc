// The posix adapter beyond the common contract: what lies in the folder, links, foreign files.
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <filesystem>
#include <future>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "plugin/base/crc32.h"
#include "tests/contract/posix_under_test.h"

namespace siphon::contract {
namespace {

namespace fs = std::filesystem;

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

// What is damaged is still Siphon's: what is left of an extent can be removed, and replaced.
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

}  // namespace
}  // namespace siphon::contract
