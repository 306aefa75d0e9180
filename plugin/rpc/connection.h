// A connection to a device's control port, and how we prove ourselves over it. For the callers of
// plugin/rpc alone.
#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "plugin/base/ticker.h"
#include "plugin/rpc/call_proof.h"
#include "plugin/rpc/client.h"
#include "plugin/rpc/convert.h"
#include "plugin/rpc/secret_file.h"
#include "siphon/v1/siphon.grpc.pb.h"

namespace siphon::rpc {

// Something that entitles: what it is called in the metadata, and for people. `bytes` is the
// caller's.
struct Key {
  const char* entry;
  const char* right;
  KeyId id;
  std::span<const std::byte> bytes;
};

// Whether whoever waits for a device should give up; empty: never.
using ShouldStop = std::function<bool()>;
inline constexpr std::chrono::milliseconds kLook{100};  // how often it is asked

// Cancels a call when `should_stop` says so. Where there is no thread for that, the call ends by
// itself or by its deadline.
class Hangup {
 public:
  Hangup(grpc::ClientContext& context, const ShouldStop& should_stop) {
    if (!should_stop) return;
    auto ticker = Ticker::start(Side::kRequester, kLook, [&context, &should_stop] {
      if (!should_stop()) return true;
      context.TryCancel();
      return false;
    });
    if (ticker) ticker_.emplace(std::move(*ticker));
  }

 private:
  std::optional<Ticker> ticker_;
};

// One device: its channel, and how we prove ourselves to it.
struct Connection {
  std::string address;
  std::unique_ptr<v1::SiphonService::Stub> stub;
  Secret secret;
  bool has_tls = false;
  ShouldStop should_stop;  // ends whatever waits for the device

  bool stopped() const { return should_stop && should_stop(); }
  // Nothing was asked of the device but who it is.
  Error not_asked() const {
    return {Code::kCancelled, "interrupted before the device at " + address + " was asked",
            Side::kRequester, "", Reason::kNotAsked};
  }

  // Adds to `context` what proves that this call with `request` is entitled by `keys` and by the
  // secret, if there is one. Before, the device is told their names and nothing else, and shows
  // that it knows them: whoever took the port of a dead device learns nothing. One of two grants
  // may be at another device: only when this one knows none is that an error. With nothing to show,
  // the call goes as it is.
  template <typename Request>
  Status prove(grpc::ClientContext& context, const std::string& method, std::vector<Key> keys,
               const Request& request, const std::string& scope = {}) const {
    if (!secret.empty()) keys.push_back({kSecretProof, "secret", {}, secret.reveal()});
    if (keys.empty()) {
      // A certificate is all: the device gets to know us before we send it anything large.
      if (has_tls) (void)challenge({}, {}, {}, nullptr);
      if (stopped()) return fail(not_asked());
      return {};
    }
    auto known = known_by_device(keys, scope);
    if (stopped()) return fail(not_asked());
    if (!known) return fail(std::move(known).error());
    const std::string bytes = request.SerializeAsString();
    if (bytes.size() > kMostWhileUnknown) {
      auto heard = challenge(known->keys, scope, known->device, nullptr);
      if (stopped()) return fail(not_asked());
      if (!heard) return fail(std::move(heard).error());
    }
    for (const Key& key : known->keys) {
      context.AddMetadata(
          key.entry,
          make_call_proof(key.bytes, key.id, method, address, known->device, bytes).encode());
    }
    if (!scope.empty()) context.AddMetadata(kScope, scope);
    return {};
  }
  Error error(const grpc::Status& status) const { return from_grpc(status, address); }
  // What hides a key within a call: the first that proves it. With none TLS does, or nobody is
  // asked for any.
  template <typename Key>
  std::optional<std::span<const std::byte>> mask_key(const std::optional<Key>& proves) const {
    if (proves) return std::span<const std::byte>(*proves);
    if (!secret.empty()) return secret.reveal();
    return std::nullopt;
  }

 private:
  struct Known {
    std::vector<Key> keys;
    DeviceTime device;
  };

  // Of a request by a caller whom the device does not know yet: it resets a connection that says
  // more (Door) before the call's authority is looked at, which a busy device does late.
  static constexpr std::size_t kMostWhileUnknown = 4096;

  // With a `device` that has answered before, the proofs are fresh, and it knows us from then on.
  // Without effects, so it is asked again when a flooded device has turned us away.
  // Blocks for 20 s at most.
  Result<v1::ChallengeResponse> challenge(const std::vector<Key>& keys, const std::string& scope,
                                          const DeviceTime& device,
                                          std::vector<CallProof>* shown) const;

  Result<Known> known_by_device(const std::vector<Key>& keys, const std::string& scope) const;

  Error unknown(const std::vector<Key>& keys) const;
};

// Blocks for options.connect_timeout at most. FAILED_PRECONDITION: plain text beyond loopback, a
// file that cannot be used. UNAVAILABLE: nobody answers.
Result<Connection> connect_to(const std::string& address, const ClientOptions& options,
                              ShouldStop should_stop);

// What a call's deadline has beyond what the device was told.
inline constexpr auto kDeadlineSlack = std::chrono::seconds(30);

}  // namespace siphon::rpc
