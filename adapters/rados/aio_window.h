// A window of librados operations in flight. Blocks for at most the OSD timeout.
#pragma once

#include <array>
#include <cerrno>
#include <cstddef>
#include <exception>
#include <memory>

#include "rados/librados.hpp"

namespace siphon {

inline constexpr std::size_t kAioWindow = 16;

// Starts one operation per index of [0, count), count at most kAioWindow, waits for all and leaves
// their results. `start` is called as start(index, completion) and returns 0, or why nothing was
// started (as does an exception: -ENOMEM); what the operation fills must outlive the call.
template <typename Start>
void run_window(std::size_t count, std::array<int, kAioWindow>& results, const Start& start) {
  struct Release {
    void operator()(librados::AioCompletion* completion) const { completion->release(); }
  };
  std::array<std::unique_ptr<librados::AioCompletion, Release>, kAioWindow> completions;
  for (std::size_t i = 0; i < count; ++i) {
    try {
      completions[i].reset(librados::Rados::aio_create_completion());
      results[i] = start(i, completions[i].get());
    } catch (const std::exception&) {  // not out of here: others are under way already
      results[i] = -ENOMEM;
    }
    if (results[i] < 0) completions[i].reset();
  }
  // The last one first: by its end most others are done, and cost no waiting (and waking) of their
  // own.
  for (std::size_t i = count; i-- > 0;) {
    if (!completions[i]) continue;
    completions[i]->wait_for_complete();
    results[i] = completions[i]->get_return_value();
  }
}

}  // namespace siphon
