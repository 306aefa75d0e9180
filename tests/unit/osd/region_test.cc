// The class's side of the region: what it hands out, what it refuses.
#include "plugin/osd/region.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <thread>
#include <vector>

namespace siphon::osd {
namespace {

using exchange::DescriptorState;
using exchange::OperationKind;
using exchange::Right;

class RegionTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string error;
    region_ = Region::create(exchange::kMinDataBytes, error);
    ASSERT_NE(region_, nullptr) << error;
  }

  // Arms a descriptor as the companion would, and makes the request that fits it.
  exchange::OperationRequest arm(std::uint32_t index, OperationKind kind, std::uint64_t offset,
                                 std::uint32_t bytes) {
    exchange::Descriptor& d = region_->descriptors()[index];
    exchange::OperationRequest request;
    request.boot_nonce = region_->boot_nonce();
    request.descriptor = index;
    request.epoch = exchange::epoch_of(d.word) + 1;
    request.ticket.fill(std::byte{0x5a});
    request.length_bytes = bytes;
    std::memcpy(d.ticket, request.ticket.data(), sizeof d.ticket);
    d.buffer_offset = offset;
    d.buffer_bytes = bytes;
    d.kind = static_cast<std::uint32_t>(kind);
    d.word = exchange::pack(request.epoch, DescriptorState::kArmed);
    return request;
  }
  DescriptorState state(std::uint32_t index) {
    return exchange::state_of(region_->descriptors()[index].word);
  }
  exchange::GrantRequest grant(std::uint8_t nonce, std::int64_t pool, const char* nspace = "") {
    exchange::GrantRequest request;
    request.nonce.fill(std::byte{nonce});
    request.pool_id = pool;
    request.ttl_seconds = 10;
    request.namespace_bytes = static_cast<std::uint32_t>(std::strlen(nspace));
    std::memcpy(request.nspace.data(), nspace, request.namespace_bytes);
    return request;
  }

  std::unique_ptr<Region> region_;
};

TEST_F(RegionTest, HeaderTellsTheGeometry) {
  const exchange::RegionHeader& h = *region_->header();
  EXPECT_EQ(h.magic, exchange::kRegionMagic);
  EXPECT_EQ(h.abi_version, exchange::kAbiVersion);
  EXPECT_EQ(h.descriptor_count, exchange::kDescriptorCount);
  EXPECT_EQ(h.grant_count, exchange::kGrantCount);
  EXPECT_EQ(h.region_bytes, exchange::kDataOffset + exchange::kMinDataBytes);
  EXPECT_EQ(h.data_bytes, exchange::kMinDataBytes);
  EXPECT_NE(h.boot_nonce, 0u);
  EXPECT_EQ(h.boot_nonce, region_->boot_nonce());
  EXPECT_EQ(h.bulk_methods, 0u);
}

