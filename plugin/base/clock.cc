#include "plugin/base/clock.h"

namespace siphon {
namespace {

class SystemClock final : public Clock {
  Deadline now() const override { return Deadline::clock::now(); }
  bool wait(std::condition_variable_any& changed, MutexLock& lock, const std::stop_token& stop,
            Deadline until, const std::function<bool()>& done) const override {
    return changed.wait_until(lock, stop, until, std::ref(done));
  }
};

}  // namespace

const Clock& Clock::system() {
  static const SystemClock clock;
  return clock;
}

}  // namespace siphon
