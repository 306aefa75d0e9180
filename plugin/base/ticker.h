// Ticker: calls a function over and over on a thread of its own.
#pragma once

#include <chrono>
#include <condition_variable>
#include <stop_token>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>

#include "plugin/base/thread.h"
#include "plugin/core/mutex.h"

namespace siphon {

// Ends with its destruction, which waits for a tick that is under way.
class Ticker {
 public:
  // Calls `tick` at once and then every `period`, until it returns false. A tick that may take long
  // can take a std::stop_token. Throws std::system_error when the system gives no thread.
  template <typename Tick>
  Ticker(std::chrono::milliseconds period, Tick tick)
      : thread_([period, tick = std::move(tick)](std::stop_token stop) mutable {
          Mutex mutex;
          std::condition_variable_any never;
          MutexLock lock(mutex);
          while (!stop.stop_requested() && once(tick, stop)) {
            never.wait_for(lock, stop, period, [] { return false; });
          }
        }) {}
  // The same where that is no reason to throw: busy, at `side`.
  template <typename Tick>
  static Result<Ticker> start(Side side, std::chrono::milliseconds period, Tick tick) {
    try {
      return Ticker(period, std::move(tick));
    } catch (const std::system_error& e) {
      return fail_without_thread(side, e);
    }
  }

 private:
  template <typename Tick>
  static bool once(Tick& tick, const std::stop_token& stop) {
    if constexpr (std::is_invocable_v<Tick&, const std::stop_token&>) {
      return tick(stop);
    } else {
      return tick();
    }
  }

  std::jthread thread_;
};

}  // namespace siphon
