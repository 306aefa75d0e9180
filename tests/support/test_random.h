// Random inputs that can be had again: a failing test prints its seed, and SIPHON_TEST_SEED sets
// it. Not thread safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <random>
#include <span>
#include <string>
#include <vector>

namespace siphon::test {

class TestRandom {
 public:
  TestRandom() : seed_(choose_seed()), engine_(seed_) {}
  explicit TestRandom(std::uint64_t seed) : seed_(seed), engine_(seed) {}

  // For SCOPED_TRACE.
  std::string trace() const { return "SIPHON_TEST_SEED=" + std::to_string(seed_); }

  std::mt19937_64& engine() { return engine_; }
  // In [low, high].
  std::uint64_t number(std::uint64_t low, std::uint64_t high) {
    return std::uniform_int_distribution<std::uint64_t>(low, high)(engine_);
  }
  void fill(std::span<std::byte> out) {
    for (std::size_t i = 0; i < out.size();) {
      std::uint64_t word = engine_();
      for (int k = 0; k < 8 && i < out.size(); ++k, ++i, word >>= 8) {
        out[i] = static_cast<std::byte>(word & 0xff);
      }
    }
  }
  std::vector<std::byte> bytes(std::size_t count) {
    std::vector<std::byte> out(count);
    fill(out);
    return out;
  }

 private:
  static std::uint64_t choose_seed() {
    if (const char* text = std::getenv("SIPHON_TEST_SEED")) {
      return std::strtoull(text, nullptr, 10);
    }
    return std::random_device{}();
  }

  std::uint64_t seed_;
  std::mt19937_64 engine_;
};

}  // namespace siphon::test
