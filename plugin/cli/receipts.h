// The file of --receipts: one JSON line for each extent that is proven to be at its target.
//
// Not thread safe. Every error is kept: a line counts as written when nothing of it was refused,
// and as safe when sync() has succeeded after it.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "plugin/base/status.h"

namespace siphon::cli {

class ReceiptFile {
 public:
  ReceiptFile() = default;
  ~ReceiptFile();
  ReceiptFile(const ReceiptFile&) = delete;
  ReceiptFile& operator=(const ReceiptFile&) = delete;

  // Appends to `path`; "-": stdout. Before anything moves. Where a run before this one was torn
  // within a line, the first line begins behind that one, and is whole.
  Status open(const std::string& path);
  bool is_open() const { return fd_ >= 0; }
  // False: it is lost; error() says why. Waits for a pipe's reader until the interrupt, and a
  // second more; from then on all lines are lost at once.
  bool write(const std::string& line);
  // What was written is on the disk, as far as the file is on one.
  bool sync();
  // After the last line. False: the file system tells only now of an error (NFS), so no line counts
  // as safe.
  bool close();
  const std::optional<Error>& error() const { return error_; }  // the first one

 private:
  void note(Error error);

  std::string path_;
  int fd_ = -1;
  bool own_ = false;
  bool torn_ = false;   // the last line has no end
  bool stuck_ = false;  // it took nothing any more, and we were interrupted
  std::optional<Error> error_;
};

}  // namespace siphon::cli
