#include "plugin/base/log.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <string>
#include <vector>

namespace siphon {
namespace {

class BaseLog : public testing::Test {
 protected:
  void SetUp() override { std::filesystem::remove(file); }
  void TearDown() override {
    log::setup("info", "");
    std::filesystem::remove(file);
  }
  std::vector<std::string> lines() const {
    std::ifstream in(file);
    std::vector<std::string> out;
    for (std::string line; std::getline(in, line);) out.push_back(line);
    return out;
  }

  const std::string file = testing::TempDir() + "siphon_log_test." + std::to_string(::getpid());
};

TEST_F(BaseLog, LinesHaveUtcTimeLevelAndMessage) {
  log::setup("info", file);
  log::info("extent {} has {} bytes", "e1", 42);
  log::warn("plain {} braces");
  log::error(std::string("a string"));
  log::debug("below the level");
  const auto got = lines();
  ASSERT_EQ(got.size(), 3u);
  EXPECT_TRUE(std::regex_match(
      got[0],
      std::regex(R"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info    extent e1 has 42 bytes)")))
      << got[0];
  EXPECT_NE(got[1].find("plain {} braces"), std::string::npos);
  EXPECT_NE(got[2].find("a string"), std::string::npos);
}

TEST_F(BaseLog, LevelsFilter) {
  log::setup("error", file);
  EXPECT_FALSE(log::enabled(log::Level::kWarn));
  EXPECT_TRUE(log::enabled(log::Level::kError));
  log::warn("no");
  log::error("yes");
  EXPECT_EQ(lines().size(), 1u);
  log::setup("debug", file);
  EXPECT_TRUE(log::enabled(log::Level::kDebug));
}

TEST_F(BaseLog, AnUnknownLevelBecomesInfoAndSaysSo) {
  log::setup("loud", file);
  EXPECT_TRUE(log::enabled(log::Level::kInfo));
  EXPECT_FALSE(log::enabled(log::Level::kDebug));
  ASSERT_EQ(lines().size(), 1u);
  EXPECT_NE(lines()[0].find("'loud'"), std::string::npos);
}

TEST_F(BaseLog, AFileThatCannotBeOpenedFallsBackToStderr) {
  testing::internal::CaptureStderr();
  log::setup("info", "/dev/null/not-a-folder/log");
  log::info("still here");
  const std::string text = testing::internal::GetCapturedStderr();
  EXPECT_NE(text.find("logging to stderr"), std::string::npos) << text;
  EXPECT_NE(text.find("still here"), std::string::npos) << text;
}

}  // namespace
}  // namespace siphon
