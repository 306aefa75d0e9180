#include <gtest/gtest.h>

#include <set>

#include "plugin/rpc/grant_proof.h"
#include "plugin/transfer/types.h"

namespace siphon::rpc {
namespace {

TEST(GrantProof, IsAnotherForEveryOtherField) {
  Nonce key{}, other{};
  fill_random(key);
  fill_random(other);
  std::set<Sha256> proofs;
  std::size_t made = 0;
  auto add = [&](const Sha256& proof) {
    proofs.insert(proof);
    ++made;
  };
  add(call_proof(key, "List", "127.0.0.1:7400", other, "request"));
  add(call_proof(other, "List", "127.0.0.1:7400", other, "request"));
  add(call_proof(key, "Cancel", "127.0.0.1:7400", other, "request"));
  add(call_proof(key, "List", "127.0.0.1:7401", other, "request"));
  add(call_proof(key, "List", "127.0.0.1:7400", key, "request"));
  add(call_proof(key, "List", "127.0.0.1:7400", other, "request2"));
  add(device_proof(key, "127.0.0.1:7400", other));
  add(device_proof(key, "127.0.0.1:7401", other));
  add(device_proof(key, "127.0.0.1:7400", key));
  add(device_proof(other, "127.0.0.1:7400", other));
  // No two lists of fields run into one another.
  add(source_key(key, "ab", {"c", ""}));
  add(source_key(key, "a", {"bc", ""}));
  add(source_key(key, "a", {"b", "c"}));
  add(source_key(other, "a", {"b", "c"}));
  EXPECT_EQ(proofs.size(), made);
}

TEST(GrantProof, AnAddressHasOneSpelling) {
  const Nonce key{}, nonce{};
  EXPECT_EQ(device_proof(key, "[fd00::1]:7400", nonce),
            device_proof(key, "[fd00:0:0::0:1]:7400", nonce));
}

}  // namespace
}  // namespace siphon::rpc
