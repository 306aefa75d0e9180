// DeviceClient: a requester's (or a target's) calls to one device. No gRPC type leaves this folder.
//
// All calls block; callbacks run on the calling thread. Thread safe. Errors carry the device's
// address; UNAVAILABLE when it does not answer.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "plugin/base/status.h"
#include "plugin/transfer/types.h"

namespace siphon::rpc {

// How to reach and convince a device.
struct ClientOptions {
  std::string secret_file;  // shared secret (mode 0600) for folder daemons; empty: none
  // TLS; all empty: plain text, which is refused for any address beyond loopback.
  std::string tls_ca_file, tls_cert_file, tls_key_file;
  std::chrono::milliseconds connect_timeout{5000};
};

using TransferEvent = std::variant<Progress, ExtentOutcome, Summary>;

class DeviceClient {
 public:
  // FAILED_PRECONDITION: plain text beyond loopback; a secret file that cannot be used.
  // `stop` outlives the client. Once it is set, this and each call hang up and return CANCELLED
  // within 200 ms; with Reason::kNotAsked when nothing was asked of the device yet.
  static Result<std::unique_ptr<DeviceClient>> connect(const std::string& address,
                                                       const ClientOptions& options,
                                                       const std::atomic<bool>* stop = nullptr);
  ~DeviceClient();

  // Runs until the summary has come (returned), or the call breaks: UNAVAILABLE means that the
  // transfer may go on without us; the id finds it again. CANCELLED: it goes on, if it was asked
  // for.
  Result<Summary> transfer(const TransferSpec& spec,
                           const std::function<void(const TransferEvent&)>& on_event);
  Result<Summary> watch(const std::string& transfer_id, const Authority& authority,
                        const std::function<void(const TransferEvent&)>& on_event);
  Result<Phase> cancel(const std::string& transfer_id, const Authority& authority);
  struct TransferList {
    std::vector<TransferInfo> transfers;  // into the places that `authority` has a grant for
    std::vector<Location> elsewhere;  // other namespaces that have some, for grants of default ones
  };
  Result<TransferList> list(const Authority& authority, bool finished);
  Status verify(const Location& location, const std::vector<std::string>& extents,
                const Authority& authority,
                const std::function<void(std::uint64_t done_bytes)>& on_progress,
                const std::function<void(const VerifyOutcome&)>& on_outcome);
  // Without a right on the device: its version and adapter only.
  Result<DeviceDescription> describe(const Authority& authority);

 private:
  class Impl;
  explicit DeviceClient(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace siphon::rpc
