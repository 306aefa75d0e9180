// The companion's side of the region against the class's side, in one process and without an OSD.
#include "adapters/objclass/exchange_client.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <thread>

#include "plugin/base/types.h"
#include "plugin/osd/region.h"

namespace siphon {
namespace {

using exchange::OperationKind;
using exchange::Right;

class ExchangeClientTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string error;
    region_ = osd::Region::create(exchange::kMinDataBytes, error);
    ASSERT_TRUE(region_) << error;
    region_->set_bulk_methods(true);
    auto client = ExchangeClient::map(region_->fd());
    ASSERT_TRUE(client) << client.error().message;
    client_ = *std::move(client);
    fill_random(nonce_);
  }
  void grant(Right right, std::int64_t pool_id, std::string_view nspace, std::uint64_t now_ms,
             std::uint64_t client = 0) {
    exchange::GrantRequest request;
    request.nonce = nonce_;
    request.key_id = grant_key_id(nonce_);
    request.pool_id = pool_id;
    request.ttl_seconds = 10;
    request.namespace_bytes = static_cast<std::uint32_t>(nspace.size());
    std::ranges::copy(nspace, request.nspace.begin());
    ASSERT_EQ(region_->give_grant(request, right, client, now_ms), 0);
  }

  std::unique_ptr<osd::Region> region_;
  std::unique_ptr<ExchangeClient> client_;
  std::array<std::byte, 16> nonce_{};
};

TEST_F(ExchangeClientTest, TheHalvesAreTheDataArea) {
  EXPECT_EQ(client_->send_half().size() + client_->receive_half().size(), region_->data_bytes());
  EXPECT_EQ(client_->send_half().data() + client_->send_half().size(),
            client_->receive_half().data());
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(client_->receive_half().data()) % 4096, 0u);
  EXPECT_EQ(client_->boot_nonce(), region_->boot_nonce());
  EXPECT_TRUE(client_->bulk_methods());
  const std::span<std::byte> half = client_->receive_half();
  EXPECT_TRUE(client_->contains(half));
  EXPECT_FALSE(client_->contains({half.data(), half.size() + 1}));
  EXPECT_FALSE(client_->contains({client_->send_half().data() - 1, 2}));
  EXPECT_FALSE(client_->contains(nonce_));
}

TEST_F(ExchangeClientTest, AGrantIsFoundByItsNameWhichMustBeTheHashOfItsNonce) {
  const auto now_ms = osd::monotonic_ms();
  EXPECT_FALSE(client_->find_nonce(grant_key_id(nonce_)));
  grant(Right::kRead, 7, "", now_ms);
  EXPECT_EQ(client_->find_nonce(grant_key_id(nonce_)), nonce_);
  EXPECT_FALSE(client_->find_nonce(nonce_));
  // Somebody else's grant under this name, which he saw in a log, hides nothing and is none.
  exchange::GrantRequest forged;
  forged.key_id = grant_key_id(nonce_);
  forged.nonce.fill(std::byte{9});
  forged.pool_id = 7;
  forged.ttl_seconds = 10;
  ASSERT_EQ(region_->give_grant(forged, Right::kRead, 0, now_ms), 0);
  EXPECT_EQ(client_->find_nonce(grant_key_id(nonce_)), nonce_);
  forged.key_id.fill(std::byte{8});
  ASSERT_EQ(region_->give_grant(forged, Right::kRead, 0, now_ms), 0);
  EXPECT_FALSE(client_->find_nonce(forged.key_id));
}

