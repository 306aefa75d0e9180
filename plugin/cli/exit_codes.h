// What the process's exit status says; the table is in docs/operations.md and in `siphon --help`.
#pragma once

#include <cstddef>

#include "plugin/base/status.h"

namespace siphon::cli {

enum class Exit : int {
  kOk = 0,  // all verified and durable
  kOther = 1,
  kUsage = 2,
  kNotFound = 3,
  kPermission = 4,
  kTemporary = 5,  // trying again helps
  kPartial = 6,    // some extents, not all
  kFatal = 7,      // trying again does not help
  kLimit = 8,      // stopped by a limit (full, out of a budget), resumable
  kNothingToDo = 9,
  kNeedsConfirmation = 11,  // --yes-i-really-mean-it is missing
  kNotFit = 12,             // the cluster lacks the plugin, the application tag, ...
  kInterrupted = 130,       // SIGINT
  kBrokenPipe = 141,        // the reader of stdout has gone
};

Exit exit_for(Code code);
// A reason that has a code of its own comes before the code.
Exit exit_for(const Error& error);
// Whether it says what a thing is or who asks (open, damaged, taken, no right), and so the same
// whenever it is asked: not that something broke, was not found or did not answer.
bool is_refusal(const Error& error);

// How an action on many extents ended.
struct Tally {
  std::size_t done = 0;           // changed or verified now
  std::size_t already_there = 0;  // needed nothing
  std::size_t failed = 0;
  Exit gravest = Exit::kOk;  // of those that failed

  void fail(const Error& error);
};
Exit exit_for(const Tally& tally);

}  // namespace siphon::cli
