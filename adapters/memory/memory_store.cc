#include "adapters/memory/memory_store.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "adapters/store_util.h"
#include "plugin/core/mutex.h"

namespace siphon {
namespace {

// The bytes of one private id. Shared by the store and by the readers that have pinned it, which
// keep it readable after the store has dropped it. Guarded by the store's mutex.
using Bytes = std::vector<std::byte>;
using BytesPtr = std::shared_ptr<Bytes>;

}  // namespace

class MemoryStore final : public ExtentStore {
 public:
  MemoryStore(MemoryProvider& provider, Location location)
      : provider_(provider), location_(std::move(location)) {}

  const Location& location() const override { return location_; }
  StoreLimits limits() const override { return provider_.limits_; }

  Status check_ready(bool) override { return fault({"check_ready", ""}); }
  Result<ExtentInfo> stat(std::string_view name) override;
  Status check_parts(const ExtentInfo& info) override;
  Status check_kept(std::string_view name, const TrashEntry& entry) override;
  Result<ExtentPage> list(std::string_view cursor, std::size_t max_names, Listing) override;
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
  Status restore(std::string_view name, const PrivateId& id) override;
  Result<std::size_t> purge_trash(std::string_view name) override;

 private:
  friend class MemoryProvider;
  friend class MemoryReader;
  friend class MemoryScratch;
  using BytesKey = std::pair<std::string, PrivateId>;

  Status fault(const MemoryOperation& operation) { return provider_.check_fault(operation); }
  HeadRegister* find_head(std::string_view name) SIPHON_REQUIRES(mutex_);
  BytesPtr find_bytes(std::string_view name, const PrivateId& id) SIPHON_REQUIRES(mutex_);
  Status transition(std::string_view name, const TransitionRequest& request)
      SIPHON_REQUIRES(mutex_);
  Status condemn_and_drop(std::string_view name, const PrivateId& id,
                          std::optional<std::uint64_t> trashed_unix_ms = {})
      SIPHON_REQUIRES(mutex_);

  MemoryProvider& provider_;
  const Location location_;
  Mutex mutex_;
  // Never a blank one.
  std::map<std::string, HeadRegister, std::less<>> heads_ SIPHON_GUARDED_BY(mutex_);
  std::map<BytesKey, BytesPtr> bytes_ SIPHON_GUARDED_BY(mutex_);
};

class MemoryReader final : public ExtentReader {
 public:
  MemoryReader(MemoryStore& store, ExtentInfo info, BytesPtr bytes, std::size_t prefetched_bytes)
      : store_(store),
        info_(std::move(info)),
        bytes_(std::move(bytes)),
        prefetched_bytes_(prefetched_bytes) {}

  const ExtentInfo& info() const override { return info_; }
  std::size_t prefetched_bytes() const override { return prefetched_bytes_; }
  Status read(std::uint64_t offset_bytes, std::span<std::byte> out) override {
    SIPHON_TRY(check_io_bounds(offset_bytes, out.size(), info_.header.extent_bytes,
                               info_.header.part_bytes, store_.limits().operation_bytes));
    SIPHON_TRY(store_.fault({"read", info_.name, offset_bytes, out.size()}));
    const MutexLock lock(store_.mutex_);
    if (offset_bytes + out.size() > bytes_->size()) {
      return fail(Code::kDataLoss, "extent " + info_.name + " is shorter than its header says");
    }
    std::copy_n(bytes_->begin() + static_cast<std::ptrdiff_t>(offset_bytes), out.size(),
                out.begin());
    return {};
  }

 private:
  MemoryStore& store_;
  const ExtentInfo info_;
  const BytesPtr bytes_;  // store_.mutex_ guards what it points to
  const std::size_t prefetched_bytes_;
};

class MemoryScratch final : public ScratchExtent {
 public:
  MemoryScratch(MemoryStore& store, std::string name, const BeginOptions& options,
                std::uint64_t generation, BytesPtr bytes)
      : store_(store),
        name_(std::move(name)),
        id_(options.private_id),
        end_bytes_(options.extent_bytes ? options.extent_bytes : store.limits().max_extent_bytes),
        generation_(generation),
        bytes_(std::move(bytes)) {}

