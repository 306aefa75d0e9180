// The process's standard output and error, as programs find them: pipes that block or do not,
// terminals, full devices, readers that have gone. Everything that siphon prints goes through here.
//
// Thread safe. A failure never throws; on standard error it is not even told, for there is nobody
// to tell it to.
#pragma once

#include <atomic>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "plugin/base/status.h"
#include "plugin/core/mutex.h"

namespace siphon::cli {

// Set by the first SIGINT or SIGTERM.
std::atomic<bool>& interrupt_flag();

// Writes all of `bytes`; waits where the descriptor would block, whether or not it is set to. On
// any thread. Reason::kClosedPipe: its reader has gone. CANCELLED: it takes nothing since the
// interrupt, for a second. `doing` begins the error: "write to stdout". `taken` gets how many bytes
// it took, all of them or not.
Status write_all(int fd, std::span<const std::byte> bytes, std::string_view doing,
                 std::size_t* taken = nullptr);

class TextStream {
 public:
  // `buffered`: written when there is enough of it, and by flush.
  TextStream(int fd, std::string what, bool buffered)
      : fd_(fd), what_(std::move(what)), buffered_(buffered) {}
  // Buffered: after a failure nothing more is written.
  void write(std::string_view text);
  // Writes what is held; the first failure there was.
  Status flush();

 private:
  void write_held() SIPHON_REQUIRES(mutex_);

  const int fd_;
  const std::string what_;
  const bool buffered_;
  Mutex mutex_;
  std::string held_ SIPHON_GUARDED_BY(mutex_);
  Status status_ SIPHON_GUARDED_BY(mutex_);
};

TextStream& standard_output();
TextStream& standard_error();

// Lines on standard error, "siphon: " in front; control characters are escaped.
void complain(std::string_view text);

// Columns of the terminal that standard error is; 80 where that cannot be told.
std::size_t error_columns();

// Takes the descriptors 0 to 2 where they are closed: else the next file that is opened, perhaps a
// target, would be written to as if it were one of them. Using them is an error as before.
void hold_standard_descriptors();

}  // namespace siphon::cli
