// outermost: what a thread that works for a caller, or gRPC's own, runs around everything else: the
// status of the call, whatever happens. Nothing is thrown through it, with no memory left either.
#pragma once

#include <grpcpp/grpcpp.h>

#include <new>
#include <string>

#include "plugin/base/status.h"
#include "plugin/rpc/convert.h"

namespace siphon::rpc {

template <typename Run>
grpc::Status outermost(Run run) noexcept {
  try {
    try {
      const Status ended = run();
      return ended ? grpc::Status::OK : to_grpc(ended.error());
    } catch (const std::bad_alloc&) {
      return to_grpc({Code::kResourceExhausted, "this device is out of memory: busy", Side::kNone,
                      "try again in a minute", Reason::kBusy});
    } catch (const std::exception& e) {
      return to_grpc({Code::kInternal,
                      std::string("this device failed: ") + e.what(),
                      Side::kNone,
                      {},
                      Reason::kNone});
    }
  } catch (...) {
    // An Error would take memory. These words are short enough to lie within the string itself.
    return {grpc::StatusCode::RESOURCE_EXHAUSTED, "out of memory"};
  }
}

}  // namespace siphon::rpc
