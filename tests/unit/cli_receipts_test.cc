// The receipts' file: an error of any step is kept and told, the last one's too.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "plugin/cli/receipts.h"

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

}  // namespace
}  // namespace siphon::cli
