// AttemptJournal: which scratch extents this device has begun and not yet ended, on disk.
//
// A row is written before a reservation is made and removed once the scratch is published or gone,
// so that after any crash the collector knows exactly what to try: never a scan of a pool. The
// head's guarded methods decide; a row too many costs one look. SQLite in WAL mode; thread safe;
// blocks for a local write.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "plugin/base/status.h"
#include "plugin/base/types.h"

namespace siphon {

struct Attempt {
  Location location;
  std::string extent;
  PrivateId private_id;
};

class AttemptJournal {
 public:
  // Creates the file when missing. ":memory:" keeps it in memory (tests).
  static Result<std::unique_ptr<AttemptJournal>> open(const std::string& file);
  ~AttemptJournal();
  AttemptJournal(const AttemptJournal&) = delete;
  AttemptJournal& operator=(const AttemptJournal&) = delete;

  Status add(const Attempt& attempt);
  Status remove(const PrivateId& private_id);
  Result<std::vector<Attempt>> all();

 private:
  class Impl;
  explicit AttemptJournal(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace siphon
