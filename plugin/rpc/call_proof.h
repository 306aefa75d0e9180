// What entitles a call, in its metadata: it is checked before one byte of the request is read.
//
// A key is the nonce of a grant, the key made of one for a transfer (`source_key`), or a shared
// secret. Both ends know it and neither sends it. First the device shows in a Challenge that it
// knows the key, and tells its process's run id and what its clock says; the call's
// proof then names both, the device's endpoint, the method, and length and digest of the request.
// So a proof that is overheard is good for this call alone: not at another device, not after a
// restart, not after five minutes, and not twice. Clocks of two hosts are never compared. Pure.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "plugin/base/types.h"

namespace siphon::rpc {

// Names of the metadata. "-bin": gRPC carries any bytes.
inline constexpr char kReadProof[] = "siphon-read-bin";      // of a grant_read
inline constexpr char kWriteProof[] = "siphon-write-bin";    // of a grant_write
inline constexpr char kSecretProof[] = "siphon-secret-bin";  // of the shared secret
inline constexpr char kScope[] = "siphon-scope-bin";         // what a source_key is good for
inline constexpr std::size_t kMaxScopeBytes = 1152;
// What keys are masked for.
inline constexpr char kSourceKeyMask[] = "source key";  // id: its scope
inline constexpr char kTicketMask[] = "ticket";         // id: the ticket's
// What a refusal of Describe tells.
inline constexpr char kVersion[] = "siphon-version-bin";
inline constexpr char kAdapter[] = "siphon-adapter-bin";

using KeyId = std::array<std::byte, 16>;

// Which process it is, and its own clock.
struct DeviceTime {
  std::array<std::byte, 16> run_id{};
  std::uint64_t clock_ms = 0;
};

struct CallProof {
  static constexpr std::size_t kEncodedBytes = 16 + 16 + 16 + 8 + 4 + 32 + 32;
  KeyId key_id{};                     // of the grant; zeros: the secret
  std::array<std::byte, 16> nonce{};  // fresh for each call
  DeviceTime device;                  // as the Challenge told it; zeros in a first Challenge
  std::uint32_t request_bytes = 0;
  Sha256 request_digest{};
  Sha256 hmac{};  // HMAC-SHA-256(key, "siphon.v1 call" | method | endpoint | all of the above)

  std::string encode() const;
  static std::optional<CallProof> decode(std::string_view in);  // nothing: of another length
};

CallProof make_call_proof(std::span<const std::byte> key, const KeyId& key_id,
                          std::string_view method, const std::string& endpoint,
                          const DeviceTime& device, std::string_view request);
// Whether it was made with `key` for this method and endpoint.
bool is_proof_of(std::span<const std::byte> key, std::string_view method,
                 const std::string& endpoint, const CallProof& proof);

// The device's answer to a Challenge whose proof had this nonce.
Sha256 device_proof(std::span<const std::byte> key, const std::string& endpoint,
                    std::span<const std::byte> nonce, const DeviceTime& device);

// `key`, of no use to who overhears the call that carries it: XOR with HMAC-SHA-256(with, purpose |
// id). `id` stands for one key only. Once more, it gives the key back.
Sha256 masked(std::span<const std::byte> key, std::span<const std::byte> with,
              std::string_view purpose, std::span<const std::byte> id);

// What the target may show the source: a key for one transfer out of one place.
std::string source_scope(const std::string& transfer_id, const Location& source);
Sha256 source_key(std::span<const std::byte> nonce, std::string_view scope);

}  // namespace siphon::rpc
