// The receipts' file: an error of any step is kept and told, the last one's too.
#include "plugin/cli/receipts.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "plugin/cli/stdio.h"

namespace siphon::cli {
namespace {

namespace fs = std::filesystem;

class ReceiptFileTest : public ::testing::Test {
 protected:
  ReceiptFileTest() {
    std::string folder = (fs::temp_directory_path() / "siphon-receipts-XXXXXX").string();
    EXPECT_NE(::mkdtemp(folder.data()), nullptr);
    folder_ = folder;
  }
  ~ReceiptFileTest() override { fs::remove_all(folder_); }
  std::string path() const { return folder_ / "receipts"; }
  // This process's descriptor of that file.
  int descriptor() const {
    for (const auto& entry : fs::directory_iterator("/proc/self/fd")) {
      std::error_code gone;
      if (fs::read_symlink(entry.path(), gone) == path()) {
        return std::stoi(entry.path().filename().string());
      }
    }
    return -1;
  }
  fs::path folder_;
};

TEST_F(ReceiptFileTest, WhatWasWrittenSyncedAndClosedIsThere) {
  ReceiptFile file;
  ASSERT_TRUE(file.open(path()));
  EXPECT_TRUE(file.write("{}"));
  EXPECT_TRUE(file.sync());
  EXPECT_TRUE(file.close());
  EXPECT_FALSE(file.is_open());
  EXPECT_FALSE(file.error());
  EXPECT_EQ(fs::file_size(path()), 3u);
}

// What a full disk, or the end of the process, left of the last line is no part of the next one.
TEST_F(ReceiptFileTest, ALineBehindOneThatWasTornByAnotherRunIsWhole) {
  const auto run = [&](const std::string& line) {
    ReceiptFile file;
    ASSERT_TRUE(file.open(path()));
    EXPECT_TRUE(file.write(line));
    EXPECT_TRUE(file.close());
  };
  const auto text = [&] {
    std::ostringstream out;
    out << std::ifstream(path()).rdbuf();
    return out.str();
  };
  std::ofstream(path()) << "{\"a\":1}\n{\"b\"";
  run("{\"c\":1}");
  EXPECT_EQ(text(), "{\"a\":1}\n{\"b\"\n{\"c\":1}\n");
  run("{\"d\":1}");
  EXPECT_EQ(text(), "{\"a\":1}\n{\"b\"\n{\"c\":1}\n{\"d\":1}\n") << "no line is left empty";
}

TEST_F(ReceiptFileTest, AnErrorThatOnlyTheCloseTellsIsTold) {
  ReceiptFile file;
  ASSERT_TRUE(file.open(path()));
  EXPECT_TRUE(file.write("{}"));
  EXPECT_TRUE(file.sync());
  ASSERT_EQ(::close(descriptor()), 0);  // so that ours fails
  EXPECT_FALSE(file.close());
  ASSERT_TRUE(file.error());
  EXPECT_NE(file.error()->message.find("close the receipts in " + path()), std::string::npos);
}

// A pipe that nobody reads.
class UnreadReceipts : public ::testing::Test {
 protected:
  UnreadReceipts() {
    EXPECT_EQ(::pipe2(ends_.data(), O_CLOEXEC), 0);
    EXPECT_TRUE(file_.open("/proc/self/fd/" + std::to_string(ends_[1])));
  }
  ~UnreadReceipts() override {
    interrupt_flag() = false;
    for (const int end : ends_) ::close(end);
  }
  std::size_t waiting_bytes() const {
    int bytes = 0;
    EXPECT_EQ(::ioctl(ends_[0], FIONREAD, &bytes), 0);
    return static_cast<std::size_t>(bytes);
  }
  std::array<int, 2> ends_{};
  ReceiptFile file_;
  const std::string line_ = std::string(1 << 20, 'x');  // more than the pipe holds
};

TEST_F(UnreadReceipts, AnInterruptEndsTheWaitOfAnyThread) {
  bool written = true;
  std::thread worker([&] { written = file_.write(line_); });
  while (waiting_bytes() < 4096) std::this_thread::yield();  // it writes
  interrupt_flag() = true;
  worker.join();
  EXPECT_FALSE(written);
  ASSERT_TRUE(file_.error());
  EXPECT_EQ(file_.error()->code, Code::kCancelled);
  EXPECT_NE(file_.error()->message.find("write a receipt to /proc/self/fd/"), std::string::npos);
}

TEST_F(UnreadReceipts, AfterThatNoLineWaits) {
  interrupt_flag() = true;
  EXPECT_FALSE(file_.write(line_));
  const std::size_t before = waiting_bytes();
  std::vector<char> all(line_.size());
  ASSERT_EQ(::read(ends_[0], all.data(), all.size()), static_cast<ssize_t>(before));
  EXPECT_FALSE(file_.write("{}"));  // behind half a line it would be none
  EXPECT_EQ(waiting_bytes(), 0u);
}

}  // namespace
}  // namespace siphon::cli
