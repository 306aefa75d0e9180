// RadosStore: the ExtentStore over RADOS objects, whoever moves the bytes and changes the register
// (an ObjectIo: librados alone, or the exchange and the class). See docs/extent_format.md.
//
//   siphon.<extent>                 head: the register in xattr siphon.head, inline data
//   siphon.<private id>.<number>    parts
//
// All of an extent's objects carry the extent's name as locator key, and so share one placement
// group. A head is told from a part by just that: its name is "siphon." + its locator key.
// Thread safe.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "adapters/extent_store.h"
#include "adapters/rados/object_io.h"
#include "adapters/rados/rados_cluster.h"
#include "plugin/core/mutex.h"
#include "rados/librados.hpp"

namespace siphon {

class RadosStore final : public ExtentStore {
 public:
  RadosStore(RadosCluster& cluster, Location location, const StoreLimits& limits,
             librados::IoCtx pool, std::unique_ptr<ObjectIo> io);

  const Location& location() const override { return location_; }
  StoreIdentity identity() const override;
  StoreLimits limits() const override { return limits_; }
  StoreCounters counters() const override { return {io_->fallback_parts()}; }

  Status check_ready(bool writable) override;
  Result<ExtentInfo> stat(std::string_view name) override;
  Status check_parts(const ExtentInfo& info) override;
  Status check_kept(std::string_view name, const TrashEntry& entry) override;
  Result<ExtentPage> list(std::string_view cursor, std::size_t max_names, Listing listing) override;
  Result<std::unique_ptr<ExtentReader>> open(std::string_view name, std::span<std::byte> prefetch,
                                             bool allow_open) override;
  std::vector<Result<std::unique_ptr<ExtentReader>>> open_many(
      std::span<const OpenRequest> requests) override;
  Result<std::unique_ptr<ScratchExtent>> begin(std::string_view name,
                                               const BeginOptions& options) override;
  Status put_inline(std::string_view name, const PrivateId& id, std::span<const std::byte> bytes,
                    const SealedHeader& header) override;
  std::vector<Status> put_inline_many(std::span<const InlinePut> puts) override;
  Status seal(std::string_view name, const ExtentInfo& seen, std::uint64_t offset_bytes,
              std::span<const std::byte> tail, const SealedHeader& header) override;
  Status trash(std::string_view name, const ExtentInfo& seen) override;
  Status collect(std::string_view name, const PrivateId& id) override;
  Status purge(std::string_view name, const PrivateId& id, std::uint64_t trashed_unix_ms) override;
  Status fence(std::string_view name, const PrivateId& id) override;
  Result<HeadRegister> inspect(std::string_view name) override;
  Status restore(std::string_view name, const PrivateId& id) override;
  Result<std::optional<UnnamedParts>> find_unnamed(std::string_view name,
                                                   const PartsSeen& seen) override;
  Status remove_unnamed(std::string_view name, const PartsSeen& seen) override;
  Result<CorruptHead> corrupt_head(std::string_view name) override;
  Status remove_corrupt_head(std::string_view name, const CorruptHead& seen) override;
  Result<std::size_t> purge_trash(std::string_view name) override;

 private:
  friend class RadosReader;
  friend class RadosScratch;

  librados::IoCtx context(std::string_view name) const;
  std::string describe(std::string_view name) const;  // "extent e1 in pool p1"
  // For commands that are pasted: "p1/e1", and "rados -p p1 --object-locator e1".
  std::string address_word(std::string_view name) const;
  std::string rados_command(std::string_view name) const;
  // Up to which byte a private id is whole, by the sizes of its objects.
  Result<std::uint64_t> stored_bytes(std::string_view name, const PrivateId& id,
                                     const SealedHeader& header, bool is_inline);
  Error no_extent(std::string_view name) const;
  Error damaged(Error error, const std::string& object) const;
  Error corrupt(std::string_view name) const;
  Error not_siphons(const librados::IoCtx& io, std::string_view name) const;
  Result<StoredHead> read_head(librados::IoCtx& io, std::string_view name);
  // What a read of `name`'s head came to.
  Result<StoredHead> head_of(std::string_view name, HeadRead& read);
  Result<std::unique_ptr<ExtentReader>> reader_of(std::string_view name, HeadRead& read,
                                                  bool allow_open);
  HeadRead head_read(const OpenRequest& request) const;
  HeadPut head_put(const InlinePut& put) const;
  Status finish_inline_put(const InlinePut& put, HeadPut& done);
  Status transition(librados::IoCtx& io, std::string_view name, const TransitionRequest& request);
  // Condemns what `seen` has as an attempt. FAILED_PRECONDITION: it has been published since.
  Status condemn_attempt(librados::IoCtx& io, std::string_view name, const PrivateId& id,
                         const HeadRegister& seen);
  // Condemns what is not condemned yet, removes the bytes, forgets. Parts [0, at_least) exist as
  // far as the caller knows. `keep_entry`: leave the trash entry to a later collector.
  // `trashed_unix_ms`: of the entry of the trash that is meant, see purge().
  Status drop(std::string_view name, const PrivateId& id, std::uint64_t at_least, bool keep_entry,
              std::optional<std::uint64_t> trashed_unix_ms = {});
  Status write_tail(librados::IoCtx& io, const HeadRegister& reg, std::uint64_t offset_bytes,
                    std::span<const std::byte> tail);
  struct GroupEnd {
    librados::ObjectCursor end;
    std::string name;  // "3.1a"
  };
  GroupEnd end_of_group(const librados::ObjectCursor& at);
  // Adds those of `names` that have a current extent, and those whose heads cannot be read, with
  // why; the heads are read side by side.
  void add_current(const std::vector<std::string>& names, ExtentPage& page);
  bool tagged();
  // Reason::kClusterLimit when the OSDs would refuse objects so large.
  Status check_object_size(std::uint64_t bytes);

  RadosCluster& cluster_;
  const Location location_;
  StoreLimits limits_;
  librados::IoCtx pool_;            // without a locator key
  std::uint64_t stripe_bytes_ = 1;  // where writes are in order: what an append has to be whole of
  const std::unique_ptr<ObjectIo> io_;
};

// The stores of one cluster, by pool id and namespace; what both providers are made of. A pool
// that was removed and made again has another id and gets another store.
class RadosStoreTable {
 public:
  using MakeIo = std::function<std::unique_ptr<ObjectIo>(bool whole_objects)>;
  RadosStoreTable(RadosCluster& cluster, const StoreLimits& limits, MakeIo make_io);
  Result<ExtentStore*> open(const Location& location);
  RadosCluster& cluster() { return cluster_; }

 private:
  RadosCluster& cluster_;
  const StoreLimits limits_;
  const MakeIo make_io_;
  Mutex mutex_;
  std::map<std::pair<std::int64_t, std::string>, std::unique_ptr<RadosStore>> stores_
      SIPHON_GUARDED_BY(mutex_);
  // Of pools that were renamed; still in use.
  std::vector<std::unique_ptr<RadosStore>> retired_ SIPHON_GUARDED_BY(mutex_);
};

}  // namespace siphon