  const PrivateId& private_id() const override { return id_; }
  std::uint32_t part_bytes() const override { return store_.limits().part_bytes; }

  Status write(std::uint64_t offset_bytes, std::span<const std::byte> in) override {
    SIPHON_TRY(check_io_bounds(offset_bytes, in.size(), end_bytes_, part_bytes(),
                               store_.limits().operation_bytes));
    SIPHON_TRY(store_.fault({"write", name_, offset_bytes, in.size()}));
    const MutexLock lock(store_.mutex_);
    if (finished_) return fail(Code::kFailedPrecondition, "write after publish or abort");
    bytes_->resize(std::max<std::size_t>(bytes_->size(), offset_bytes + in.size()));
    std::copy(in.begin(), in.end(), bytes_->begin() + static_cast<std::ptrdiff_t>(offset_bytes));
    return {};
  }

  Status read(std::uint64_t offset_bytes, std::span<std::byte> out) override {
    SIPHON_TRY(check_io_bounds(offset_bytes, out.size(), end_bytes_, part_bytes(),
                               store_.limits().operation_bytes));
    SIPHON_TRY(store_.fault({"read scratch", name_, offset_bytes, out.size()}));
    const MutexLock lock(store_.mutex_);
    if (offset_bytes + out.size() > bytes_->size()) return fail(scratch_is_short(name_));
    std::copy_n(bytes_->begin() + static_cast<std::ptrdiff_t>(offset_bytes), out.size(),
                out.begin());
    return {};
  }

  Status publish(const SealedHeader& header, bool replace, ExtentState as_state) override {
    SIPHON_TRY(store_.fault({"publish", name_}));
    if (as_state == ExtentState::kNone) {
      return fail(Code::kInvalidArgument, "publish as neither open nor sealed");
    }
    const TransitionRequest request =
        publish_request(id_, generation_, header, part_bytes(), replace, as_state);
    MutexLock lock(store_.mutex_);
    if (as_state == ExtentState::kSealed && bytes_->size() != header.extent_bytes) {
      return fail(Code::kFailedPrecondition,
                  "publish " + name_ + ": " + std::to_string(bytes_->size()) + " of " +
                      std::to_string(header.extent_bytes) + " bytes were written");
    }
    SIPHON_TRY(store_.transition(name_, request));
    finished_ = true;
    lock.unlock();
    return store_.fault({"publish done", name_});
  }

  Status abort() override {
    SIPHON_TRY(store_.fault({"abort", name_}));
    const MutexLock lock(store_.mutex_);
    SIPHON_TRY(store_.condemn_and_drop(name_, id_));
    finished_ = true;
    return {};
  }

