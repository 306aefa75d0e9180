// Ticker: calls a function over and over on a thread of its own.
#pragma once

#include <chrono>
#include <condition_variable>
#include <stop_token>
#include <thread>
#include <utility>

#include "plugin/base/thread.h"
#include "plugin/core/mutex.h"

namespace siphon {

// Ends with its destruction, which waits for a tick that is under way.
class Ticker {
 public:
  // Calls `tick` at once and then every `period`, until it returns false. Busy, at `side`, when the
  // system gives no thread for it.
  template <typename Tick>
  static Result<Ticker> start(Side side, std::chrono::milliseconds period, Tick tick) {
    auto thread = start_thread(side, [period, tick = std::move(tick)](std::stop_token stop) {
      Mutex mutex;
      std::condition_variable_any never;
      MutexLock lock(mutex);
      while (!stop.stop_requested() && tick()) {
        never.wait_for(lock, stop, period, [] { return false; });
      }
    });
    if (!thread) return fail(std::move(thread).error());
    return Ticker(std::move(*thread));
  }

 private:
  explicit Ticker(std::jthread thread) : thread_(std::move(thread)) {}

  std::jthread thread_;
};

}  // namespace siphon
