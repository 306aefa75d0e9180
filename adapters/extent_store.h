// ExtentStore: the seam between Siphon's protocol and a backend. Implementations: memory
// (reference), posix (a folder), rados (librados), objclass (through the OSD's exchange).
// tests/contract runs one suite over all of them; docs/adapters of a new one start there.
//
// An ExtentStore is one Location (pool and namespace) of one device. All methods block, for at
// most the backend's operation timeout each; those that take several extents, for each of them. A
// companion's writes also wait for their OSD's WriteLimiter. Any thread may call them concurrently.
// Objects returned (reader, scratch) must not outlive their store; their own thread safety is
// stated on each.
//
// Errors common to all: INVALID_ARGUMENT (bad name or bound), PERMISSION_DENIED,
// DEADLINE_EXCEEDED or UNAVAILABLE (the backend does not answer; retrying may help),
// RESOURCE_EXHAUSTED (full: pool quota, OSD full ratio, ENOSPC).
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "plugin/base/status.h"
#include "plugin/base/types.h"
#include "plugin/core/head_register.h"

namespace siphon {

struct ExtentInfo {
  std::string name;
  std::uint64_t generation = 0;
  ExtentState state = ExtentState::kNone;
  bool is_inline = false;
  PrivateId private_id;
  SealedHeader header;              // valid when sealed; part_bytes valid when open
  std::uint32_t scratch_count = 0;  // attempts in progress or left over
  std::uint32_t trash_count = 0;
};

// How closely a listing looks.
enum class Listing {
  kExtents,  // current extents, each with what its head says
  // What a backend can tell without looking at each name: `infos` may be empty, and a name may
  // have only scratch or trash behind it. Saves an operation per name on RADOS.
  kNames,
  // Every name that has anything behind it, trash or scratch alone too; `infos` may be empty.
  kEverything,
};

// Parts of one private id that a listing has come by.
struct PartsSeen {
  PrivateId id;
  std::uint64_t end = 0;  // one past the highest number among them
};

// Bytes that no register names: of an attempt that has ended, written by an operation that came
// late. Or of an extent whose head is lost, whether or not its name has a new one by now, and then
// they may be all there is of it.
struct UnnamedParts {
  std::uint64_t bytes = 0;
  std::uint64_t written_unix_ms = 0;  // the youngest
  bool has_head = false;              // the name has a register, which does not name them
};

struct ExtentPage {
  std::vector<std::string> names;  // public names only, backend's order
  // What the listing has seen of each, by the same index, so that nobody needs a stat per name.
  // state kNone: its head could not be read, `errors` says why. An open one's size is not measured:
  // stat it.
  std::vector<ExtentInfo> infos;
  std::map<std::size_t, Error> errors;  // by the same index
  // With kEverything, where bytes lie apart from their register: whose were seen, by name. A name
  // may stand here alone.
  std::map<std::string, std::vector<PartsSeen>> parts;
  // What could not be listed at all (a placement group that is down): the rest is here all the
  // same.
  std::vector<Error> unlisted;
  std::string next_cursor;  // empty: this was the last page
};

struct StoreLimits {
  std::uint32_t part_bytes = 8u << 20;        // size of a new extent's parts, 64 KiB..64 MiB
  std::uint32_t operation_bytes = 4u << 20;   // largest single read or write it wants
  std::uint32_t inline_max_bytes = 1u << 20;  // extents up to this use put_inline; 0: never
  std::uint64_t max_extent_bytes = 64ull << 30;
  std::uint32_t read_depth = 2;   // reads in flight worth having per extent
  std::uint32_t write_depth = 4;  // writes in flight worth having per extent that is put
  // What four in five writes of a companion should take in its OSD, whose clients wait behind them.
  std::uint32_t write_target_ms = 40;
  // Published generations that the trash of a name keeps: 1 to kMostKept, which is the limit of who
  // removes nothing but what a register has no room for.
  std::uint32_t kept_generations = 8;
  static constexpr std::uint32_t kMostKept = HeadRegister::kMaxKept - 1;
  // For how long a folder's daemon keeps them (plugin/transfer/leftovers.h); nobody else ages any.
  std::uint64_t trash_grace_ms = 7ull * 24 * 3600 * 1000;
  // Small extents that one call opens or puts with a single wait; 1: one call waits for each.
  std::uint32_t small_together = 1;
  // The writes of one scratch extent have to come one by one in the order of their offsets, unless
  // each is a whole part.
  bool in_order = false;
};

// What an adapter did, for progress and receipts. Monotonic; read any time.
struct StoreCounters {
  std::uint64_t fallback_parts = 0;  // operations that had to go another way than planned
};

// The part of StoreCounters::fallback_parts, of all stores together, that operations of the calling
// thread account for. Only ever grows.
inline std::uint64_t& fallback_parts_of_this_thread() {
  thread_local std::uint64_t count = 0;
  return count;
}

// For whoever works for one transfer on a thread of its own: at its end, adds to `total` what the
// thread's operations in the meantime came to.
class CountFallbackParts {
 public:
  explicit CountFallbackParts(std::atomic<std::uint64_t>& total) : total_(total) {}
  ~CountFallbackParts() {
    total_.fetch_add(fallback_parts_of_this_thread() - before_, std::memory_order_relaxed);
  }
  CountFallbackParts(const CountFallbackParts&) = delete;
  CountFallbackParts& operator=(const CountFallbackParts&) = delete;

