// The progress line and its arithmetic.
#include "plugin/cli/progress.h"

#include <gtest/gtest.h>

#include <limits>

#include "plugin/base/types.h"
#include "plugin/cli/bottleneck.h"

namespace siphon::cli {
namespace {

constexpr double kRate = 1.31 * 1024 * 1024 * 1024;

TEST(CliProgress, TheLineOperatorsKnow) {
  ProgressState state;
  state.done_bytes = static_cast<std::uint64_t>(12.4 * kGiB);
  state.total_bytes = 88 * kGiB;
  state.counts = true;
  state.active = 9;
  state.retried = 3;
  state.bottleneck = "osd.7 disk";
  EXPECT_EQ(
      progress_line(state, kRate, false),
      "12.4/88.0 GiB 14% 1.31 GiB/s ETA 58s | 9 active 0 failed 3 retried | bottleneck: osd.7 "
      "disk");
}

TEST(CliProgress, AHundredPercentOnlyAtTheEnd) {
  ProgressState state{kGiB, kGiB, false, 0, 0, 0, ""};
  EXPECT_EQ(progress_line(state, kRate, false), "1.0/1.0 GiB 99% 1.31 GiB/s ETA 0s");
  EXPECT_EQ(progress_line(state, kRate, true), "1.0/1.0 GiB 100% 1.31 GiB/s");
}

TEST(CliProgress, NeverAboveTheTotalNeverBelowZero) {
  ProgressState state{std::numeric_limits<std::uint64_t>::max(), kMiB, false, 0, 0, 0, ""};
  EXPECT_EQ(progress_line(state, 0, false), "1.0/1.0 MiB 99%");
  state = {std::numeric_limits<std::uint64_t>::max(),
           std::numeric_limits<std::uint64_t>::max(),
           false,
           0,
           0,
           0,
           ""};
  EXPECT_TRUE(progress_line(state, -5, false).ends_with(" PiB 99%"));
}

TEST(CliProgress, ATotalThatIsNotKnownIsNotInvented) {
  ProgressState state{3 * kMiB, 0, false, 0, 0, 0, ""};
  EXPECT_EQ(progress_line(state, kMiB, false), "3.0 MiB 1.00 MiB/s");
}

TEST(CliProgress, WhatIsNotKnownYetIsNotShown) {
  EXPECT_EQ(progress_line({}, 0, false), "starting");
  ProgressState state;
  state.total_bytes = kGiB;
  EXPECT_EQ(progress_line(state, 0, false), "0.0/1.0 GiB 0%");
  state.counts = true;
  state.active = 1;
  EXPECT_EQ(progress_line(state, 0, false), "0.0/1.0 GiB 0% | 1 active 0 failed 0 retried");
}

TEST(CliProgress, ALineFitsTheTerminalWhateverItHasToSay) {
  ProgressState state;
  state.total_bytes = 88 * kGiB;
  state.done_bytes = state.total_bytes / 2;
  state.counts = true;
  state.active = 10'000;
  state.failed = state.retried = 99;
  state.bottleneck = "--bwlimit";
  const std::string whole = progress_line(state, kRate, false);
  EXPECT_GT(whole.size(), 79u);
  EXPECT_EQ(progress_line(state, kRate, false, 79),
            "44.0/88.0 GiB 50% 1.31 GiB/s ETA 34s | 10000 active 99 failed 99 retried");
  EXPECT_EQ(progress_line(state, kRate, false, 40), "44.0/88.0 GiB 50% 1.31 GiB/s ETA 34s");
  for (std::size_t columns = 1; columns <= 100; ++columns) {
    const std::string line = progress_line(state, kRate, false, columns);
    EXPECT_LE(line.size(), columns);
    EXPECT_TRUE(whole.starts_with(line));
  }
}

TEST(CliProgress, ADevicesOwnLimitIsNotTheCommands) {
  EXPECT_EQ(bottleneck_text(Bottleneck::kSetting, "osd.3", "osd.7"), "--bwlimit");
  EXPECT_EQ(bottleneck_text(Bottleneck::kDeviceSetting, "osd.3", "osd.7"),
            "osd.7 transfer.bytes_per_second");
  EXPECT_EQ(bottleneck_text(Bottleneck::kSourceSetting, "osd.3", "osd.7"),
            "osd.3 transfer.bytes_per_second");
}

TEST(CliProgress, APeersWordsDoNotSteerTheTerminal) {
  ProgressState state;
  state.bottleneck = "osd.\x1b[2J\n disk";
  EXPECT_EQ(progress_line(state, 0, false), "starting | bottleneck: osd.\\x1b[2J\\n disk");
}

TEST(CliProgress, ExtentsCountWhereTheTotalInBytesIsNotKnown) {
  ProgressState state;
  state.done_bytes = 4 * kMiB;
  state.done_extents = 20;
  state.total_extents = 100;
  EXPECT_EQ(progress_line(state, kMiB, false), "4.0 MiB, 20 of 100 extents 20% 1.00 MiB/s ETA 16s");
  state.done_extents = 120;  // saturates
  EXPECT_EQ(progress_line(state, kMiB, false), "4.0 MiB, 100 of 100 extents 99% 1.00 MiB/s ETA 0s");
  state.done_extents = 0;
  EXPECT_EQ(progress_line(state, kMiB, false), "4.0 MiB, 0 of 100 extents 0% 1.00 MiB/s");
  EXPECT_EQ(progress_line(state, kMiB, true), "4.0 MiB, 100 of 100 extents 100% 1.00 MiB/s");
}

TEST(CliProgress, Eta) {
  ProgressState state{0, 1000, false, 0, 0, 0, ""};
  EXPECT_EQ(eta_text(state, 1000), "1s");
  EXPECT_EQ(eta_text(state, 999), "2s");
  EXPECT_EQ(eta_text(state, 5.2), "3m13s");
  state.total_bytes = 7500;
  EXPECT_EQ(eta_text(state, 1), "2h05m");
  EXPECT_EQ(eta_text(state, 0.5), "");
  state.total_bytes = std::numeric_limits<std::uint64_t>::max();
  EXPECT_EQ(eta_text(state, 1), "");
}

TEST(CliProgress, WhatIsDoneGoesBackOnlyToBeTriedAgain) {
  ProgressState shown, now;
  shown.done_bytes = 30;
  now.done_bytes = 20;  // of another thread, a moment late
  EXPECT_EQ(next_shown(shown, now).done_bytes, 30u);
  now.done_bytes = 40;
  EXPECT_EQ(next_shown(shown, now).done_bytes, 40u);
  now.done_bytes = 5;
  now.retried = 1;
  shown = next_shown(shown, now);
  EXPECT_EQ(shown.done_bytes, 5u);
  now.done_bytes = 30;  // late, of before the retry
  now.retried = 0;
  shown = next_shown(shown, now);
  EXPECT_EQ(shown.done_bytes, 5u);
  EXPECT_EQ(shown.retried, 1u);
}

TEST(CliProgress, Modes) {
  EXPECT_EQ(progress_mode("auto", false, false), ProgressMode::kNone);
  EXPECT_EQ(progress_mode("auto", false, true), ProgressMode::kTerminal);
  EXPECT_EQ(progress_mode("json", false, false), ProgressMode::kJson);
  EXPECT_EQ(progress_mode("plain", false, true), ProgressMode::kPlain);
  EXPECT_EQ(progress_mode("plain", true, true), ProgressMode::kNone);
}

}  // namespace
}  // namespace siphon::cli