TEST_F(RegionTest, SizeIsSealed) {
  EXPECT_NE(ftruncate(region_->fd(), 0), 0);
  EXPECT_EQ(errno, EPERM);
  EXPECT_NE(ftruncate(region_->fd(), 1 << 30), 0);
  EXPECT_EQ(errno, EPERM);
  EXPECT_NE(fcntl(region_->fd(), F_ADD_SEALS, F_SEAL_WRITE), 0);
  EXPECT_NE(fcntl(region_->fd(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST(RegionSize, FromTheEnvironmentAndClamped) {
  EXPECT_EQ(data_bytes_from(nullptr), exchange::kDefaultDataBytes);
  EXPECT_EQ(data_bytes_from("32"), 32u << 20);
  EXPECT_EQ(data_bytes_from("0"), exchange::kMinDataBytes);
  EXPECT_EQ(data_bytes_from("99999"), exchange::kMaxDataBytes);
  EXPECT_EQ(data_bytes_from("99999999999999999999999"), exchange::kMaxDataBytes);
  for (const char* text : {"", "x", "-1", "32M", " 32", "0x20"}) {
    EXPECT_EQ(data_bytes_from(text), exchange::kDefaultDataBytes) << text;
  }
}

TEST_F(RegionTest, HelloIsAbsentUntilWrittenAndAfterItIsForgotten) {
  std::array<std::byte, exchange::Hello::kEncodedBytes> out;
  EXPECT_EQ(region_->read_hello(out), -EHOSTDOWN);
  exchange::Hello hello;
  hello.osd_id = 3;
  hello.control_port = 7777;
  auto* header = region_->header();
  header->hello_seq = 1;
  hello.encode(std::span(header->hello).first<exchange::Hello::kEncodedBytes>());
  EXPECT_EQ(region_->read_hello(out), -EHOSTDOWN) << "while it is being written";
  header->hello_seq = 2;
  ASSERT_EQ(region_->read_hello(out), 0);
  exchange::Hello seen;
  ASSERT_TRUE(exchange::Hello::decode(out, seen));
  EXPECT_EQ(seen.control_port, 7777);
  header->hello[0] = std::byte{0};
  EXPECT_EQ(region_->read_hello(out), -EHOSTDOWN) << "garbage is not passed on";
  region_->forget_companion();
  EXPECT_EQ(region_->read_hello(out), -EHOSTDOWN);
}

TEST_F(RegionTest, HelloTellsTheClassesOwnWordOfTheLayout) {
  exchange::Hello hello, seen;
  hello.layout = exchange::LayoutState::kFits;  // as a companion might claim
  hello.encode(std::span(region_->header()->hello).first<exchange::Hello::kEncodedBytes>());
  region_->header()->hello_seq = 2;
  region_->header()->layout = 1;
  std::array<std::byte, exchange::Hello::kEncodedBytes> out;
  const auto told = [&] {
    EXPECT_EQ(region_->read_hello(out), 0);
    EXPECT_TRUE(exchange::Hello::decode(out, seen));
    return seen.layout;
  };
  EXPECT_EQ(told(), exchange::LayoutState::kUnproven);
  ASSERT_TRUE(region_->settle_layout(exchange::LayoutState::kDoesNotFit));
  EXPECT_EQ(told(), exchange::LayoutState::kDoesNotFit);
  EXPECT_EQ(region_->header()->layout, 2u);
}

TEST_F(RegionTest, TheLayoutIsSettledOnce) {
  EXPECT_EQ(region_->layout(), exchange::LayoutState::kUnproven);
  EXPECT_TRUE(region_->settle_layout(exchange::LayoutState::kFits));
  EXPECT_FALSE(region_->settle_layout(exchange::LayoutState::kDoesNotFit));
  EXPECT_EQ(region_->layout(), exchange::LayoutState::kFits);
}

TEST_F(RegionTest, AProbeIsExpectedWithTheTicketThatWasAnnounced) {
  std::array<std::byte, 16> ticket{}, other{};
  EXPECT_FALSE(region_->probe_expected(ticket)) << "none was announced, and zeros are none";
  ticket.fill(std::byte{7});
  std::memcpy(region_->header()->probe_ticket, ticket.data(), ticket.size());
  EXPECT_FALSE(region_->probe_expected(ticket)) << "not announced yet";
  region_->header()->probe_armed = 1;
  EXPECT_TRUE(region_->probe_expected(ticket));
  EXPECT_FALSE(region_->probe_expected(other));
  other = ticket;
  other[15] ^= std::byte{1};
  EXPECT_FALSE(region_->probe_expected(other));
  region_->forget_companion();
  EXPECT_FALSE(region_->probe_expected(ticket)) << "it went with its companion";
}

TEST_F(RegionTest, GrantsAreKeptApartByEverythingButTheExpiry) {
  EXPECT_EQ(region_->give_grant(grant(1, 7), Right::kRead, 0, 1000), 0);
  EXPECT_EQ(region_->give_grant(grant(1, 7), Right::kRead, 0, 2000), 0);  // refreshes the first
  EXPECT_EQ(region_->give_grant(grant(1, 7), Right::kWrite, 0, 1000), 0);
  EXPECT_EQ(region_->give_grant(grant(1, 8), Right::kRead, 0, 1000), 0);
  EXPECT_EQ(region_->give_grant(grant(1, 7, "n"), Right::kRead, 0, 1000), 0);
  EXPECT_EQ(region_->give_grant(grant(2, 7), Right::kRead, 0, 1000), 0);
  auto grants = region_->grants();
  for (int i = 0; i < 5; ++i) EXPECT_EQ(grants[i].state, exchange::Grant::kReady);
  EXPECT_EQ(grants[5].state, exchange::Grant::kFree);
  EXPECT_EQ(grants[0].expires_ms, 12'000u);
  EXPECT_EQ(grants[0].seq, 2u);
  EXPECT_EQ(grants[3].pool_id == 7 && grants[3].namespace_bytes == 1, true);
  EXPECT_STREQ(grants[3].nspace, "n");
}

TEST_F(RegionTest, AFullTableRefusesUntilSomethingExpires) {
  for (std::uint32_t i = 0; i < exchange::kGrantCount; ++i) {
    ASSERT_EQ(region_->give_grant(grant(9, i), Right::kRead, 0, i), 0);
  }
  EXPECT_EQ(region_->give_grant(grant(9, 5000), Right::kRead, 0, 5000), -EUSERS);
  EXPECT_EQ(region_->give_grant(grant(9, 3), Right::kRead, 0, 5000), 0)
      << "a refresh needs no room";
  EXPECT_EQ(region_->give_grant(grant(9, 5000), Right::kRead, 0, 10'000), 0);
  EXPECT_EQ(region_->grants()[0].pool_id, 5000) << "the expired one is taken";
}

TEST_F(RegionTest, NoClientAndNoPoolFillsTheTableForTheOthers) {
  const auto give = [this](std::uint32_t pool, std::uint8_t nonce, const char* nspace,
                           std::uint64_t client) {
    return region_->give_grant(grant(nonce, pool, nspace), Right::kRead, client, 1000);
  };
  for (std::uint32_t i = 0; i < exchange::kMaxGrantsPerClient; ++i) {
    ASSERT_EQ(give(i, 1, "", 77), 0);
  }
  EXPECT_EQ(give(5000, 1, "", 77), -EUSERS);
  EXPECT_EQ(give(3, 1, "", 77), 0) << "a refresh needs no room";
  EXPECT_EQ(give(5000, 1, "", 78), 0);
  // Under ever new connections it is the pool's share that ends.
  std::uint32_t given = 0;
  for (std::uint32_t i = 0; i < exchange::kGrantCount; ++i) {
    given += give(6000, static_cast<std::uint8_t>(i), std::to_string(i).c_str(), 1000 + i) == 0;
  }
  EXPECT_EQ(given, exchange::kMaxGrantsPerPool);
  EXPECT_EQ(give(6001, 1, "", 5), 0);
}

TEST_F(RegionTest, AnOperationGoesFromArmedOverCopyingToDone) {
  const auto request = arm(4, OperationKind::kRead, 4096, 8192);
  Operation operation;
  ASSERT_EQ(region_->find(request, OperationKind::kRead, operation), 0);
  EXPECT_EQ(state(4), DescriptorState::kArmed);
  for (int i = 0; i < 2; ++i) {  // the OSD may execute it again
    ASSERT_TRUE(region_->claim(operation));
    EXPECT_EQ(state(4), DescriptorState::kCopying);
    EXPECT_FALSE(region_->claim(operation));
    operation.buffer[8191] = std::byte{1};
    region_->finish(operation);
    EXPECT_EQ(state(4), DescriptorState::kDone);
    EXPECT_TRUE(region_->still_wanted(operation, request));
    ASSERT_EQ(region_->find(request, OperationKind::kRead, operation), 0);
  }
}

TEST_F(RegionTest, ACancelledOrRearmedOperationIsNotClaimed) {
  const auto request = arm(4, OperationKind::kWrite, 0, 100);
  Operation operation;
  ASSERT_EQ(region_->find(request, OperationKind::kWrite, operation), 0);
  region_->descriptors()[4].word = exchange::pack(request.epoch, DescriptorState::kFree);
  EXPECT_FALSE(region_->claim(operation));
  EXPECT_FALSE(region_->still_wanted(operation, request));
  arm(4, OperationKind::kWrite, 0, 100);
  EXPECT_FALSE(region_->claim(operation)) << "another epoch";
  EXPECT_EQ(state(4), DescriptorState::kArmed);
  Operation ignored;
  EXPECT_EQ(region_->find(request, OperationKind::kWrite, ignored), -ENXIO);
}

TEST_F(RegionTest, EveryFieldOfTheProofCounts) {
  const auto right = arm(4, OperationKind::kRead, 0, 100);
  Operation out;
  std::vector<exchange::OperationRequest> wrong(7, right);
  wrong[0].boot_nonce ^= 1;
  wrong[1].descriptor = 5;
  wrong[2].descriptor = exchange::kDescriptorCount;
  wrong[3].epoch += 1;
  wrong[4].epoch += 1ull << 56;  // would be equal if the word were compared shifted
  wrong[5].ticket[15] ^= std::byte{1};
  wrong[6].ticket[0] ^= std::byte{0x80};
  for (std::size_t i = 0; i < wrong.size(); ++i) {
    EXPECT_EQ(region_->find(wrong[i], OperationKind::kRead, out), -ENXIO) << i;
  }
  EXPECT_EQ(region_->find(right, OperationKind::kWrite, out), -ENXIO);
  EXPECT_EQ(region_->header()->stale_refused, wrong.size() + 1);
  EXPECT_EQ(region_->find(right, OperationKind::kRead, out), 0);
}

TEST_F(RegionTest, AnUnarmedDescriptorOfZerosIsRefused) {
  exchange::OperationRequest zeros;
  zeros.boot_nonce = region_->boot_nonce();
  zeros.length_bytes = 1;
  Operation out;
  EXPECT_EQ(region_->find(zeros, OperationKind::kRead, out), -ENXIO);
}

TEST_F(RegionTest, BoundsHoldWhateverTheRegionSays) {
  const std::uint64_t size = region_->data_bytes();
  struct Case {
    std::uint64_t offset;
    std::uint32_t buffer_bytes;
    std::uint32_t length_bytes;
    int expected;
  };
  for (const Case c :
       {Case{size - 100, 100, 100, 0}, Case{0, 100, 1, 0}, Case{0, 100, 0, -EINVAL},
        Case{0, 100, 101, -EINVAL}, Case{size - 99, 100, 100, -EINVAL},
        Case{~0ull, 100, 100, -EINVAL}, Case{~0ull - 50, 100, 1, -EINVAL}, Case{0, ~0u, 1, -EINVAL},
        Case{0, exchange::kMaxCopyBytes + 1, exchange::kMaxCopyBytes + 1, -EINVAL},
        Case{0, exchange::kMaxCopyBytes, exchange::kMaxCopyBytes, 0}}) {
    auto request = arm(0, OperationKind::kRead, c.offset, c.buffer_bytes);
    request.length_bytes = c.length_bytes;
    Operation out;
    EXPECT_EQ(region_->find(request, OperationKind::kRead, out), c.expected)
        << c.offset << " " << c.buffer_bytes << " " << c.length_bytes;
  }
  // The header's own numbers are for the companion; changing them changes nothing here.
  region_->header()->data_bytes = ~0ull;
  const auto request = arm(0, OperationKind::kRead, size, 100);
  Operation out;
  EXPECT_EQ(region_->find(request, OperationKind::kRead, out), -EINVAL);
}

TEST_F(RegionTest, RetiringVoidsEveryOperationAndWaitsOutACopy) {
  const auto armed = arm(1, OperationKind::kRead, 0, 100);
  const auto done = arm(2, OperationKind::kRead, 0, 100);
  const auto copying = arm(3, OperationKind::kRead, 0, 100);
  region_->descriptors()[2].word = exchange::pack(done.epoch, DescriptorState::kDone);
  Operation copy;
  ASSERT_EQ(region_->find(copying, OperationKind::kRead, copy), 0);
  ASSERT_TRUE(region_->claim(copy));
  EXPECT_FALSE(region_->retire_descriptors(0));
  EXPECT_EQ(state(3), DescriptorState::kCopying);

  std::thread copier([&] { region_->finish(copy); });
  EXPECT_TRUE(region_->retire_descriptors(60'000));
  copier.join();
  for (const auto& request : {armed, done, copying}) {
    EXPECT_EQ(state(request.descriptor), DescriptorState::kFree);
    Operation out;
    EXPECT_EQ(region_->find(request, OperationKind::kRead, out), -ENXIO);
  }
}

}  // namespace
}  // namespace siphon::osd
