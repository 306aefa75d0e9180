// The three homes of siphond: beside an OSD (companion), stand-alone over a folder, stand-alone
// over a cluster. A backend brings the store, the memory and the authority; everything else is the
// same daemon (main.cc).
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "adapters/extent_store.h"
#include "plugin/agent/config.h"
#include "plugin/base/buffer_pool.h"
#include "plugin/base/status.h"
#include "plugin/rpc/server.h"

namespace siphon::agent {

// What the plugin or the command line says about where we are.
struct Invocation {
  bool companion = false;
  std::string osd_id, ceph_conf, ceph_cluster, ceph_keyring;  // companion, and --store rados
  std::string store;  // "posix:DIR" or "rados", when not a companion
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual const char* name() const = 0;    // "objclass", "posix", "rados"
  virtual std::string device() const = 0;  // "osd.3"
  virtual std::string default_journal() const = 0;
  virtual StoreProvider& stores() = 0;
  // Of a device that is one store. Empty: it has many, or cannot tell.
  virtual StoreIdentity store_identity() const { return {}; }
  virtual rpc::AccessPolicy& policy() = 0;
  virtual std::span<std::byte> send_memory() = 0;
  virtual std::span<std::byte> receive_memory() = 0;
  // See BufferPool: what of it is not to be handed out at the moment, and what was so at the start.
  virtual BufferPool::IsHeld is_held() { return {}; }
  virtual std::vector<std::span<std::byte>> held() { return {}; }
  virtual std::uint64_t boot_nonce() const = 0;
  // Whether spec.source_address is what it should be.
  virtual Status check_source(const TransferSpec& spec) = 0;
  // Called once the control port is open: tell the OSD, the service map.
  virtual Status announce(const Endpoint& control, bool tls) = 0;
};

// Blocks until the store answers (a companion waits for its OSD as long as it takes).
Result<std::unique_ptr<Backend>> make_companion(const Invocation& invocation, const Config& config);
Result<std::unique_ptr<Backend>> make_standalone(const Invocation& invocation,
                                                 const Config& config);

}  // namespace siphon::agent