 private:
  std::atomic<std::uint64_t>& total_;
  const std::uint64_t before_ = fallback_parts_of_this_thread();
};

// A sealed extent pinned at one private id: what is read stays that generation, or fails.
class ExtentReader {
 public:
  virtual ~ExtentReader() = default;
  virtual const ExtentInfo& info() const = 0;
  // Fills all of `out` from [offset, offset + out.size()). `out` is at most operation_bytes, does
  // not cross a part boundary, and for the zero-copy path lies in the device's buffer arena.
  // OUT_OF_RANGE beyond the extent's end; DATA_LOSS when the backend reports damage (EIO,
  // checksum) or a part is short; NOT_FOUND when the pinned generation is gone. Thread safe.
  virtual Status read(std::uint64_t offset_bytes, std::span<std::byte> out) = 0;
  // Bytes that `open` already read into its `prefetch` buffer (inline extents), else 0.
  virtual std::size_t prefetched_bytes() const { return 0; }
};

// The target's private copy while a transfer runs.
class ScratchExtent {
 public:
  virtual ~ScratchExtent() = default;  // does not abort: call publish or abort
  virtual const PrivateId& private_id() const = 0;
  virtual std::uint32_t part_bytes() const = 0;
  // Writes all of `in` at `offset`; returns once it is acknowledged by every replica, or handed to
  // the file system (posix: durable after publish). Bounds as ExtentReader::read. Disjoint writes
  // may run concurrently. Writing the same bytes again is harmless.
  virtual Status write(std::uint64_t offset_bytes, std::span<const std::byte> in) = 0;
  // Fills all of `out` with what the store holds of [offset, offset + out.size()) by now. Bounds,
  // buffer and errors as ExtentReader::read; DATA_LOSS where less is there. Before publish, after
  // the writes that matter have returned.
  virtual Status read(std::uint64_t offset_bytes, std::span<std::byte> out) = 0;
  // The one atomic step that gives the scratch extent its public name; durable on return.
  // header.part_bytes is ignored (part_bytes() is stored). `expected_generation`: what
  // `begin` saw unless the caller knows better. ALREADY_EXISTS: a current extent is there and
  // `replace` is false. ABORTED: the name changed meanwhile, or this attempt was condemned.
  // Repeating a publish that took effect succeeds. Call after every write has returned.
  virtual Status publish(const SealedHeader& header, bool replace, ExtentState as_state) = 0;
  // Condemns the private id and removes its bytes; NOT an error when there is nothing left.
  // After a failed abort the reservation's lease lets a collector finish the work.
  virtual Status abort() = 0;
  // False when a write got no answer and may still happen: after the abort, what it leaves is to be
  // collected once more, when that can no longer be.
  virtual bool settled() const { return true; }
};

struct BeginOptions {
  std::uint64_t extent_bytes = 0;   // the size to come; 0: unknown
  PrivateId private_id;             // chosen by the caller, fresh
  std::uint64_t lease_unix_ms = 0;  // after this a collector may condemn it
  bool replace = false;             // false: ALREADY_EXISTS at once if there is a current one
  std::stop_token stop = {};        // ends waits of its writes with CANCELLED
  // Only moves the lease of an attempt that was begun before. ABORTED when it was collected: what
  // it wrote has gone, and under the same id nobody would see that.
  bool renews = false;
};

// What `open_many` opens: see ExtentStore::open.
struct OpenRequest {
  std::string_view name;
  std::span<std::byte> prefetch;
};

// What `put_inline_many` puts: see ExtentStore::put_inline.
struct InlinePut {
  std::string_view name;
  PrivateId id;
  std::span<const std::byte> bytes;
  SealedHeader header;
  // Where to count what went another way than planned; may be null.
  std::atomic<std::uint64_t>* fallback_parts = nullptr;
};

// A register that does not decode, as it is stored.
struct CorruptHead {
  std::vector<std::byte> reg;
  std::vector<std::byte> data;  // the head's own bytes, which go with it: an inline extent's
  std::string stays;            // what is left where it was, for people
  bool operator==(const CorruptHead&) const = default;
};

class ExtentStore {
 public:
  virtual ~ExtentStore() = default;

