// ExtentStore over a folder: one file per extent with the extent's own bytes, everything else in
// DIR/.siphon (folder.h, head_file.h; docs/extent_format.md, "On a plain folder").
//
// Any number of processes may use a folder at once. A crash at any point leaves every name
// either as it was or as it was to be, and leftovers that `collect` removes. Writes are durable
// after publish, put_inline and seal; trash, collect and purge are durable on return. What only
// looks creates nothing.
// Thread safe, as extent_store.h asks.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "adapters/extent_store.h"

namespace siphon {

namespace posix {
class Folder;
}

struct PosixOptions {
  StoreLimits limits;
  std::chrono::milliseconds lock_timeout{10'000};  // for another process's step on the same name
  // For the one siphond that serves the folder; others may look and change meanwhile, name by name.
  bool daemon = false;
  // Called between the durable steps of a change ("publish:renamed", ...). Tests end the process
  // here; empty otherwise. Called with the name's lock held.
  std::function<void(std::string_view step)> step_hook;
};

class PosixProvider final : public StoreProvider {
 public:
  // NOT_FOUND, PERMISSION_DENIED or FAILED_PRECONDITION name what is wrong with `dir`.
  static Result<std::unique_ptr<PosixProvider>> create(const std::string& dir,
                                                       PosixOptions options = {});
  ~PosixProvider() override;

  // A folder is one location, with neither pool nor namespace: INVALID_ARGUMENT otherwise.
  Result<ExtentStore*> open(const Location& location) override;
  Result<std::int64_t> pool_id(const std::string& pool) override;

 private:
  PosixProvider(std::unique_ptr<posix::Folder> folder, PosixOptions options);
  std::unique_ptr<ExtentStore> store_;
};

}  // namespace siphon
