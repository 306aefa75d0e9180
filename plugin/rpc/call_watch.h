// CallWatch: looks after the calls that stream to a peer. Five times a second it tells a call that
// its peer has hung up, and cancels one whose peer has not read what it is told, or not said what
// it announced, for `patience`: a Write or a Read blocks for as long as that, otherwise. One thread
// for all calls. Thread safe.
#pragma once

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <list>
#include <stop_token>

#include "plugin/base/log.h"
#include "plugin/base/ticker.h"
#include "plugin/base/types.h"
#include "plugin/core/mutex.h"

namespace siphon::rpc {

class CallWatch {
 public:
  explicit CallWatch(std::chrono::milliseconds patience)
      : patience_(patience), ticker_(kLook, [this] {
          look();
          return true;
        }) {}

  // One call, for as long as its handler runs. `context` outlives it.
  class Call {
   public:
    Call(CallWatch& watch, grpc::ServerContextBase& context) : watch_(watch), context_(context) {
      const MutexLock lock(watch_.mutex_);
      at_ = watch_.calls_.insert(watch_.calls_.end(), this);
    }
    ~Call() {
      const MutexLock lock(watch_.mutex_);
      watch_.calls_.erase(at_);
    }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

    // What `read_or_write` says; false also stops the call.
    template <typename ReadOrWrite>
    bool wait_for_peer(ReadOrWrite read_or_write) {
      return wait_for_peer(read_or_write, Deadline::clock::now() + watch_.patience_);
    }
    // The same, with another patience.
    template <typename ReadOrWrite>
    bool wait_for_peer(ReadOrWrite read_or_write, Deadline until) {
      until_ = until;
      const bool done = read_or_write();
      until_ = Deadline::max();
      if (!done) stop_.request_stop();
      return done;
    }
    // Requested when the peer has hung up, or is silent.
    std::stop_token stop() const { return stop_.get_token(); }

   private:
    friend class CallWatch;
    CallWatch& watch_;
    grpc::ServerContextBase& context_;
    std::stop_source stop_;
    std::atomic<Deadline> until_{Deadline::max()};
    std::list<Call*>::iterator at_;
  };

 private:
  static constexpr std::chrono::milliseconds kLook{200};

  void look() {
    const MutexLock lock(mutex_);
    const auto now = Deadline::clock::now();
    for (Call* call : calls_) {
      const bool stuck = call->until_.load() < now;
      if (stuck && !call->stop_.stop_requested()) {
        log::warn("{} has not read, or not said what it announced, in time: hung up",
                  call->context_.peer());
        call->context_.TryCancel();
      }
      if (stuck || call->context_.IsCancelled()) call->stop_.request_stop();
    }
  }

  const std::chrono::milliseconds patience_;
  Mutex mutex_;
  std::list<Call*> calls_ SIPHON_GUARDED_BY(mutex_);
  const Ticker ticker_;  // last: starts when all else is there
};

}  // namespace siphon::rpc
