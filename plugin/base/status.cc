#include "plugin/base/status.h"

#include <cerrno>
#include <system_error>

namespace siphon {

std::string_view to_string(Code code) {
  switch (code) {
    case Code::kOk:
      return "OK";
    case Code::kCancelled:
      return "CANCELLED";
    case Code::kUnknown:
      return "UNKNOWN";
    case Code::kInvalidArgument:
      return "INVALID_ARGUMENT";
    case Code::kDeadlineExceeded:
      return "DEADLINE_EXCEEDED";
    case Code::kNotFound:
      return "NOT_FOUND";
    case Code::kAlreadyExists:
      return "ALREADY_EXISTS";
    case Code::kPermissionDenied:
      return "PERMISSION_DENIED";
    case Code::kResourceExhausted:
      return "RESOURCE_EXHAUSTED";
    case Code::kFailedPrecondition:
      return "FAILED_PRECONDITION";
    case Code::kAborted:
      return "ABORTED";
    case Code::kOutOfRange:
      return "OUT_OF_RANGE";
    case Code::kUnimplemented:
      return "UNIMPLEMENTED";
    case Code::kInternal:
      return "INTERNAL";
    case Code::kUnavailable:
      return "UNAVAILABLE";
    case Code::kDataLoss:
      return "DATA_LOSS";
    case Code::kUnauthenticated:
      return "UNAUTHENTICATED";
  }
  return "UNKNOWN";
}

std::string_view to_string(Side side) {
  switch (side) {
    case Side::kNone:
      return "none";
    case Side::kSource:
      return "source";
    case Side::kTarget:
      return "target";
    case Side::kWire:
      return "wire";
    case Side::kRequester:
      return "requester";
  }
  return "none";
}

Error Error::with_context(std::string_view context) && {
  message.insert(0, ": ").insert(0, context);
  return std::move(*this);
}

Error Error::with_context(std::string_view context) const& {
  return Error(*this).with_context(context);
}

Error Error::with_suspect(Side side) && {
  if (suspect == Side::kNone) suspect = side;
  return std::move(*this);
}

Error Error::with_next_step(std::string_view step) && {
  next_step = step;
  return std::move(*this);
}

Error Error::with_reason(Reason why) && {
  reason = why;
  return std::move(*this);
}

tl::unexpected<Error> fail_busy(std::string message, Side suspect, std::string next_step) {
  return fail(
      Error{Code::kUnavailable, std::move(message), suspect, std::move(next_step), Reason::kBusy});
}

bool is_retryable(Code code) {
  switch (code) {
    case Code::kDeadlineExceeded:
    case Code::kAborted:
    case Code::kUnavailable:
      return true;
    default:
      return false;
  }
}

Code code_from_errno(int errno_value) {
  switch (errno_value) {
    case 0:
      return Code::kOk;
    case ENOENT:
    case ENODATA:
      return Code::kNotFound;
    case EEXIST:
      return Code::kAlreadyExists;
    case EPERM:
    case EACCES:
      return Code::kPermissionDenied;
    case EINVAL:
    case ENAMETOOLONG:
    case ENOTDIR:
    case EISDIR:
    case ELOOP:
    case EXDEV:
      return Code::kInvalidArgument;
    case ENOSPC:
    case EDQUOT:
    case ENOMEM:
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case EUSERS:
    case EADDRINUSE:
      return Code::kResourceExhausted;
    case EROFS:
    case EBUSY:
    case ENOTEMPTY:
    case EADDRNOTAVAIL:
      return Code::kFailedPrecondition;
    case ERANGE:
    case EOVERFLOW:
    case EFBIG:
      return Code::kOutOfRange;
    case EOPNOTSUPP:
    case ENOSYS:
      return Code::kUnimplemented;
    case EIO:
    case EBADMSG:
    case EUCLEAN:
      return Code::kDataLoss;
    case ESTALE:
    case ECANCELED:
      return Code::kAborted;
    case ETIMEDOUT:
      return Code::kDeadlineExceeded;
    case EAGAIN:
    case EINTR:
    case ENXIO:
    case EPIPE:
    case ECONNREFUSED:
    case ECONNRESET:
    case ECONNABORTED:
    case ENOTCONN:
    case ESHUTDOWN:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ENETDOWN:
    case ENETUNREACH:
      return Code::kUnavailable;
    default:
      return Code::kUnknown;
  }
}

Error error_from_errno(int errno_value, std::string_view what, Side suspect) {
  std::string message(what);
  message += ": ";
  message += std::generic_category().message(errno_value);
  return Error{code_from_errno(errno_value), std::move(message), suspect, {}, Reason::kNone};
}

}  // namespace siphon
