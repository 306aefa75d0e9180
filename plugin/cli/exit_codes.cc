#include "plugin/cli/exit_codes.h"

namespace siphon::cli {

Exit exit_for(Code code) {
  switch (code) {
    case Code::kOk:
      return Exit::kOk;
    case Code::kInvalidArgument:
      return Exit::kUsage;
    case Code::kNotFound:
      return Exit::kNotFound;
    case Code::kPermissionDenied:
    case Code::kUnauthenticated:
      return Exit::kPermission;
    case Code::kUnavailable:
    case Code::kDeadlineExceeded:
    case Code::kAborted:
      return Exit::kTemporary;
    case Code::kResourceExhausted:
      return Exit::kLimit;
    case Code::kAlreadyExists:
    case Code::kFailedPrecondition:
    case Code::kDataLoss:
      return Exit::kFatal;
    case Code::kUnimplemented:
      return Exit::kNotFit;
    case Code::kCancelled:
    case Code::kUnknown:
    case Code::kOutOfRange:
    case Code::kInternal:
      return Exit::kOther;
  }
  return Exit::kOther;
}

Exit exit_for(const Tally& tally) {
  if (tally.failed == 0) {
    return tally.done == 0 && tally.already_there > 0 ? Exit::kNothingToDo : Exit::kOk;
  }
  if (tally.done + tally.already_there > 0) return Exit::kPartial;
  return exit_for(tally.first_failure);
}

}  // namespace siphon::cli