TEST_F(ExchangeClientTest, OtherMemoryIsNoRegion) {
  const int fd = memfd_create("other", MFD_CLOEXEC);
  ASSERT_GE(fd, 0);
  auto code = [&] {
    auto client = ExchangeClient::map(fd);
    return client ? Code::kOk : client.error().code;
  };
  EXPECT_EQ(code(), Code::kFailedPrecondition);  // empty
  const std::uint64_t bytes = exchange::kDataOffset + exchange::kMinDataBytes;
  ASSERT_EQ(ftruncate(fd, static_cast<off_t>(bytes)), 0);
  EXPECT_EQ(code(), Code::kFailedPrecondition);  // zeros
  // The real header, one field spoilt at a time.
  const auto try_header = [&](auto&& spoil) {
    std::array<std::byte, sizeof(exchange::RegionHeader)> copy;
    std::memcpy(copy.data(), region_->header(), copy.size());
    spoil(*reinterpret_cast<exchange::RegionHeader*>(copy.data()));
    EXPECT_EQ(pwrite(fd, copy.data(), copy.size(), 0), static_cast<ssize_t>(copy.size()));
    return code();
  };
  using Header = exchange::RegionHeader;
  EXPECT_EQ(try_header([](Header&) {}), Code::kOk);
  EXPECT_EQ(try_header([](Header& h) { ++h.magic; }), Code::kFailedPrecondition);
  EXPECT_EQ(try_header([](Header& h) { ++h.abi_version; }), Code::kFailedPrecondition);
  EXPECT_EQ(try_header([](Header& h) { ++h.descriptor_count; }), Code::kFailedPrecondition);
  EXPECT_EQ(try_header([](Header& h) { h.descriptor_count = 0; }), Code::kFailedPrecondition);
  EXPECT_EQ(try_header([](Header& h) { --h.grant_count; }), Code::kFailedPrecondition);
  EXPECT_EQ(try_header([](Header& h) { h.region_bytes *= 2; }), Code::kFailedPrecondition);
  EXPECT_EQ(try_header([](Header& h) { h.data_offset += 4096; }), Code::kFailedPrecondition);
  EXPECT_EQ(try_header([](Header& h) { h.data_bytes += 8192; }), Code::kFailedPrecondition);
  EXPECT_EQ(try_header([](Header& h) { h.data_bytes = 0; }), Code::kFailedPrecondition);
  // An OSD that started with an older class has fewer descriptors.
  EXPECT_EQ(try_header([](Header& h) { h.descriptor_count = 2; }), Code::kOk);
  auto small = ExchangeClient::map(fd);
  ASSERT_TRUE(small);
  const auto buffer = (*small)->send_half().first(4096);
  std::vector<ExchangeClient::Armed> armed;
  while (auto one = (*small)->arm(exchange::OperationKind::kRead, buffer)) {
    armed.push_back(std::move(*one));
  }
  EXPECT_EQ(armed.size(), 2u);
  armed.clear();
  close(fd);
  auto closed = ExchangeClient::map(-1);
  EXPECT_FALSE(closed);
}

TEST_F(ExchangeClientTest, AProbeIsWantedOncePerHintAndItsTicketIsTheNewest) {
  EXPECT_EQ(client_->layout(), exchange::LayoutState::kUnproven);
  EXPECT_FALSE(client_->wanted_probe());
  region_->want_probe(3, 7);
  region_->want_probe(4, 8);
  const auto wanted = client_->wanted_probe();
  ASSERT_TRUE(wanted);
  EXPECT_EQ(wanted->pool_id, 4);
  EXPECT_EQ(wanted->placement_group, 8u);
  EXPECT_FALSE(client_->wanted_probe());
  client_->announce_probe(nonce_);
  EXPECT_TRUE(region_->probe_expected(nonce_));
  std::array<std::byte, 16> next = nonce_;
  next[0] ^= std::byte{1};
  client_->announce_probe(next);
  EXPECT_TRUE(region_->probe_expected(next));
  EXPECT_FALSE(region_->probe_expected(nonce_));
  client_->withdraw_probe();
  EXPECT_FALSE(region_->probe_expected(next));
  region_->settle_layout(exchange::LayoutState::kFits);
  EXPECT_EQ(client_->layout(), exchange::LayoutState::kFits);
}

TEST_F(ExchangeClientTest, HelloIsReadAsItWasPublished) {
  std::array<std::byte, exchange::Hello::kEncodedBytes> bytes;
  EXPECT_EQ(region_->read_hello(bytes), -EHOSTDOWN);
  exchange::Hello hello;
  hello.osd_id = 3;
  for (const std::uint16_t port : {1234, 4321}) {
    hello.control_port = port;
    client_->publish_hello(hello);
    ASSERT_EQ(region_->read_hello(bytes), 0);
    exchange::Hello read;
    ASSERT_TRUE(exchange::Hello::decode(bytes, read));
    EXPECT_EQ(read.control_port, port);
    EXPECT_EQ(read.osd_id, 3);
  }
  region_->forget_companion();
  EXPECT_EQ(region_->read_hello(bytes), -EHOSTDOWN);
  // A companion that died half way through writing one does not block its successor.
  region_->header()->hello_seq = 7;
  client_->publish_hello(hello);
  EXPECT_EQ(region_->read_hello(bytes), 0);
}

