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

Exit exit_for(const Error& error) {
  switch (error.reason) {
    case Reason::kSameThing:
      return Exit::kUsage;
    case Reason::kDegraded:
    case Reason::kSourceChanged:
    case Reason::kOutcomeUnknown:
      return Exit::kTemporary;
    case Reason::kNotSiphons:
    case Reason::kDiffers:
    case Reason::kPoolChanged:
      return Exit::kFatal;
    case Reason::kClusterLimit:
    case Reason::kNoPlugin:
      return Exit::kNotFit;
    case Reason::kClosedPipe:
      return Exit::kBrokenPipe;
    case Reason::kNone:
    case Reason::kBusy:
    case Reason::kGrantUnknown:
    case Reason::kNotAsked:
      break;
  }
  return exit_for(error.code);
}

bool is_refusal(const Error& error) {
  const Exit exit = exit_for(error);
  return exit == Exit::kUsage || exit == Exit::kPermission || exit == Exit::kFatal;
}

Exit exit_for(const Tally& tally) {
  if (tally.failed == 0) {
    return tally.done == 0 && tally.already_there > 0 ? Exit::kNothingToDo : Exit::kOk;
  }
  if (tally.done + tally.already_there > 0) return Exit::kPartial;
  Error first;
  first.code = tally.first_failure;
  first.reason = tally.first_reason;
  return exit_for(first);
}

}  // namespace siphon::cli
