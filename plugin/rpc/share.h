// Share: so many of one thing (threads, connections), of which nobody takes all. Whoever takes one
// has payers: the keys that entitle him. A payer may have as many as are free then: one alone half
// of all, two a third each, and so on; what he has beyond that he keeps until he gives it back.
// Thread safe; only `wait` and `wait_until_unused` block.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <map>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "plugin/base/types.h"
#include "plugin/core/mutex.h"

namespace siphon::rpc {

struct Payer {
  std::string name;
  std::size_t weight = 1;  // how many times what he has counts: 2 for one among others of a kind
};
using Payers = std::vector<Payer>;

class Share {
 public:
  // One of them, until it is destroyed. The share outlives it. Move only.
  class Part {
   public:
    Part(Part&& other) noexcept
        : share_(std::exchange(other.share_, nullptr)), payers_(std::move(other.payers_)) {}
    Part& operator=(Part&&) = delete;
    ~Part() {
      if (share_ != nullptr) share_->give_back(payers_);
    }

   private:
    friend class Share;
    Part(Share* share, const Payers& payers) : share_(share), payers_(payers) {}
    Share* share_;
    Payers payers_;
  };

  explicit Share(std::size_t most) : most_(most) {}
  Share(const Share&) = delete;
  Share& operator=(const Share&) = delete;

  // Nothing: none is free, or one of the payers has his share.
  std::optional<Part> take(const Payers& payers) {
    const MutexLock lock(mutex_);
    if (!may_take_locked(payers)) return std::nullopt;
    return take_locked(payers);
  }
  // Nothing: by `until`, or before `stop` was requested, none has become free for him.
  std::optional<Part> wait(const Payers& payers, Deadline until, std::stop_token stop = {}) {
    MutexLock lock(mutex_);
    if (!given_back_.wait_until(lock, std::move(stop), until, [&]() SIPHON_REQUIRES(mutex_) {
          return may_take_locked(payers);
        })) {
      return std::nullopt;
    }
    return take_locked(payers);
  }
  void wait_until_unused() {
    MutexLock lock(mutex_);
    given_back_.wait(lock, [this]() SIPHON_REQUIRES(mutex_) { return taken_ == 0; });
  }

 private:
  bool may_take_locked(const Payers& payers) const SIPHON_REQUIRES(mutex_) {
    const std::size_t free = most_ - taken_;
    for (const Payer& payer : payers) {
      const auto it = taken_by_.find(payer.name);
      const std::size_t has = it == taken_by_.end() ? 0 : it->second;
      if (payer.weight * (has + 1) > free) return false;
    }
    return free > 0;
  }
  Part take_locked(const Payers& payers) SIPHON_REQUIRES(mutex_) {
    Part part(nullptr, payers);
    for (const Payer& payer : payers) taken_by_.try_emplace(payer.name, 0);  // all that may throw
    for (const Payer& payer : payers) ++taken_by_[payer.name];
    ++taken_;
    part.share_ = this;
    return part;
  }
  void give_back(const Payers& payers) {
    const MutexLock lock(mutex_);
    --taken_;
    for (const Payer& payer : payers) {
      const auto it = taken_by_.find(payer.name);
      if (--it->second == 0) taken_by_.erase(it);
    }
    given_back_.notify_all();  // under the lock: who waits may be the last to need the share
  }

  const std::size_t most_;
  Mutex mutex_;
  std::condition_variable_any given_back_;
  std::size_t taken_ SIPHON_GUARDED_BY(mutex_) = 0;
  std::map<std::string, std::size_t> taken_by_ SIPHON_GUARDED_BY(mutex_);  // by payer
};

}  // namespace siphon::rpc
