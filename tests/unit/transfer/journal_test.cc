// The journal's promises: what is added is there after any end, receipts outlast the process, one
// daemon per file, and a damaged file keeps nobody from starting.
#include "plugin/transfer/journal.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "plugin/transfer/receipt_record.h"
#include "tests/contract/temp_folder.h"

namespace siphon {
namespace {

Attempt attempt(const std::string& extent) { return {{"p", "ns", 7}, extent, new_private_id()}; }

Receipt receipt(const std::string& transfer, const std::string& extent) {
  Receipt r;
  r.transfer_id = transfer;
  r.source_extent = extent;
  r.target_extent = extent + "-copy";
  r.source = {"from", "a"};
  r.target = {"to", "b"};
  r.source_device = "osd.1";
  r.target_device = "osd.2";
  r.bytes = 1234;
  r.source_crc32 = r.target_crc32 = 0xdeadbeef;
  r.header.extent_bytes = 1234;
  r.header.content_digest[5] = std::byte{7};
  r.private_id = new_private_id();
  r.data_endpoint = "127.0.0.1:7000";
  r.lanes = 3;
  r.started_unix_ms = now_unix_ms();
  r.finished_unix_ms = r.started_unix_ms + 1;
  r.fallback_parts = 2;
  r.already_there = true;
  TrashEntry& gone = r.left_for_good.emplace_back();
  gone.id = new_private_id();
  gone.trashed_unix_ms = 5;
  gone.header.extent_bytes = 77;
  return r;
}

class JournalTest : public ::testing::Test {
 protected:
  std::unique_ptr<AttemptJournal> open(std::string* aside = nullptr) {
    auto journal = AttemptJournal::open(file_, aside);
    EXPECT_TRUE(journal) << journal.error().message;
    return journal ? std::move(*journal) : nullptr;
  }
  contract::TempFolder folder_;
  const std::string file_ = folder_.path() + "/deeper/journal";
};

TEST_F(JournalTest, RowsAndReceiptsOutlastTheProcess) {
  const std::string id = new_transfer_id();
  const Receipt first = receipt(id, "a"), second = receipt(id, "b");
  {
    auto journal = open();
    ASSERT_TRUE(journal->add(attempt("kept")));
    const Attempt gone = attempt("gone");
    ASSERT_TRUE(journal->add(gone));
    journal->remove(gone.private_id);
    journal->note(first);
    journal->note(receipt(new_transfer_id(), "other"));
    journal->note(second);
  }
  auto journal = open();
  auto rows = journal->all();
  ASSERT_TRUE(rows);
  ASSERT_EQ(rows->size(), 1u);
  EXPECT_EQ((*rows)[0].extent, "kept");
  EXPECT_EQ((*rows)[0].location, (Location{"p", "ns", 7}));
  auto receipts = journal->receipts_of(id);
  ASSERT_TRUE(receipts);
  ASSERT_EQ(receipts->size(), 2u);
  EXPECT_EQ(encode_receipt((*receipts)[0]), encode_receipt(first));
  EXPECT_EQ(encode_receipt((*receipts)[1]), encode_receipt(second));
}

TEST_F(JournalTest, ManyThreadsAddTogether) {
  auto journal = open();
  std::vector<std::jthread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 20; ++i) {
        const Attempt a = attempt(std::to_string(t) + "." + std::to_string(i));
        EXPECT_TRUE(journal->add(a));
        if (i % 2 == 0) journal->remove(a.private_id);
      }
    });
  }
  threads.clear();
  EXPECT_EQ(journal->all()->size(), 80u);
}

TEST_F(JournalTest, ASecondDaemonIsRefusedAndToldWhoHasIt) {
  auto journal = open();
  auto second = AttemptJournal::open(file_);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, Code::kFailedPrecondition);
  EXPECT_NE(second.error().message.find("pid " + std::to_string(::getpid())), std::string::npos)
      << second.error().message;
  journal.reset();
  EXPECT_TRUE(AttemptJournal::open(file_));
}

// Who may read it may take SQLite's locks of it, and so stop every transfer.
TEST_F(JournalTest, TheFileIsItsOwnersAlone) {
  { ASSERT_TRUE(open()->add(attempt("d"))); }
  std::filesystem::permissions(file_, std::filesystem::perms(0644));
  const auto journal = open();
  ASSERT_TRUE(journal->add(attempt("e")));
  for (const char* suffix : {"", "-wal", "-shm"}) {
    EXPECT_EQ(std::filesystem::status(file_ + suffix).permissions(), std::filesystem::perms(0600))
        << suffix;
  }
}

TEST_F(JournalTest, ADamagedFileIsSetAsideAndANewOneBegun) {
  { ASSERT_TRUE(open()->add(attempt("e"))); }
  for (const bool header : {true, false}) {
    {
      std::fstream file(file_, std::ios::in | std::ios::out | std::ios::binary);
      file.seekp(header ? 0 : 4096);
      file << std::string(4096, 'x');
    }
    std::string aside;
    auto journal = open(&aside);
    EXPECT_TRUE(std::filesystem::exists(aside)) << aside;
    EXPECT_EQ(journal->all()->size(), 0u);
    ASSERT_TRUE(journal->add(attempt("f")));
  }
  EXPECT_EQ(open()->all()->size(), 1u);
}

TEST(ReceiptRecord, EveryCutIsRefused) {
  const std::string whole = encode_receipt(receipt(new_transfer_id(), "e"));
  ASSERT_TRUE(decode_receipt(whole));
  for (std::size_t n = 0; n < whole.size(); ++n) EXPECT_FALSE(decode_receipt(whole.substr(0, n)));
  EXPECT_FALSE(decode_receipt(whole + "x"));
}

TEST(ReceiptRecord, OneOfTheReleaseBeforeIsRead) {
  Receipt kept = receipt(new_transfer_id(), "e");
  kept.left_for_good.clear();
  std::string record = encode_receipt(kept);
  record.front() = 2;
  record.pop_back();  // it told of no generations
  const auto read = decode_receipt(record);
  ASSERT_TRUE(read);
  EXPECT_EQ(encode_receipt(*read), encode_receipt(kept));
}

// Under ceph-volume an OSD's folder is a tmpfs.
TEST(JournalPlaceTest, AFolderInMemoryDoesNotOutlastTheHost) {
  EXPECT_TRUE(outlasts_the_host("/usr"));
  EXPECT_FALSE(outlasts_the_host("/dev/shm"));
  EXPECT_FALSE(outlasts_the_host("/no/such/folder"));
}

}  // namespace
}  // namespace siphon