  virtual const Location& location() const = 0;
  virtual StoreLimits limits() const = 0;
  virtual StoreCounters counters() const { return {}; }

  // Whether transfers may run here at all: the pool exists (NOT_FOUND), carries the application
  // tag `siphon` (FAILED_PRECONDITION, with the command that mends it); for `writable` also that
  // it is not full (RESOURCE_EXHAUSTED) or read-only (FAILED_PRECONDITION).
  virtual Status check_ready(bool writable) = 0;

  // NOT_FOUND when there is no head, or only scratch or trash behind it (then info.state kNone
  // is never returned).
  virtual Result<ExtentInfo> stat(std::string_view name) = 0;
  // Up to `max_names` names after `cursor` (empty: from the start).
  virtual Result<ExtentPage> list(std::string_view cursor, std::size_t max_names,
                                  Listing listing) = 0;

  // Whether the bytes that the head promises are there, by their number: DATA_LOSS when a part is
  // missing or short. Looks at each part, reads none. `info`: what stat said.
  virtual Status check_parts(const ExtentInfo& /*info*/) { return {}; }
  // The same of a generation in the trash, as `inspect` has it: DATA_LOSS when a restore would
  // bring back nothing, or not all of it.
  virtual Status check_kept(std::string_view /*name*/, const TrashEntry& /*entry*/) { return {}; }

  // Which store this is, whatever it was called when it was opened. Empty: it cannot tell.
  virtual StoreIdentity identity() const { return {}; }

  // Pins the current sealed generation. FAILED_PRECONDITION when it is open. When it is inline and
  // fits `prefetch`, its bytes are read in the same operation (see prefetched_bytes).
  // allow_open: pin an open one too (its size is found from the parts; info.header.extent_bytes).
  virtual Result<std::unique_ptr<ExtentReader>> open(std::string_view name,
                                                     std::span<std::byte> prefetch,
                                                     bool allow_open = false) = 0;
  // Opens sealed extents; one result for each, in order. A backend at a distance has all of them
  // under way at once, which costs one thread one wait (StoreLimits::small_together).
  virtual std::vector<Result<std::unique_ptr<ExtentReader>>> open_many(
      std::span<const OpenRequest> requests) {
    std::vector<Result<std::unique_ptr<ExtentReader>>> readers;
    for (const OpenRequest& r : requests) readers.push_back(open(r.name, r.prefetch));
    return readers;
  }

  // Reserves the private id in the head, before the first byte.
  virtual Result<std::unique_ptr<ScratchExtent>> begin(std::string_view name,
                                                       const BeginOptions& options) = 0;
  // Creates and publishes a sealed inline extent in one atomic, exclusive operation.
  // ALREADY_EXISTS when there is any head (use begin then). `bytes` at most inline_max_bytes.
  virtual Status put_inline(std::string_view name, const PrivateId& id,
                            std::span<const std::byte> bytes, const SealedHeader& header) = 0;
  // The same for several, each by itself; as open_many.
  virtual std::vector<Status> put_inline_many(std::span<const InlinePut> puts) {
    std::vector<Status> results;
    for (const InlinePut& p : puts) results.push_back(put_inline(p.name, p.id, p.bytes, p.header));
    return results;
  }

