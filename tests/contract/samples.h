// Extents made of random blocks, and readable error codes, for tests of stores.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "adapters/extent_store.h"
#include "plugin/base/types.h"
#include "plugin/format/extent_format.h"

namespace siphon::contract {

using Bytes = std::vector<std::byte>;

// An extent's stream and the header that goes with it.
struct Sample {
  Bytes bytes;
  SealedHeader header;
  Sha256 digest{};  // of its index; also where the header is made one of version 1
};

inline Bytes random_bytes(std::size_t count, std::uint64_t seed) {
  std::mt19937_64 generator(seed);
  Bytes bytes(count);
  for (std::byte& b : bytes) b = static_cast<std::byte>(generator());
  return bytes;
}

// Several parts, operations and inline extents within little memory.
inline StoreLimits small_parts() {
  StoreLimits limits;
  limits.part_bytes = 256 * kKiB;
  limits.operation_bytes = 100 * kKiB;
  limits.inline_max_bytes = 32 * kKiB;
  return limits;
}

// Blocks of `block_bytes` random bytes up to about `extent_bytes`; sealed unless `open`.
inline Sample make_sample(std::size_t extent_bytes, std::uint64_t seed, bool open = false) {
  Sample sample;
  const std::size_t block_bytes = std::min<std::size_t>(extent_bytes / 2 + 1, 20'000);
  ExtentEncoder encoder([&](std::span<const std::byte> bytes) {
    sample.bytes.insert(sample.bytes.end(), bytes.begin(), bytes.end());
    return Status{};
  });
  do {
    EXPECT_TRUE(encoder.append(random_bytes(block_bytes, seed + sample.bytes.size())));
  } while (sample.bytes.size() < extent_bytes);
  if (open) return sample;
  auto header = encoder.seal();
  EXPECT_TRUE(header);
  sample.header = *header;
  sample.header.sealed_unix_ms = now_unix_ms();
  sample.digest = sample.header.content_digest;
  return sample;
}

// "OK" or the code, for readable failures.
inline std::string code_of(const Status& status) {
  return status ? "OK" : std::string(to_string(status.error().code));
}
template <typename T>
std::string code_of(const Result<T>& result) {
  return result ? "OK" : std::string(to_string(result.error().code));
}

}  // namespace siphon::contract
