// Status and Result<T>: how every fallible function of Siphon reports.
//
// Codes are numbered as gRPC's. An Error carries what an operator needs: what happened (with the
// name of the thing), which side is suspected, and what to do next. Context is added on the way
// up with `with_context`. No exceptions cross a function that returns one of these.
#pragma once

#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>

namespace siphon {

enum class Code : int {
  kOk = 0,
  kCancelled = 1,
  kUnknown = 2,
  kInvalidArgument = 3,
  kDeadlineExceeded = 4,
  kNotFound = 5,
  kAlreadyExists = 6,
  kPermissionDenied = 7,
  kResourceExhausted = 8,
  kFailedPrecondition = 9,
  kAborted = 10,
  kOutOfRange = 11,
  kUnimplemented = 12,
  kInternal = 13,
  kUnavailable = 14,
  kDataLoss = 15,
  kUnauthenticated = 16,
};

// Which side an error points at.
enum class Side : int { kNone = 0, kSource = 1, kTarget = 2, kWire = 3, kRequester = 4 };

// Why, where code decides by it: nothing ever looks into a message's words. Travels in
// v1::Problem under the same numbers; a new one goes to the end of both.
enum class Reason : int {
  kNone = 0,
  kBusy = 1,             // no room at the moment: wait for a turn; this was no attempt
  kNoPlugin = 2,         // the OSD there has no (working) plugin
  kGrantUnknown = 3,     // the device does not know the grant (any more): ask for a new one
  kNotSiphons = 4,       // a foreign object stands where ours belongs
  kDiffers = 5,          // the name is taken, by other content
  kPoolChanged = 6,      // the pool of that name is no longer the one of the plan
  kSameThing = 7,        // source and target are one and the same
  kClusterLimit = 8,     // a setting of the cluster or the pool does not allow it
  kDegraded = 9,         // the copy is not yet on as many devices as its pool wants
  kSourceChanged = 10,   // the source changed while it was read
  kClosedPipe = 11,      // whoever reads our output has gone
  kOutcomeUnknown = 12,  // published or not: the store that knows does not answer
  kNotAsked = 13,        // interrupted before the device was asked for anything
  kLayout = 14,          // the OSD there refuses grants: it is of a layout that is not verified
};

std::string_view to_string(Code code);  // "NOT_FOUND"
std::string_view to_string(Side side);  // "source"

struct Error {
  Code code = Code::kUnknown;
  std::string message;  // one sentence, no trailing full stop
  Side suspect = Side::kNone;
  std::string next_step;  // what the operator runs or checks next; may be empty
  Reason reason = Reason::kNone;

  // The same error as part of a larger action: "copy p1/e1: <message>".
  Error with_context(std::string_view context) &&;
  Error with_context(std::string_view context) const&;
  Error with_suspect(Side side) &&;  // keeps a suspect that is already named
  Error with_next_step(std::string_view step) &&;
  Error with_reason(Reason why) &&;
};

template <typename T>
class [[nodiscard]] Result : public tl::expected<T, Error> {
 public:
  using tl::expected<T, Error>::expected;
};
using Status = Result<void>;

inline tl::unexpected<Error> fail(Code code, std::string message, Side suspect = Side::kNone,
                                  std::string next_step = {}) {
  return tl::unexpected<Error>(
      Error{code, std::move(message), suspect, std::move(next_step), Reason::kNone});
}
inline tl::unexpected<Error> fail(Error error) { return tl::unexpected<Error>(std::move(error)); }

// No room at the moment: whoever asks waits for a turn and asks again (Reason::kBusy).
tl::unexpected<Error> fail_busy(std::string message, Side suspect, std::string next_step);

// The one place that says whether trying the same thing again can help.
bool is_retryable(Code code);

// errno (positive) as an Error: "open /x: No such file or directory".
Error error_from_errno(int errno_value, std::string_view what, Side suspect = Side::kNone);
Code code_from_errno(int errno_value);

// Propagates a failed Status or Result.
#define SIPHON_TRY(expr)                                     \
  do {                                                       \
    if (auto siphon_try_ = (expr); !siphon_try_) {           \
      return ::siphon::fail(std::move(siphon_try_).error()); \
    }                                                        \
  } while (false)

}  // namespace siphon
