// Registers and requests as bytes: both versions, and what is refused.
#include <gtest/gtest.h>

#include <array>
#include <span>
#include <utility>
#include <vector>

#include "plugin/core/head_register.h"
#include "tests/support/test_random.h"
#include "tests/unit/core/head_samples.h"

namespace siphon::head_test {
namespace {

using Buffer = std::array<std::byte, HeadRegister::kMaxEncodedBytes>;

HeadRegister random_register(test::TestRandom& random) {
  HeadRegister reg;
  auto random_id = [&] {
    PrivateId out;
    random.fill(out.bytes);
    out.bytes[3] = std::byte{1};
    return out;
  };
  auto u32 = [&] { return static_cast<std::uint32_t>(random.number(1, ~0u)); };
  auto u64 = [&] { return random.number(0, ~0ull); };
  auto random_header = [&] {
    SealedHeader h{u64(), u64(), u32(), u32(), u32(), static_cast<std::uint16_t>(u32()), u64()};
    random.fill(h.content_digest);
    return h;
  };
  reg.generation = u64();
  reg.state = static_cast<ExtentState>(random.number(0, 2));
  if (reg.state != ExtentState::kNone) {
    reg.current = random_id();
    reg.is_inline = random.number(0, 1) == 1;
    reg.header = random_header();
  }
  for (auto n = random.number(0, 16); n > 0; --n) {
    reg.reservations.push_back({random_id(), u64(), u32(), u64()});
  }
  for (auto n = random.number(0, 16); n > 0; --n) {
    const bool published = random.number(0, 1) == 1;
    const auto state = static_cast<ExtentState>(published ? random.number(0, 2) : 0);
    reg.trash.push_back(
        {random_id(), random_header(), state, random.number(0, 1) == 1, published, u64()});
  }
  return reg;
}

TEST(HeadEncoding, EncodingRoundTrips) {
  test::TestRandom random;
  SCOPED_TRACE(random.trace());
  for (int i = 0; i < 300; ++i) {
    const HeadRegister reg = random_register(random);
    Buffer buffer;
    const std::size_t used = encode_head(reg, buffer);
    ASSERT_EQ(used, 132 + 48 * reg.reservations.size() + 96 * reg.trash.size());
    HeadRegister back = random_register(random);  // what it held before does not matter
    ASSERT_TRUE(decode_head(std::span(buffer).first(used), back));
    ASSERT_EQ(back, reg);
  }
}

TrashEntry trashed(int number) {
  TrashEntry entry;
  entry.id = id(number);
  entry.header.part_bytes = 1;
  return entry;
}

// What is removed under the one entry would be the other's. Found by a fuzz target.
TEST(HeadEncoding, AnIdThatIsNamedTwiceIsRefused) {
  Buffer buffer;
  HeadRegister back;
  const auto is_refused = [&](const HeadRegister& reg) {
    const std::size_t used = encode_head(reg, buffer);
    return used > 0 && !decode_head(std::span(buffer).first(used), back);
  };
  HeadRegister good;
  good.state = ExtentState::kSealed;
  good.current = id(1);
  good.header.part_bytes = 1;
  good.reservations = {{id(2), 0, 1, 0}};
  good.trash = {trashed(3)};
  EXPECT_FALSE(is_refused(good));
  HeadRegister bad = good;
  bad.trash.push_back(trashed(1));
  EXPECT_TRUE(is_refused(bad));
  bad = good;
  bad.trash.push_back(trashed(2));
  EXPECT_TRUE(is_refused(bad));
  bad = good;
  bad.trash.push_back(trashed(3));
  EXPECT_TRUE(is_refused(bad));
  bad = good;
  bad.reservations.push_back({id(2), 5, 1, 0});
  EXPECT_TRUE(is_refused(bad));
}

TEST(HeadEncoding, EveryFlippedByteAndEveryTruncationIsRefused) {
  test::TestRandom random;
  SCOPED_TRACE(random.trace());
  HeadRegister reg = random_register(random);
  reg.reservations.resize(1, {id(1), 0, 1, 0});
  reg.trash.resize(1, trashed(2));
  Buffer buffer;
  const std::size_t used = encode_head(reg, buffer);
  HeadRegister back;
  for (std::size_t i = 0; i < used; ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      Buffer damaged = buffer;
      damaged[i] ^= static_cast<std::byte>(1 << bit);
      ASSERT_FALSE(decode_head(std::span(damaged).first(used), back)) << i;
    }
    ASSERT_FALSE(decode_head(std::span(buffer).first(i), back)) << i;
  }
  ASSERT_FALSE(decode_head(std::span(buffer).first(used + 1), back));
}

// The checksum is mended after the damage, so that the fields themselves are what is checked.
TEST(HeadEncoding, FieldsAreCheckedBehindAValidChecksum) {
  Model m = in_state(State::kSealed);
  ASSERT_EQ(m.run(Transition::kReserve, 5), 0);
  Buffer buffer;
  const std::size_t used = encode_head(m.reg, buffer);
  const auto refused = [&](std::size_t offset, int value) {
    Buffer damaged = buffer;
    damaged[offset] = static_cast<std::byte>(value);
    LeWriter(std::span(damaged).subspan(used - 4, 4))
        .put(record_crc32c(std::span(damaged).first(used - 4)));
    HeadRegister back;
    return !decode_head(std::span(damaged).first(used), back);
  };
  EXPECT_FALSE(refused(0, 0x53));  // unchanged: the surgery itself is sound
  EXPECT_TRUE(refused(0, 0x54));   // magic
  EXPECT_TRUE(refused(4, 0));      // version
  EXPECT_TRUE(refused(4, 1));      // of another length
  EXPECT_TRUE(refused(4, 3));
  EXPECT_TRUE(refused(6, 3));   // state
  EXPECT_TRUE(refused(6, 0));   // no state, but a current id
  EXPECT_TRUE(refused(7, 2));   // inline flag
  EXPECT_TRUE(refused(62, 0));  // reservation count
  EXPECT_TRUE(refused(62, 2));
  EXPECT_TRUE(refused(62, 255));
  EXPECT_TRUE(refused(63, 1));  // trash count
  EXPECT_TRUE(refused(63, 17));
}

TEST(HeadEncoding, TrashEntriesAreCheckedBehindAValidChecksum) {
  Model m = in_state(State::kRemoved);
  Buffer buffer;
  const std::size_t used = encode_head(m.reg, buffer);
  ASSERT_EQ(used, 228u);
  const auto refused = [&](std::size_t offset, int value) {
    Buffer damaged = buffer;
    damaged[128 + offset] = static_cast<std::byte>(value);
    LeWriter(std::span(damaged).subspan(used - 4, 4))
        .put(record_crc32c(std::span(damaged).first(used - 4)));
    HeadRegister back;
    return !decode_head(std::span(damaged).first(used), back);
  };
  EXPECT_FALSE(refused(46, 2));  // unchanged
  EXPECT_TRUE(refused(46, 4));   // flags
  EXPECT_TRUE(refused(46, 0));   // never published, but sealed
  EXPECT_TRUE(refused(47, 3));   // state
  EXPECT_TRUE(refused(42, 0));   // published, but its parts have no size
}

// ---- version 1 -------------------------------------------------------------------------------

// As the first releases wrote it: docs/extent_format.md, "Version 1".
std::vector<std::byte> version_1(const HeadRegister& reg) {
  std::vector<std::byte> out(100 + 48 * (reg.reservations.size() + reg.trash.size()));
  LeWriter w(out);
  w.put(HeadRegister::kMagic);
  w.put(std::uint16_t{1});
  w.put(static_cast<std::uint8_t>(reg.state));
  w.put(static_cast<std::uint8_t>(reg.is_inline));
  w.put(reg.generation);
  w.put_bytes(reg.current.bytes);
  w.put(reg.header.extent_bytes);
  w.put(reg.header.content_bytes);
  w.put(reg.header.crc32);
  w.put(reg.header.block_count);
  w.put(reg.header.part_bytes);
  w.put(reg.header.format_version);
  w.put(static_cast<std::uint8_t>(reg.reservations.size()));
  w.put(static_cast<std::uint8_t>(reg.trash.size()));
  w.put(reg.header.sealed_unix_ms);
  w.put_zeros(24);
  for (const Reservation& e : reg.reservations) {
    w.put_bytes(e.id.bytes);
    w.put(e.extent_bytes);
    w.put(e.part_bytes);
    w.put_zeros(4);
    w.put(e.lease_unix_ms);
    w.put_zeros(8);
  }
  for (const TrashEntry& e : reg.trash) {
    w.put_bytes(e.id.bytes);
    w.put(e.header.extent_bytes);
    w.put(e.header.part_bytes);
    w.put(static_cast<std::uint8_t>(e.is_inline));
    w.put(static_cast<std::uint8_t>(e.was_published));
    w.put_zeros(2);
    w.put(e.trashed_unix_ms);
    w.put_zeros(8);
  }
  w.put(record_crc32c(std::span(out).first(w.used())));
  EXPECT_TRUE(w.ok());
  return out;
}

TEST(HeadEncoding, VersionOneDecodesAndBecomesVersionTwoWhenWritten) {
  test::TestRandom random;
  SCOPED_TRACE(random.trace());
  for (int i = 0; i < 300; ++i) {
    HeadRegister reg = random_register(random);
    reg.header.content_digest = {};
    for (TrashEntry& entry : reg.trash) {
      entry.state = ExtentState::kNone;
      const SealedHeader all = entry.header;
      entry.header = {};
      entry.header.extent_bytes = all.extent_bytes;
      entry.header.part_bytes = all.part_bytes;
    }
    HeadRegister back = random_register(random);
    ASSERT_TRUE(decode_head(version_1(reg), back));
    ASSERT_EQ(back, reg);
    Buffer buffer;
    const std::size_t used = encode_head(back, buffer);
    ASSERT_EQ(buffer[4], std::byte{2});
    ASSERT_TRUE(decode_head(std::span(buffer).first(used), back));
    ASSERT_EQ(back, reg);
  }
}

TEST(HeadEncoding, RestoreFromAVersionOneTrashTakesTheHeaderThatTheCallerFound) {
  HeadRegister old;
  old.generation = 4;
  TrashEntry entry = trashed(1);
  entry.header.extent_bytes = 1001;
  entry.header.part_bytes = 65536;
  entry.was_published = true;
  old.trash.push_back(entry);
  Model m;
  m.exists = true;
  ASSERT_TRUE(decode_head(version_1(old), m.reg));
  auto r = request(Transition::kRestore, 1);
  r.header = {};
  EXPECT_EQ(m.run(r), -EINVAL);
  r.header = header_of(1);
  ++r.header.extent_bytes;
  EXPECT_EQ(m.run(r), -EINVAL);
  Model as_open = m;
  r.header = header_of(1);
  ASSERT_EQ(m.run(r), 0);
  EXPECT_EQ(m.reg.header, header_of(1));
  EXPECT_EQ(m.reg.state, ExtentState::kSealed);
  EXPECT_EQ(m.reg.generation, 5u);
  r.open = true;
  ASSERT_EQ(as_open.run(r), 0);
  EXPECT_EQ(as_open.reg.state, ExtentState::kOpen);
  EXPECT_EQ(as_open.reg.header.part_bytes, 65536u);
}

TEST(HeadEncoding, WhatWasPublishedWithoutAPartSizeIsRefused) {
  // A restore of it once left a register that nothing could read any more.
  HeadRegister old;
  TrashEntry entry = trashed(1);
  entry.header = {};
  entry.was_published = true;
  entry.is_inline = true;
  old.trash.push_back(entry);
  HeadRegister back;
  EXPECT_TRUE(decode_head(version_1(old), back));
  old.trash[0].is_inline = false;
  EXPECT_FALSE(decode_head(version_1(old), back));
  old.trash[0].was_published = false;
  EXPECT_TRUE(decode_head(version_1(old), back));
}

TEST(HeadEncoding, ListsOverTheirLimitAreNotEncoded) {
  HeadRegister reg;
  Buffer buffer;
  reg.reservations.resize(17, {id(1), 0, 1, 0});
  EXPECT_EQ(encode_head(reg, buffer), 0u);
  reg.reservations.resize(16);
  reg.trash.resize(32, trashed(1));
  EXPECT_EQ(encode_head(reg, buffer), HeadRegister::kMaxEncodedBytes);
  reg.trash.resize(33);
  EXPECT_EQ(encode_head(reg, buffer), 0u);
}

TEST(HeadEncoding, DecodersSurviveRandomInput) {
  test::TestRandom random;
  SCOPED_TRACE(random.trace());
  for (int i = 0; i < 20000; ++i) {
    auto bytes = random.bytes(random.number(0, i % 8 == 0 ? 2000 : 200));
    // Half of the time with a valid checksum and a plausible beginning.
    if (i % 2 == 0 && bytes.size() >= 100) {
      LeWriter w(bytes);
      w.put(HeadRegister::kMagic);
      w.put(static_cast<std::uint16_t>(1 + i / 2 % 2));
      LeWriter(std::span(bytes).last(4))
          .put(record_crc32c(std::span(bytes).first(bytes.size() - 4)));
    }
    HeadRegister reg;
    if (decode_head(bytes, reg)) {
      ASSERT_LE(reg.reservations.size(), HeadRegister::kMaxReservations);
      ASSERT_LE(reg.trash.size(), HeadRegister::kMaxTrash);
    }
    TransitionRequest r;
    if (bytes.size() >= 128) TransitionRequest::decode(std::span(bytes).first(128), r);
    TransitionRequest::decode(bytes, r);
  }
}

TEST(HeadEncoding, RequestsRoundTripAndForeignOnesAreRefused) {
  using Encoded = std::array<std::byte, TransitionRequest::kEncodedBytes>;
  for (int kind = 1; kind <= 7; ++kind) {
    for (int flags = 0; flags < 8; ++flags) {
      auto r = request(static_cast<Transition>(kind), kind);
      r.replace = (flags & 1) != 0;
      r.open = (flags & 2) != 0;
      r.is_inline = (flags & 4) != 0;
      r.expected_generation = 12345;
      Encoded encoded;
      r.encode(encoded);
      TransitionRequest back;
      ASSERT_TRUE(TransitionRequest::decode(encoded, back));
      EXPECT_EQ(back.kind, r.kind);
      EXPECT_EQ(back.replace, r.replace);
      EXPECT_EQ(back.open, r.open);
      EXPECT_EQ(back.is_inline, r.is_inline);
      EXPECT_EQ(back.id, r.id);
      EXPECT_EQ(back.expected_generation, r.expected_generation);
      EXPECT_EQ(back.header, r.header);
      EXPECT_EQ(back.now_unix_ms, r.now_unix_ms);
      EXPECT_EQ(back.lease_unix_ms, r.lease_unix_ms);
      ASSERT_FALSE(TransitionRequest::decode(std::span(encoded).first(127), back));
      for (auto [offset, value] : {std::pair{0, 1}, {0, 3}, {4, 0}, {4, 8}, {5, 8}}) {
        Encoded damaged = encoded;
        damaged[static_cast<std::size_t>(offset)] = static_cast<std::byte>(value);
        EXPECT_FALSE(TransitionRequest::decode(damaged, back));
      }
    }
  }
  auto r = request(Transition::kReserve, 1);
  r.id = {};
  Encoded encoded;
  r.encode(encoded);
  TransitionRequest back;
  EXPECT_FALSE(TransitionRequest::decode(encoded, back));
}

}  // namespace
}  // namespace siphon::head_test
