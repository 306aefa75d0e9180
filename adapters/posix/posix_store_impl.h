// The ExtentStore over a folder. For the posix adapter alone; others use PosixProvider.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "adapters/posix/folder.h"
#include "adapters/posix/head_file.h"
#include "adapters/posix/posix_store.h"

namespace siphon {

class PosixStore final : public ExtentStore {
 public:
  PosixStore(std::unique_ptr<posix::Folder> folder, PosixOptions options)
      : folder_(std::move(folder)), options_(std::move(options)) {}

  const Location& location() const override { return location_; }
  StoreIdentity identity() const override { return folder_->identity(); }
  StoreLimits limits() const override { return options_.limits; }

  Status check_ready(bool writable) override;
  Result<ExtentInfo> stat(std::string_view name) override;
  Status check_parts(const ExtentInfo& info) override;
  Status check_kept(std::string_view name, const TrashEntry& entry) override;
  Result<ExtentPage> list(std::string_view cursor, std::size_t max_names, Listing listing) override;
  Result<std::unique_ptr<ExtentReader>> open(std::string_view name, std::span<std::byte> prefetch,
                                             bool allow_open) override;
  Result<std::unique_ptr<ScratchExtent>> begin(std::string_view name,
                                               const BeginOptions& options) override;
  Status put_inline(std::string_view name, const PrivateId& id, std::span<const std::byte> bytes,
                    const SealedHeader& header) override;
  Status seal(std::string_view name, const ExtentInfo& seen, std::uint64_t offset_bytes,
              std::span<const std::byte> tail, const SealedHeader& header) override;
  Status trash(std::string_view name, const ExtentInfo& seen) override;
  Status collect(std::string_view name, const PrivateId& id) override;
  Status purge(std::string_view name, const PrivateId& id, std::uint64_t trashed_unix_ms) override;
  Result<HeadRegister> inspect(std::string_view name) override;
  Result<std::vector<PartsSeen>> parts_under(std::string_view name) override;
  Result<std::optional<UnnamedParts>> find_unnamed(std::string_view name,
                                                   const PartsSeen& seen) override;
  Status remove_unnamed(std::string_view name, const PartsSeen& seen) override;
  Status restore(std::string_view name, const PrivateId& id) override;
  Result<CorruptHead> corrupt_head(std::string_view name) override;
  Status remove_corrupt_head(std::string_view name, const CorruptHead& seen) override;
  Result<std::size_t> purge_trash(std::string_view name) override;

  // For the scratch: the part of a publish that needs the name's lock.
  Status publish(const std::string& name, const TransitionRequest& request);
  void step(std::string_view name) const {
    if (options_.step_hook) options_.step_hook(name);
  }

 private:
  // A name's head file with the lock that keeps it true.
  struct Locked {
    posix::NameLock lock;
    posix::HeadFile head;
  };
  Result<Locked> lock_and_load(std::string_view name, posix::LockMode mode) const;
  // Under the name's lock.
  Status require_not_foreign(std::string_view name, const posix::HeadFile& head) const;
  Result<CorruptHead> load_corrupt(const std::string& name) const;
  Status require_current(std::string_view name, const posix::HeadFile& head) const;
  Status require_no_foreign_file(std::string_view name, const posix::HeadFile& head) const;
  // The rest under the exclusive lock.
  Status make_public(const std::string& name, const posix::HeadFile& head, const HeadRegister& base,
                     const HeadRegister& next, const std::string& from);
  Status require_complete(const std::string& name, const HeadRegister& next);
  Status keep_replaced(const std::string& name, const posix::HeadFile& head);
  Status require_second_link(const std::string& name, const std::string& kept) const;
  Status store_condemned(const std::string& name, const posix::HeadFile& head,
                         const HeadRegister& next, const PrivateId& id);
  Status write_inline_file(const std::string& name, const std::string& hidden,
                           std::span<const std::byte> bytes);
  Status drop(const std::string& name, posix::HeadFile& head, const PrivateId& id);
  unsigned file_mode() const;
  std::string address_word(std::string_view name) const;  // for commands that are pasted

  const std::unique_ptr<posix::Folder> folder_;
  const PosixOptions options_;
  const Location location_;
};

}  // namespace siphon