TEST_F(ExchangeClientTest, GrantsEntitleToExactlyWhatTheySay) {
  const std::uint64_t now_ms = osd::monotonic_ms();
  grant(Right::kRead, 5, "space", now_ms);
  grant(Right::kWrite, 6, "", now_ms);
  EXPECT_TRUE(client_->allows(nonce_, Right::kRead, 5, "space"));
  EXPECT_TRUE(client_->allows(nonce_, Right::kWrite, 6, ""));
  EXPECT_FALSE(client_->allows(nonce_, Right::kWrite, 5, "space"));
  EXPECT_FALSE(client_->allows(nonce_, Right::kRead, 5, "spac"));
  EXPECT_FALSE(client_->allows(nonce_, Right::kRead, 5, ""));
  EXPECT_FALSE(client_->allows(nonce_, Right::kRead, 6, ""));
  EXPECT_EQ(client_->find_grants(nonce_).size(), 2u);
  for (std::size_t i = 0; i < nonce_.size(); ++i) {
    auto other = nonce_;
    other[i] ^= std::byte{0x80};
    EXPECT_TRUE(client_->find_grants(other).empty());
  }
  // A nonce of zeros is what an empty entry holds.
  EXPECT_TRUE(client_->find_grants(std::array<std::byte, 16>{}).empty());
}

TEST_F(ExchangeClientTest, AGrantSaysWhoAskedForIt) {
  grant(Right::kRead, 5, "", osd::monotonic_ms(), 4711);
  const auto grants = client_->find_grants(nonce_);
  ASSERT_EQ(grants.size(), 1u);
  EXPECT_EQ(grants[0].client, 4711u);
  EXPECT_EQ(grants[0].pool_id, 5);
}