 private:
  MemoryStore& store_;
  const std::string name_;
  const PrivateId id_;
  const std::uint64_t end_bytes_;
  const std::uint64_t generation_;  // what begin saw
  const BytesPtr bytes_;            // store_.mutex_ guards what it points to
  bool finished_ SIPHON_GUARDED_BY(store_.mutex_) = false;
};

// ---- lookups ---------------------------------------------------------------------------------

HeadRegister* MemoryStore::find_head(std::string_view name) {
  auto it = heads_.find(name);
  return it == heads_.end() ? nullptr : &it->second;
}

BytesPtr MemoryStore::find_bytes(std::string_view name, const PrivateId& id) {
  auto it = bytes_.find({std::string(name), id});
  return it == bytes_.end() ? nullptr : it->second;
}

Status MemoryStore::transition(std::string_view name, const TransitionRequest& request) {
  HeadRegister* head = find_head(name);
  HeadRegister next = head ? *head : HeadRegister{};
  if (int rc = apply(next, head != nullptr, request); rc != 0) {
    return fail(transition_error(rc, request.kind, name));
  }
  if (next.blank()) {
    if (head) heads_.erase(heads_.find(name));
  } else if (head) {
    *head = std::move(next);
  } else {
    heads_.emplace(std::string(name), std::move(next));
  }
  return {};
}

Result<ExtentInfo> MemoryStore::stat(std::string_view name) {
  SIPHON_TRY(check_extent_name(name));
  SIPHON_TRY(fault({"stat", name}));
  const MutexLock lock(mutex_);
  const HeadRegister* head = find_head(name);
  if (!head || head->state == ExtentState::kNone) {
    return fail(Code::kNotFound, "extent " + std::string(name) + " does not exist");
  }
  return info_from_register(name, *head);
}

Status MemoryStore::check_parts(const ExtentInfo& info) {
  SIPHON_TRY(fault({"check_parts", info.name}));
  const MutexLock lock(mutex_);
  const BytesPtr bytes = find_bytes(info.name, info.private_id);
  const std::uint64_t there = bytes ? bytes->size() : 0;
  if (there == info.header.extent_bytes) return {};
  return fail(parts_missing("extent " + info.name, there, info.header.extent_bytes));
}

Status MemoryStore::check_kept(std::string_view name, const TrashEntry& entry) {
  SIPHON_TRY(fault({"check_kept", name}));
  const MutexLock lock(mutex_);
  const BytesPtr bytes = find_bytes(name, entry.id);
  const bool sealed = entry.state == ExtentState::kSealed;
  if (bytes && (!sealed || bytes->size() == entry.header.extent_bytes)) return {};
  std::optional<std::uint64_t> there;
  if (bytes) there = bytes->size();
  return fail(kept_not_whole("extent " + std::string(name), entry, there, "put it again",
                             std::string(name)));
}

Result<ExtentPage> MemoryStore::list(std::string_view cursor, std::size_t max_names,
                                     Listing listing) {
  SIPHON_TRY(fault({"list", ""}));
  if (max_names == 0) return fail(Code::kInvalidArgument, "list: max_names is 0");
  ExtentPage page;
  const MutexLock lock(mutex_);
  for (auto it = heads_.upper_bound(cursor); it != heads_.end(); ++it) {
    if (it->second.state == ExtentState::kNone && listing != Listing::kEverything) continue;
    if (page.names.size() == max_names) {
      page.next_cursor = page.names.back();
      break;
    }
    page.names.push_back(it->first);
    page.infos.push_back(info_from_register(it->first, it->second));
  }
  return page;
}

Result<std::unique_ptr<ExtentReader>> MemoryStore::open(std::string_view name,
                                                        std::span<std::byte> prefetch,
                                                        bool allow_open) {
  SIPHON_TRY(check_extent_name(name));
  SIPHON_TRY(fault({"open", name}));
  const MutexLock lock(mutex_);
  const HeadRegister* head = find_head(name);
  if (!head || head->state == ExtentState::kNone) {
    return fail(Code::kNotFound, "extent " + std::string(name) + " does not exist");
  }
  BytesPtr bytes = find_bytes(name, head->current);
  ExtentInfo info = info_from_register(name, *head);
  if (info.state == ExtentState::kOpen) {
    if (!allow_open) {
      return fail(Code::kFailedPrecondition, "extent " + info.name + " is open", Side::kNone,
                  "seal it first");
    }
    info.header.extent_bytes = bytes->size();
  }
  std::size_t prefetched_bytes = 0;
  if (info.is_inline && bytes->size() <= prefetch.size()) {
    std::copy(bytes->begin(), bytes->end(), prefetch.begin());
    prefetched_bytes = bytes->size();
  }
  return std::make_unique<MemoryReader>(*this, std::move(info), std::move(bytes), prefetched_bytes);
}

// ---- changes ---------------------------------------------------------------------------------

Result<std::unique_ptr<ScratchExtent>> MemoryStore::begin(std::string_view name,
                                                          const BeginOptions& options) {
  SIPHON_TRY(check_extent_name(name));
  SIPHON_TRY(check_begin(options, limits()));
  SIPHON_TRY(fault({"begin", name}));
  const TransitionRequest request = reserve_request(options, limits());
  const MutexLock lock(mutex_);
  if (const HeadRegister* head = find_head(name); head && head->state != ExtentState::kNone) {
    if (!options.replace || head->current == options.private_id) {
      return fail(transition_error(-EEXIST, Transition::kPublish, name));
    }
  }
  SIPHON_TRY(transition(name, request));
  BytesPtr& bytes = bytes_[{std::string(name), options.private_id}];
  if (!bytes) bytes = std::make_shared<Bytes>();
  return std::make_unique<MemoryScratch>(*this, std::string(name), options,
                                         find_head(name)->generation, bytes);
}

Status MemoryStore::put_inline(std::string_view name, const PrivateId& id,
                               std::span<const std::byte> bytes, const SealedHeader& header) {
  SIPHON_TRY(check_extent_name(name));
  SIPHON_TRY(check_inline(id, bytes.size(), header, limits()));
  SIPHON_TRY(fault({"put_inline", name}));
  const TransitionRequest request = inline_request(id, header, limits());
  MutexLock lock(mutex_);
  SIPHON_TRY(transition(name, request));
  bytes_.try_emplace({std::string(name), id}, std::make_shared<Bytes>(bytes.begin(), bytes.end()));
  lock.unlock();
  return fault({"put_inline done", name});
}

Status MemoryStore::seal(std::string_view name, const ExtentInfo& seen, std::uint64_t offset_bytes,
                         std::span<const std::byte> tail, const SealedHeader& header) {
  SIPHON_TRY(check_extent_name(name));
  SIPHON_TRY(fault({"seal", name}));
  const MutexLock lock(mutex_);
  const HeadRegister* head = find_head(name);
  if (!head || head->state == ExtentState::kNone) {
    return fail(Code::kNotFound, "extent " + std::string(name) + " does not exist");
  }
  SIPHON_TRY(check_seen(name, *head, seen));
  const TransitionRequest request = seal_request(seen, header, *head);
  const bool was_open = head->state == ExtentState::kOpen;
  BytesPtr bytes = find_bytes(name, head->current);
  SIPHON_TRY(check_seal(name, offset_bytes, tail.size(), was_open ? bytes->size() : ~0ull, header));
  SIPHON_TRY(transition(name, request));
  if (was_open) {
    bytes->resize(offset_bytes);
    bytes->insert(bytes->end(), tail.begin(), tail.end());
  }
  return {};
}

Status MemoryStore::trash(std::string_view name, const ExtentInfo& seen) {
  SIPHON_TRY(check_extent_name(name));
  SIPHON_TRY(fault({"trash", name}));
  const MutexLock lock(mutex_);
  const HeadRegister* head = find_head(name);
  if (!head || head->state == ExtentState::kNone) {
    return fail(Code::kNotFound, "extent " + std::string(name) + " does not exist");
  }
  SIPHON_TRY(check_seen(name, *head, seen));
  const TransitionRequest request =
      removal_request(Transition::kCondemn, seen.private_id, seen.generation);
  return transition(name, request);
}

// Condemn, remove the bytes, forget: in this order, so that a backend which dies in between
// leaves an entry that says what is still to be removed.
Status MemoryStore::condemn_and_drop(std::string_view name, const PrivateId& id,
                                     std::optional<std::uint64_t> trashed_unix_ms) {
  std::uint64_t generation = 0;
  if (const HeadRegister* head = find_head(name)) {
    SIPHON_TRY(check_removal(*head, id, trashed_unix_ms, "extent " + std::string(name)));
    generation = head->generation;
  }
  TransitionRequest request = removal_request(Transition::kCondemn, id, generation);
  if (Status s = transition(name, request); !s && s.error().code != Code::kNotFound) return s;
  bytes_.erase({std::string(name), id});
  request.kind = Transition::kForget;
  return transition(name, request);
}

Status MemoryStore::collect(std::string_view name, const PrivateId& id) {
  SIPHON_TRY(check_extent_name(name));
  SIPHON_TRY(fault({"collect", name}));
  const MutexLock lock(mutex_);
  return condemn_and_drop(name, id);
}

Status MemoryStore::purge(std::string_view name, const PrivateId& id,
                          std::uint64_t trashed_unix_ms) {
  SIPHON_TRY(check_extent_name(name));
  SIPHON_TRY(fault({"purge", name}));
  const MutexLock lock(mutex_);
  return condemn_and_drop(name, id, trashed_unix_ms);
}

Result<HeadRegister> MemoryStore::inspect(std::string_view name) {
  SIPHON_TRY(check_extent_name(name));
  SIPHON_TRY(fault({"inspect", name}));
  const MutexLock lock(mutex_);
  const HeadRegister* head = find_head(name);
  return head ? *head : HeadRegister{};
}

Status MemoryStore::restore(std::string_view name, const PrivateId& id) {
  SIPHON_TRY(check_extent_name(name));
  SIPHON_TRY(fault({"restore", name}));
  const MutexLock lock(mutex_);
  const HeadRegister* head = find_head(name);
  return transition(name, restore_request(head ? *head : HeadRegister{}, id));
}

Result<std::size_t> MemoryStore::purge_trash(std::string_view name) {
  SIPHON_TRY(check_extent_name(name));
  SIPHON_TRY(fault({"purge_trash", name}));
  const MutexLock lock(mutex_);
  const HeadRegister* head = find_head(name);
  if (!head) return std::size_t{0};
  const std::vector<Purgeable> all = purgeable(*head, now_unix_ms());
  for (const Purgeable& p : all) SIPHON_TRY(condemn_and_drop(name, p.id, p.trashed_unix_ms));
  return all.size();
}

// ---- provider --------------------------------------------------------------------------------

MemoryProvider::MemoryProvider(std::vector<std::string> pools, StoreLimits limits)
    : pools_(std::move(pools)), limits_(limits) {}
MemoryProvider::~MemoryProvider() = default;

Result<std::int64_t> MemoryProvider::pool_id(const std::string& pool) {
  auto it = std::find(pools_.begin(), pools_.end(), pool);
  if (it == pools_.end()) return fail(Code::kNotFound, "pool " + pool + " does not exist");
  return pool.empty() ? 0 : it - pools_.begin() + 1;
}

Result<ExtentStore*> MemoryProvider::open(const Location& location) {
  if (auto id = pool_id(location.pool); !id) return fail(std::move(id).error());
  return find_or_create(location);
}

MemoryStore* MemoryProvider::find_or_create(const Location& location) {
  const MutexLock lock(mutex_);
  auto& store = stores_[location];
  if (!store) store = std::make_unique<MemoryStore>(*this, location);
  return store.get();
}

void MemoryProvider::set_fault_hook(MemoryFaultHook hook) {
  const MutexLock lock(mutex_);
  hook_ = std::move(hook);
}

Status MemoryProvider::check_fault(const MemoryOperation& operation) {
  MemoryFaultHook hook;
  {
    const MutexLock lock(mutex_);
    hook = hook_;
  }
  return hook ? hook(operation) : Status{};
}

Status MemoryProvider::flip_byte(const Location& location, std::string_view name,
                                 std::uint64_t offset_bytes, const PrivateId& private_id) {
  MemoryStore* store = find_or_create(location);
  const MutexLock lock(store->mutex_);
  const HeadRegister* head = store->find_head(name);
  const PrivateId id = private_id.empty() && head ? head->current : private_id;
  BytesPtr bytes = store->find_bytes(name, id);
  if (!bytes || offset_bytes >= bytes->size()) {
    return fail(Code::kNotFound, "extent " + std::string(name) + ": no such byte");
  }
  (*bytes)[offset_bytes] ^= std::byte{0xff};
  return {};
}

std::size_t MemoryProvider::raw_count(const Location& location, std::string_view name) {
  MemoryStore* store = find_or_create(location);
  const MutexLock lock(store->mutex_);
  std::size_t count = store->find_head(name) ? 1 : 0;
  for (const auto& [key, bytes] : store->bytes_) count += key.first == name ? 1 : 0;
  return count;
}

}  // namespace siphon
