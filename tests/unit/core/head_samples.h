// Registers and the calls that make them, for the tests of both.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>

#include "plugin/core/head_register.h"

namespace siphon::head_test {

inline constexpr std::uint64_t kNow = 5000;

inline PrivateId id(int number) {
  PrivateId out;
  out.bytes[0] = static_cast<std::byte>(number);
  out.bytes[15] = std::byte{0xee};
  return out;
}

inline SealedHeader header_of(int number) {
  SealedHeader h;
  h.extent_bytes = 1000 + static_cast<std::uint64_t>(number);
  h.content_bytes = 800;
  h.crc32 = static_cast<std::uint32_t>(number);
  h.block_count = 1;
  h.part_bytes = 65536;
  h.sealed_unix_ms = 77;
  h.format_version = 2;
  h.content_digest.fill(static_cast<std::byte>(0xd0 + number));
  return h;
}

inline TransitionRequest request(Transition kind, int number) {
  TransitionRequest r;
  r.kind = kind;
  r.id = id(number);
  r.header = header_of(number);
  r.expected_generation = TransitionRequest::kAnyGeneration;
  r.now_unix_ms = kNow;
  r.lease_unix_ms = 9000;
  return r;
}

// A register and the calls that made it. `exists` is what the caller of `apply` passes.
struct Model {
  HeadRegister reg;
  bool exists = false;

  int run(const TransitionRequest& r) {
    const HeadRegister before = reg;
    const int result = apply(reg, exists, r);
    if (result == 0) {
      exists = !reg.blank();
    } else {
      EXPECT_EQ(reg, before) << "a refused transition changed the register";
    }
    return result;
  }
  int run(Transition kind, int number) { return run(request(kind, number)); }
};

inline TransitionRequest publish(int number, bool replace = false, bool open = false) {
  auto r = request(Transition::kPublish, number);
  r.replace = replace;
  r.open = open;
  return r;
}

// What can have become of id 1.
enum class State {
  kAbsent,
  kReserved,
  kOpen,
  kSealed,
  kInline,
  kTrashed,    // a condemned attempt
  kRemoved,    // a condemned current one
  kDiscarded,  // the same, and given up
  kReplaced,   // by id 2
  kOtherSealed
};

inline Model in_state(State state) {
  Model m;
  switch (state) {
    case State::kAbsent:
      break;
    case State::kReserved:
      EXPECT_EQ(m.run(Transition::kReserve, 1), 0);
      break;
    case State::kOpen:
      EXPECT_EQ(m.run(Transition::kReserve, 1), 0);
      EXPECT_EQ(m.run(publish(1, false, true)), 0);
      break;
    case State::kSealed:
      EXPECT_EQ(m.run(Transition::kReserve, 1), 0);
      EXPECT_EQ(m.run(publish(1)), 0);
      break;
    case State::kInline: {
      auto r = publish(1);
      r.is_inline = true;
      EXPECT_EQ(m.run(r), 0);
      break;
    }
    case State::kTrashed:
      EXPECT_EQ(m.run(Transition::kReserve, 1), 0);
      EXPECT_EQ(m.run(Transition::kCondemn, 1), 0);
      break;
    case State::kRemoved:
    case State::kDiscarded:
    case State::kReplaced:
      m = in_state(State::kSealed);
      if (state == State::kReplaced) {
        EXPECT_EQ(m.run(Transition::kReserve, 2), 0);
        EXPECT_EQ(m.run(publish(2, true)), 0);
        break;
      }
      EXPECT_EQ(m.run(Transition::kCondemn, 1), 0);
      if (state == State::kDiscarded) {
        EXPECT_EQ(m.run(Transition::kDiscard, 1), 0);
      }
      break;
    case State::kOtherSealed:
      EXPECT_EQ(m.run(Transition::kReserve, 2), 0);
      EXPECT_EQ(m.run(publish(2)), 0);
      break;
  }
  return m;
}

}  // namespace siphon::head_test
