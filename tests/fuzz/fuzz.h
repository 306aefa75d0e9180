// What a fuzz target is made of: a function that takes any bytes, inputs to begin with, and HOLDS.
// fuzz_main.cc brings both to libFuzzer. docs/fuzzing.md tells how they are run. One thread.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "plugin/base/status.h"

namespace siphon::fuzz {

using Bytes = std::vector<std::byte>;

// Defined by each target. `run` returns, whatever the bytes are, or a property does not hold.
void run(std::span<const std::byte> input);
// Inputs to begin with, made by the real encoders.
std::vector<Bytes> seeds();

[[noreturn]] inline void broken(const char* property, const char* file, int line) {
  std::fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, property);
  std::abort();
}
#define HOLDS(property)                                                     \
  do {                                                                      \
    if (!(property)) ::siphon::fuzz::broken(#property, __FILE__, __LINE__); \
  } while (false)

// A refusal has a code that is an error's, and says something.
inline void check_error(const Error& error) {
  HOLDS(error.code != Code::kOk);
  HOLDS(!error.message.empty());
}

// Takes an input apart, from its front. Behind its end every number is 0 and every span empty.
class Input {
 public:
  explicit Input(std::span<const std::byte> bytes) : rest_(bytes) {}

  template <typename T>
  T number() {
    std::uint64_t value = 0;
    const auto raw = bytes(sizeof(T));
    for (std::size_t i = 0; i < raw.size(); ++i) {
      value |= std::to_integer<std::uint64_t>(raw[i]) << (8 * i);
    }
    return static_cast<T>(value);
  }
  std::span<const std::byte> bytes(std::size_t at_most) {
    const auto taken = rest_.first(std::min(at_most, rest_.size()));
    rest_ = rest_.subspan(taken.size());
    return taken;
  }
  std::span<const std::byte> rest() { return bytes(rest_.size()); }
  bool empty() const { return rest_.empty(); }

 private:
  std::span<const std::byte> rest_;
};

// Puts a seed together as Input takes it apart.
class SeedWriter {
 public:
  template <typename T>
  SeedWriter& number(T value) {
    for (std::size_t i = 0; i < sizeof(T); ++i) {
      bytes_.push_back(static_cast<std::byte>(static_cast<std::uint64_t>(value) >> (8 * i)));
    }
    return *this;
  }
  SeedWriter& bytes(std::span<const std::byte> more) {
    bytes_.insert(bytes_.end(), more.begin(), more.end());
    return *this;
  }
  Bytes take() { return std::move(bytes_); }

 private:
  Bytes bytes_;
};

inline std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Writes `value` little-endian at the end of `record`: a checksum that is made good again, so that
// what lies behind the check is reached.
inline void put_last(std::span<std::byte> record, std::uint32_t value) {
  for (std::size_t i = 0; i < 4; ++i) {
    record[record.size() - 4 + i] = static_cast<std::byte>(value >> (8 * i));
  }
}

}  // namespace siphon::fuzz
