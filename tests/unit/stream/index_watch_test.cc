// The digest of an extent of version 1, found while its bytes pass by.
#include "plugin/stream/index_watch.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/contract/samples.h"
#include "tests/support/test_random.h"

namespace siphon {
namespace {

using contract::make_sample;
using contract::Sample;

SealedHeader version_1(SealedHeader header) {
  header.format_version = 1;
  header.content_digest = {};
  return header;
}

TEST(IndexWatch, FindsTheDigestInPiecesOfAnySizeAndOrder) {
  test::TestRandom random;
  SCOPED_TRACE(random.trace());
  const Sample sample = make_sample(300'000, 7);
  for (int round = 0; round < 50; ++round) {
    const auto watch = IndexWatch::for_header(version_1(sample.header));
    ASSERT_NE(watch, nullptr);
    const std::size_t piece = random.number(1, round % 2 == 0 ? 100 : 400'000);
    std::vector<std::size_t> offsets;
    for (std::size_t at = 0; at < sample.bytes.size(); at += piece) offsets.push_back(at);
    for (std::size_t i = offsets.size(); i > 1; --i) {
      std::swap(offsets[i - 1], offsets[random.number(0, i - 1)]);
    }
    for (const std::size_t at : offsets) {
      const std::size_t length = std::min(piece, sample.bytes.size() - at);
      watch->see(at, std::span(sample.bytes).subspan(at, length));
    }
    const auto digest = watch->finish();
    ASSERT_TRUE(digest);
    EXPECT_EQ(*digest, sample.header.content_digest);
  }
}

TEST(IndexWatch, KnowsNothingBeforeItHasSeenTheWholeIndex) {
  const Sample sample = make_sample(100'000, 8);
  const auto watch = IndexWatch::for_header(version_1(sample.header));
  watch->see(0, std::span(sample.bytes).first(sample.bytes.size() - kFooterBytes - 1));
  EXPECT_FALSE(watch->finish());
}

TEST(IndexWatch, IsForSoundHeadersWithoutADigest) {
  const Sample sample = make_sample(1000, 9);
  EXPECT_EQ(IndexWatch::for_header(sample.header), nullptr);
  SealedHeader wrong = version_1(sample.header);
  ++wrong.block_count;
  EXPECT_EQ(IndexWatch::for_header(wrong), nullptr);
}

}  // namespace
}  // namespace siphon
