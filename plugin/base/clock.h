// Clock: what the time is, and waiting for it, where time decides: a limit, a patience, a lease. It
// is handed in, so that a test moves the hands (tests/support/manual_clock.h). What is measured,
// and what waits in the kernel, takes the system's:
// docs/adr/2026-11-28-a-clock-where-time-decides.md.
#pragma once

#include <condition_variable>
#include <functional>
#include <stop_token>

#include "plugin/base/types.h"
#include "plugin/core/mutex.h"

namespace siphon {

// Monotonic. Thread safe.
class Clock {
 public:
  virtual ~Clock() = default;
  static const Clock& system();

  virtual Deadline now() const = 0;
  // As std::condition_variable_any::wait_until: until `done`, which is asked with `lock` held, or
  // `stop` is requested, or it is `until`. Returns whether it is done.
  template <typename Done>
  bool wait_until(std::condition_variable_any& changed, MutexLock& lock,
                  const std::stop_token& stop, Deadline until, Done done) const {
    return wait(changed, lock, stop, until, std::ref(done));
  }
  // Returns early when `stop` is requested.
  void pause_until(Deadline until, const std::stop_token& stop) const {
    Mutex mutex;
    std::condition_variable_any never;
    MutexLock lock(mutex);
    wait_until(never, lock, stop, until, [] { return false; });
  }

 private:
  virtual bool wait(std::condition_variable_any& changed, MutexLock& lock,
                    const std::stop_token& stop, Deadline until,
                    const std::function<bool()>& done) const = 0;
};

}  // namespace siphon
