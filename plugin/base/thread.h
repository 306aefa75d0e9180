// start_thread: a thread, or none and why. Where a std::jthread would throw out of a thread that
// has nobody to catch it, the process would end.
#pragma once

#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "plugin/base/status.h"

namespace siphon {

// What a transfer is told that `side` has no thread for.
inline tl::unexpected<Error> fail_without_thread(Side side, const std::system_error& why) {
  return fail_busy("the " + std::string(to_string(side)) + " has no thread for this transfer (" +
                       why.what() + "): busy",
                   side, "try again in a minute, or raise the limit of its tasks");
}

// Busy, at `side`, when the system gives no thread; `work` has not run then.
template <typename Work>
Result<std::jthread> start_thread(Side side, Work work) {
  try {
    return std::jthread(std::move(work));
  } catch (const std::system_error& e) {
    return fail_without_thread(side, e);
  }
}

}  // namespace siphon
