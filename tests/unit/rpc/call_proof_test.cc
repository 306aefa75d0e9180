#include "plugin/rpc/call_proof.h"

#include <gtest/gtest.h>

#include <cstring>
#include <set>

#include "plugin/rpc/secret_file.h"
#include "plugin/transfer/types.h"

namespace siphon::rpc {
namespace {

constexpr char kHere[] = "127.0.0.1:7400";

DeviceTime random_device() {
  DeviceTime device;
  fill_random(device.run_id);
  device.clock_ms = 1234567;
  return device;
}

TEST(CallProof, IsGoodForItsKeyMethodAndEndpointAlone) {
  Nonce key{}, other{};
  fill_random(key);
  fill_random(other);
  const CallProof proof =
      make_call_proof(key, grant_key_id(key), "List", kHere, random_device(), "");
  EXPECT_TRUE(is_proof_of(key, "List", kHere, proof));
  EXPECT_FALSE(is_proof_of(other, "List", kHere, proof));
  EXPECT_FALSE(is_proof_of(key, "Cancel", kHere, proof));
  EXPECT_FALSE(is_proof_of(key, "List", "127.0.0.1:7401", proof));
}

TEST(CallProof, EveryFieldIsProven) {
  Nonce key{};
  fill_random(key);
  const std::string good =
      make_call_proof(key, grant_key_id(key), "List", kHere, random_device(), "request").encode();
  ASSERT_EQ(good.size(), CallProof::kEncodedBytes);
  for (std::size_t bit = 0; bit < good.size() * 8; ++bit) {
    std::string bad = good;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
    const auto decoded = CallProof::decode(bad);
    ASSERT_TRUE(decoded);
    EXPECT_FALSE(is_proof_of(key, "List", kHere, *decoded)) << bit;
  }
  EXPECT_TRUE(is_proof_of(key, "List", kHere, *CallProof::decode(good)));
  EXPECT_FALSE(CallProof::decode(good + "x"));
  EXPECT_FALSE(CallProof::decode(good.substr(1)));
  EXPECT_FALSE(CallProof::decode(""));
}

TEST(CallProof, ADeviceProvesItsKeyEndpointNonceLifeAndClock) {
  Nonce key{}, other{};
  fill_random(key);
  fill_random(other);
  const DeviceTime now = random_device();
  DeviceTime later = now;
  ++later.clock_ms;
  const std::set<Sha256> proofs{
      device_proof(key, kHere, other, now),   device_proof(other, kHere, other, now),
      device_proof(key, kHere, key, now),     device_proof(key, "127.0.0.1:7401", other, now),
      device_proof(key, kHere, other, later), device_proof(key, kHere, other, random_device())};
  EXPECT_EQ(proofs.size(), 6u);
}

TEST(CallProof, TheKeyOfASourceIsForItsTransferAndPlaceAlone) {
  Nonce key{}, other{};
  fill_random(other);
  // No two lists of fields run into one another.
  const std::set<Sha256> keys{source_key(key, source_scope("ab", {"c", ""})),
                              source_key(key, source_scope("a", {"bc", ""})),
                              source_key(key, source_scope("a", {"b", "c"})),
                              source_key(other, source_scope("a", {"b", "c"}))};
  EXPECT_EQ(keys.size(), 4u);
}

TEST(CallProof, AnAddressHasOneSpelling) {
  const Nonce key{}, nonce{};
  EXPECT_EQ(device_proof(key, "[fd00::1]:7400", nonce, {}),
            device_proof(key, "[fd00:0:0::0:1]:7400", nonce, {}));
}

CallProof used(std::size_t number, std::size_t key, std::uint64_t issued_ms) {
  CallProof proof;
  std::memcpy(proof.nonce.data(), &number, sizeof number);
  std::memcpy(proof.key_id.data(), &key, sizeof key);
  proof.device.clock_ms = issued_ms;
  return proof;
}

TEST(ReplayGuard, AProofIsGoodOnceAndForFiveMinutes) {
  ReplayGuard guard;
  const std::uint64_t start = 10 * ReplayGuard::kWindowMs;
  EXPECT_TRUE(guard.check(used(1, 0, start), start));
  EXPECT_FALSE(guard.check(used(1, 0, start), start + 1));
  // For as long as it could still be used, whatever else has come in between.
  EXPECT_FALSE(guard.check(used(1, 0, start), start + ReplayGuard::kWindowMs));
  EXPECT_EQ(guard.check(used(1, 0, start), start + ReplayGuard::kWindowMs + 1).error().code,
            Code::kUnauthenticated);
  EXPECT_FALSE(guard.check(used(2, 0, start + 1), start)) << "from the future";
}

TEST(ReplayGuard, FullItRefusesAndForgetsNothing) {
  ReplayGuard guard;
  const std::uint64_t start = ReplayGuard::kWindowMs;
  std::size_t number = 0;
  for (std::size_t key = 0; number < ReplayGuard::kMaxRemembered; ++key) {
    for (std::size_t i = 0; i < ReplayGuard::kMaxOfOneKey; ++i) {
      ASSERT_TRUE(guard.check(used(number++, key, start), start)) << number;
    }
  }
  EXPECT_EQ(guard.check(used(number, number, start), start).error().reason, Reason::kBusy);
  EXPECT_EQ(guard.check(used(0, 0, start), start).error().code, Code::kUnauthenticated);
  // Room again, when what it remembers is of no use any more.
  const std::uint64_t later = start + ReplayGuard::kWindowMs + 1;
  EXPECT_TRUE(guard.check(used(number, number, later), later));
}

TEST(ReplayGuard, WhoHoldsOneGrantKeepsNobodyElseOut) {
  ReplayGuard guard;
  const std::uint64_t start = ReplayGuard::kWindowMs;
  std::size_t number = 0;
  while (guard.check(used(number, 1, start), start)) ++number;
  EXPECT_EQ(number, ReplayGuard::kMaxOfOneKey);
  EXPECT_EQ(guard.check(used(number, 1, start), start).error().reason, Reason::kBusy);
  EXPECT_TRUE(guard.check(used(number, 2, start), start));
  const std::uint64_t later = start + ReplayGuard::kWindowMs + 1;
  EXPECT_TRUE(guard.check(used(number, 1, later), later));
}

TEST(ReplayGuard, TheSecretIsEverybodysAndHasNoShare) {
  ReplayGuard guard;
  const std::uint64_t start = ReplayGuard::kWindowMs;
  for (std::size_t i = 0; i <= ReplayGuard::kMaxOfOneKey; ++i) {
    ASSERT_TRUE(guard.check(used(i, 0, start), start)) << i;
  }
}

TEST(Masked, GivesTheKeyBackToWhoKnowsWhatItIsMaskedWith) {
  const Sha256 key = sha256(std::as_bytes(std::span("key")));
  const Sha256 with = sha256(std::as_bytes(std::span("with")));
  const auto id = std::as_bytes(std::span("id"));
  const Sha256 hidden = masked(key, with, kTicketMask, id);
  EXPECT_NE(hidden, key);
  EXPECT_EQ(masked(hidden, with, kTicketMask, id), key);
  EXPECT_NE(masked(hidden, key, kTicketMask, id), key);
  EXPECT_NE(masked(hidden, with, kSourceKeyMask, id), key);
  EXPECT_NE(masked(hidden, with, kTicketMask, std::as_bytes(std::span("di"))), key);
}

}  // namespace
}  // namespace siphon::rpc