  // The two below change the current extent that was `seen` (by stat, or by a reader) and no
  // other: by its private id, and by its generation, which alone would not do, as it starts at 0
  // again when nothing is left of a name. ABORTED: another one has the name by now, or it was
  // sealed, or removed and restored meanwhile; not a byte was changed. NOT_FOUND: none has it.

  // Seals the open current extent: appends `tail` (index and footer) at `offset_bytes`, cutting
  // whatever is behind, then records the header.
  virtual Status seal(std::string_view name, const ExtentInfo& seen, std::uint64_t offset_bytes,
                      std::span<const std::byte> tail, const SealedHeader& header) = 0;
  // Takes the public name away; the bytes stay in the trash until purged.
  virtual Status trash(std::string_view name, const ExtentInfo& seen) = 0;
  // Removes what is left of an attempt: condemns `id` if it is still reserved, removes its parts,
  // forgets it. Refuses (FAILED_PRECONDITION) what has been published: the current one, and a
  // generation in the trash, which is purge()'s. Success when there is nothing left of it.
  virtual Status collect(std::string_view name, const PrivateId& id) = 0;
  // Removes one entry of the trash for good, if it is still the one that was seen, trashed at
  // `trashed_unix_ms`. FAILED_PRECONDITION: it has been restored since. Success when it is gone.
  virtual Status purge(std::string_view name, const PrivateId& id,
                       std::uint64_t trashed_unix_ms) = 0;
  // The whole register of a name: what is current, each attempt, each entry of the trash. Blank
  // when there is nothing. An attempt without a lease (0) has bytes and no reservation.
  virtual Result<HeadRegister> inspect(std::string_view name) = 0;
  // Whose bytes lie under the name, where they can be found without a listing of the whole store.
  virtual Result<std::vector<PartsSeen>> parts_under(std::string_view /*name*/) {
    return std::vector<PartsSeen>{};
  }
  // What is there of `seen` that the register of the name, read now, does not name; nullopt: it
  // names them, or they have gone.
  virtual Result<std::optional<UnnamedParts>> find_unnamed(std::string_view /*name*/,
                                                           const PartsSeen& /*seen*/) {
    return std::nullopt;
  }
  // Removes them, after another look at the register. FAILED_PRECONDITION: it names them.
  virtual Status remove_unnamed(std::string_view name, const PartsSeen& seen) {
    return collect(name, seen.id);
  }
  // Makes a trashed generation the current one again; reads no bytes. ALREADY_EXISTS when there is
  // a current one, NOT_FOUND when the trash does not hold it (or it was never published). One that
  // a register of version 1 tells of comes back open: seal it, which finds its header anew.
  virtual Status restore(std::string_view name, const PrivateId& id) = 0;
  // Tidies a name before its next attempt, and before the first byte moves: what is left of ended
  // attempts leaves, and attempts whose lease is over. With `replaces`, so that a publish or a
  // removal finds room for one more, the oldest published generation too, where the register has
  // no room: only then is a failure an error. One look at the head when there is nothing to do.
  // `on_gone` is told of each published generation that left: nobody brings it back.
  Status make_room(std::string_view name, bool replaces,
                   const std::function<void(const TrashEntry&)>& on_gone = {});
  // After a publish or a removal that took effect: the oldest published generations beyond
  // limits().kept_generations leave the trash. `on_gone` as above.
  Status trim_trash(std::string_view name,
                    const std::function<void(const TrashEntry&)>& on_gone = {});
  // Which published generations one more replacement or removal would make leave, oldest first.
  Result<std::vector<TrashEntry>> in_the_way(std::string_view name, bool replaces);
  // What became of a publish (or a put_inline) of `id` whose answer was lost. Success: it has not
  // been published and never will be, whatever may still be under way; the id is condemned in the
  // head, where one is made if there was none, and stays there for collect(). FAILED_PRECONDITION:
  // it was published (it is the current one, or in the trash by now). Any other error: not known,
  // and to be asked again.
  virtual Status fence(std::string_view name, const PrivateId& id) { return collect(name, id); }
  // What is stored where a name's register does not decode, to be kept before it goes.
  // FAILED_PRECONDITION: the register is in order, or what stands there is not Siphon's. NOT_FOUND:
  // nothing stands there.
  virtual Result<CorruptHead> corrupt_head(std::string_view name) {
    return fail(Code::kUnimplemented,
                "no register of this store can be corrupt: extent " + std::string(name));
  }
  // Removes such a register, and what it alone says: which private id is current, the trash, the
  // attempts. Parts stay where they are. ABORTED: what is there is no longer `seen`.
  virtual Status remove_corrupt_head(std::string_view name, const CorruptHead& /*seen*/) {
    return fail(corrupt_head(name).error());
  }
  // Removes everything in the name's trash, and what is left of attempts whose lease is over, now.
  // Returns how many entries went.
  virtual Result<std::size_t> purge_trash(std::string_view name) = 0;
};

// The published generations in a trash but for the youngest `keep`, oldest first.
inline std::vector<TrashEntry> oldest_beyond(const HeadRegister& reg, std::size_t keep) {
  std::vector<TrashEntry> published;  // as they came
  for (const TrashEntry& entry : reg.trash) {
    if (entry.was_published) published.push_back(entry);
  }
  published.resize(published.size() - std::min(published.size(), keep));
  return published;
}

inline Status ExtentStore::make_room(std::string_view name, bool replaces,
                                     const std::function<void(const TrashEntry&)>& on_gone) {
  // A late write of an attempt that ended may still arrive: its entry waits for that long.
  constexpr std::uint64_t kSettledMs = 10 * 60 * 1000;
  auto reg = inspect(name);
  if (!reg) return fail(std::move(reg).error());
  const std::uint64_t now = now_unix_ms();
  for (const Reservation& entry : reg->reservations) {
    if (entry.lease_unix_ms < now) (void)collect(name, entry.id);
  }
  std::size_t entries = reg->trash.size();
  const auto purge_ended = [&](std::uint64_t settled_ms) -> Status {
    Status done;
    std::erase_if(reg->trash, [&](const TrashEntry& entry) {
      const std::uint64_t age_ms = now > entry.trashed_unix_ms ? now - entry.trashed_unix_ms : 0;
      if (entry.was_published || age_ms < settled_ms) return false;
      Status purged = purge(name, entry.id, entry.trashed_unix_ms);
      if (purged) --entries;
      if (!purged && done) done = std::move(purged);
      return true;
    });
    return done;
  };
  (void)purge_ended(kSettledMs);
  if (!replaces || entries < HeadRegister::kMaxKept) return {};
  SIPHON_TRY(purge_ended(0));
  for (const TrashEntry& entry : oldest_beyond(*reg, 0)) {
    if (entries < HeadRegister::kMaxKept) break;
    SIPHON_TRY(purge(name, entry.id, entry.trashed_unix_ms));
    --entries;
    if (on_gone) on_gone(entry);
  }
  return {};
}

inline Status ExtentStore::trim_trash(std::string_view name,
                                      const std::function<void(const TrashEntry&)>& on_gone) {
  auto reg = inspect(name);
  if (!reg) return fail(std::move(reg).error());
  for (const TrashEntry& entry : oldest_beyond(*reg, limits().kept_generations)) {
    SIPHON_TRY(purge(name, entry.id, entry.trashed_unix_ms));
    if (on_gone) on_gone(entry);
  }
  return {};
}

inline Result<std::vector<TrashEntry>> ExtentStore::in_the_way(std::string_view name,
                                                               bool replaces) {
  auto reg = inspect(name);
  if (!reg) return fail(std::move(reg).error());
  if (!replaces || reg->state == ExtentState::kNone) return std::vector<TrashEntry>{};
  return oldest_beyond(*reg, limits().kept_generations - 1);
}

// Opens the stores of one device, by location. Thread safe.
class StoreProvider {
 public:
  virtual ~StoreProvider() = default;
  // NOT_FOUND: no such pool. The store stays valid as long as the provider.
  virtual Result<ExtentStore*> open(const Location& location) = 0;
  // The number that grants name the pool by (RADOS pool id; 0 for stores without pools).
  virtual Result<std::int64_t> pool_id(const std::string& pool) = 0;
};

}  // namespace siphon
