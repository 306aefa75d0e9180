#include "plugin/cli/exit_codes.h"

#include <algorithm>
#include <array>

namespace siphon::cli {
namespace {

// What is graver comes later. 5 (trying again helps) outranks only 1: beside any other error trying
// again does not make the command succeed.
constexpr std::array kByGravity = {Exit::kOk,         Exit::kOther,    Exit::kTemporary,
                                   Exit::kUsage,      Exit::kNotFound, Exit::kLimit,
                                   Exit::kPermission, Exit::kNotFit,   Exit::kFatal};

bool is_graver(Exit a, Exit b) {
  return std::ranges::find(kByGravity, a) > std::ranges::find(kByGravity, b);
}

}  // namespace

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
    case Reason::kLayout:
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

void Tally::fail(const Error& error) {
  ++failed;
  if (const Exit exit = exit_for(error); is_graver(exit, gravest)) gravest = exit;
}

Exit exit_for(const Tally& tally) {
  if (tally.failed == 0) {
    return tally.done == 0 && tally.already_there > 0 ? Exit::kNothingToDo : Exit::kOk;
  }
  return tally.done + tally.already_there > 0 ? Exit::kPartial : tally.gravest;
}

}  // namespace siphon::cli
