// The secret that a folder's daemon shares with its callers, and what keeps a proof from being used
// twice.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <string>

#include "plugin/base/status.h"
#include "plugin/base/types.h"
#include "plugin/core/mutex.h"
#include "plugin/rpc/call_proof.h"

namespace siphon::rpc {

// The content of a secret file, which must be a regular file of mode 0600 or stricter, owned by us
// or root, with 16 to 4096 bytes. FAILED_PRECONDITION names what is wrong with it.
Result<Secret> read_secret_file(const std::string& file);

// Remembers the nonces of the proofs that could still be used. Full, it refuses: it never forgets
// one early. One key may fill a share of it, so that who holds one cannot keep the others out.
// Times are of the device's own clock. Thread safe.
class ReplayGuard {
 public:
  static constexpr std::uint64_t kWindowMs = 5 * 60 * 1000;
  static constexpr std::size_t kMaxRemembered = 100000;
  static constexpr std::size_t kMaxOfOneKey = kMaxRemembered / 8;
  // UNAUTHENTICATED: too old, from the future, or used before. Busy: full.
  Status check(const CallProof& proof, std::uint64_t now_ms);

 private:
  struct Used {
    std::uint64_t came_ms;
    KeyId key_id;
    std::array<std::byte, 16> nonce;
  };
  void forget_old_locked(std::uint64_t now_ms) SIPHON_REQUIRES(mutex_);

  Mutex mutex_;
  std::deque<Used> by_time_ SIPHON_GUARDED_BY(mutex_);
  std::set<std::array<std::byte, 16>> nonces_ SIPHON_GUARDED_BY(mutex_);
  std::map<KeyId, std::size_t> of_key_ SIPHON_GUARDED_BY(mutex_);
};

}  // namespace siphon::rpc
