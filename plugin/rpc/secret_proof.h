// Proof of a shared secret over one request: what a folder daemon asks for instead of grants.
// HMAC-SHA-256(secret, "siphon.v1\n" method "\n" | nonce | issued (8 B LE) | sha256(request)),
// the request serialized with its authority cleared. A proof is good for five minutes and once.
// Thread safe.
#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <set>
#include <string>

#include "plugin/base/status.h"
#include "plugin/base/types.h"

namespace siphon::rpc {

// The content of a secret file, which must be a regular file of mode 0600 or stricter, owned by us
// or root, with 16 to 4096 bytes. FAILED_PRECONDITION names what is wrong with it.
Result<Secret> read_secret_file(const std::string& file);

Sha256 secret_proof(const Secret& secret, const std::string& method,
                    std::span<const std::byte> nonce, std::int64_t issued_unix_ms,
                    const std::string& request);

// Remembers the nonces of the last five minutes.
class ReplayGuard {
 public:
  static constexpr std::int64_t kWindowMs = 5 * 60 * 1000;
  static constexpr std::size_t kMaxRemembered = 100000;
  // UNAUTHENTICATED: outside the window, or seen before.
  Status check(std::span<const std::byte> nonce, std::int64_t issued_unix_ms);

 private:
  std::mutex mutex_;
  std::set<std::string> seen_;
  std::deque<std::pair<std::int64_t, std::string>> by_time_;
};

}  // namespace siphon::rpc