TEST_F(ExchangeClientTest, AGrantExpires) {
  const std::uint64_t now_ms = osd::monotonic_ms();
  grant(Right::kRead, 5, "", now_ms - 10'001);
  EXPECT_TRUE(client_->find_grants(nonce_).empty());
  grant(Right::kRead, 5, "", now_ms);
  EXPECT_TRUE(client_->allows(nonce_, Right::kRead, 5, ""));
}

TEST_F(ExchangeClientTest, AnArmedBufferIsFoundUntilRetired) {
  const auto buffer = client_->receive_half().subspan(8192, 4096);
  auto armed = client_->arm(OperationKind::kWrite, buffer);
  ASSERT_TRUE(armed);
  const exchange::OperationRequest request = armed->request(0, 4096, 7);
  osd::Operation operation;
  EXPECT_EQ(region_->find(request, OperationKind::kRead, operation), -ENXIO);
  auto guess = request;
  guess.ticket[0] ^= std::byte{1};
  EXPECT_EQ(region_->find(guess, OperationKind::kWrite, operation), -ENXIO);
  auto longer = request;
  longer.length_bytes = 4097;
  EXPECT_EQ(region_->find(longer, OperationKind::kWrite, operation), -EINVAL);

  ASSERT_EQ(region_->find(request, OperationKind::kWrite, operation), 0);
  buffer[0] = std::byte{42};
  EXPECT_EQ(*operation.buffer, std::byte{42});  // the same bytes, mapped twice
  ASSERT_TRUE(region_->claim(operation));
  region_->finish(operation);
  EXPECT_TRUE(armed->retire());
  EXPECT_TRUE(armed->retire());
  EXPECT_EQ(region_->find(request, OperationKind::kWrite, operation), -ENXIO);

  // The same descriptor again: the old request does not fit.
  auto again = client_->arm(OperationKind::kWrite, buffer);
  ASSERT_TRUE(again);
  EXPECT_EQ(again->request(0, 4096).descriptor, request.descriptor);
  EXPECT_GT(again->request(0, 4096).epoch, request.epoch);
  EXPECT_EQ(region_->find(request, OperationKind::kWrite, operation), -ENXIO);
}

TEST_F(ExchangeClientTest, AMethodThatComesLateCannotClaim) {
  auto armed = client_->arm(OperationKind::kRead, client_->send_half().first(4096));
  ASSERT_TRUE(armed);
  osd::Operation operation;
  ASSERT_EQ(region_->find(armed->request(0, 4096), OperationKind::kRead, operation), 0);
  EXPECT_TRUE(armed->retire());
  EXPECT_FALSE(region_->claim(operation));
}

TEST_F(ExchangeClientTest, RetireWaitsForTheCopyToEnd) {
  auto armed = client_->arm(OperationKind::kRead, client_->send_half().first(4096));
  ASSERT_TRUE(armed);
  osd::Operation operation;
  ASSERT_EQ(region_->find(armed->request(0, 4096), OperationKind::kRead, operation), 0);
  ASSERT_TRUE(region_->claim(operation));
  std::atomic<bool> finished{false};
  std::thread owner([&] {
    EXPECT_TRUE(armed->retire());
    EXPECT_TRUE(finished);
  });
  for (int i = 0; i < 1000; ++i) std::this_thread::yield();
  finished = true;
  region_->finish(operation);
  owner.join();
}

TEST_F(ExchangeClientTest, WhatTheClassCannotReachIsNotArmed) {
  const std::span<std::byte> half = client_->receive_half();
  EXPECT_FALSE(client_->arm(OperationKind::kRead, half.first(0)));
  EXPECT_FALSE(client_->arm(OperationKind::kRead, nonce_));
  EXPECT_FALSE(client_->arm(OperationKind::kRead, {half.data() + half.size() - 10, 11}));
}

// An OSD that is stopped in the middle of a copy may finish it whenever it goes on.
TEST_F(ExchangeClientTest, ABufferIsHeldUntilItsCopyHasEnded) {
  auto impatient = ExchangeClient::map(region_->fd(), std::chrono::milliseconds(1));
  ASSERT_TRUE(impatient);
  ExchangeClient& client = **impatient;
  const auto buffer = client.send_half().first(8192);
  auto armed = client.arm(OperationKind::kRead, buffer);
  ASSERT_TRUE(armed);
  osd::Operation operation;
  ASSERT_EQ(region_->find(armed->request(0, 8192), OperationKind::kRead, operation), 0);
  ASSERT_TRUE(region_->claim(operation));
  EXPECT_FALSE(client.is_held(buffer));
  EXPECT_FALSE(armed->retire());
  EXPECT_TRUE(client.is_held(buffer));
  EXPECT_TRUE(client.is_held(buffer.subspan(8191)));
  EXPECT_FALSE(client.is_held(client.send_half().subspan(8192, 4096)));
  ASSERT_EQ(client.held().size(), 1u);
  region_->finish(operation);
  EXPECT_FALSE(client.is_held(buffer));
  EXPECT_TRUE(client.held().empty());
  EXPECT_FALSE(region_->claim(operation)) << "nor can it be begun again";
}

// The buffers that a predecessor's operations still copy into are not handed out, nor are their
// descriptors overwritten.
TEST_F(ExchangeClientTest, WhatAPredecessorLeftCopyingIsHeld) {
  const auto buffer = client_->receive_half().first(4096);
  auto armed = client_->arm(OperationKind::kRead, buffer);
  ASSERT_TRUE(armed);
  const exchange::OperationRequest request = armed->request(0, 4096);
  osd::Operation operation;
  ASSERT_EQ(region_->find(request, OperationKind::kRead, operation), 0);
  ASSERT_TRUE(region_->claim(operation));

  auto successor = ExchangeClient::map(region_->fd());
  ASSERT_TRUE(successor);
  ExchangeClient& client = **successor;
  const auto same = client.receive_half().first(4096);
  ASSERT_EQ(client.held().size(), 1u);
  EXPECT_EQ(client.held().front().data(), same.data());
  EXPECT_TRUE(client.is_held(same));
  std::vector<ExchangeClient::Armed> all;
  while (auto one = client.arm(OperationKind::kRead, client.send_half().first(4096))) {
    EXPECT_NE(one->request(0, 1).descriptor, request.descriptor);
    all.push_back(std::move(*one));
  }
  EXPECT_EQ(all.size(), exchange::kDescriptorCount - 1u);
  region_->finish(operation);
  EXPECT_FALSE(client.is_held(same));
  auto one = client.arm(OperationKind::kRead, same);
  ASSERT_TRUE(one);
  EXPECT_EQ(one->request(0, 1).descriptor, request.descriptor);
}

}  // namespace
}  // namespace siphon
