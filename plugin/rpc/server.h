// DeviceServer: a device's control port. The only listener of gRPC; no gRPC type leaves here.
//
// A call whose caller has shown authority has a thread of its own, of a bounded number: a loop that
// reads from top to bottom (docs/adr/2026-11-22-threads-on-the-data-plane.md,
// docs/adr/2026-11-27-authority-before-parsing.md). Plain text is served on loopback only.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "plugin/base/status.h"
#include "plugin/rpc/client.h"
#include "plugin/rpc/share.h"
#include "plugin/stream/listener.h"
#include "plugin/transfer/manager.h"
#include "plugin/transfer/source.h"

namespace siphon::rpc {

// Decides whether the bearer of an authority may act. Thread safe, does not block for long.
class AccessPolicy {
 public:
  enum class Action { kRead, kWrite };
  virtual ~AccessPolicy() = default;
  // Whether callers must prove a grant at all. False: a secret or TLS has said who they are.
  virtual bool wants_grants() const = 0;
  // The nonce of the grant of this name. Nothing: no such grant here, or it has expired.
  virtual std::optional<Nonce> find_nonce(std::span<const std::byte, 16> key_id) = 0;
  // PERMISSION_DENIED says which right on which pool is missing and how to get it.
  virtual Status allow(Action action, const Location& location, const Authority& authority) = 0;
  // Whether `authority` is good for anything at all on this device (list).
  virtual Status allow_any(const Authority& authority) = 0;
  // Who answers for what a call with its grants takes (share.h). None: whom the secret or the
  // certificate names.
  virtual Payers payers(const Authority&) { return {}; }
  // Whether it may know which namespaces `pool` has. Keys confined to a named one may not (one that
  // is confined to the default namespace cannot be told from one of the whole pool).
  virtual bool may_know_namespaces(const std::string& pool, const Authority& authority) = 0;
};

struct ServerOptions {
  std::string address = "127.0.0.1";
  PortRange ports;
  // Callers prove knowledge of this file's content. Empty: `policy` decides.
  std::string secret_file;
  std::string tls_ca_file, tls_cert_file, tls_key_file;  // all or none; clients must show one too
  int max_threads = 64;  // half of them for Transfer, Watch and Verify
  // For a caller that does not read, and, of at most 30 s, for all of a request.
  std::chrono::milliseconds peer_patience{30000};
};

// What the server puts on the wire. Everything outlives it.
struct Device {
  TransferManager& manager;
  SourceService& source;
  StoreProvider& stores;
  AccessPolicy& policy;
  // Whether spec.source_address really is the device that holds spec.extents (never believed).
  std::function<Status(const TransferSpec& spec)> check_source;
  std::function<DeviceDescription()> describe;  // all but the control address
};

class DeviceServer {
 public:
  // FAILED_PRECONDITION: plain text beyond loopback, unusable TLS or secret files.
  // RESOURCE_EXHAUSTED: no free port in the range.
  static Result<std::unique_ptr<DeviceServer>> start(const ServerOptions& options, Device device);
  ~DeviceServer();  // ends calls within 2 s
  const Endpoint& endpoint() const;

 private:
  class Impl;
  explicit DeviceServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// What start() would refuse, without starting anything (siphond --check-config).
Status check_server_options(const ServerOptions& options);

}  // namespace siphon::rpc
