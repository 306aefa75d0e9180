#include "adapters/rados/rados_store.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <exception>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "adapters/rados/aio_window.h"
#include "adapters/rados/parts.h"
#include "adapters/rados/pool_state.h"
#include "adapters/rados/rados_extent.h"
#include "adapters/rados/rados_internal.h"
#include "adapters/store_util.h"
#include "plugin/base/text.h"
#include "plugin/core/mutex.h"

namespace siphon {
namespace {

using rados_internal::head_object;
using rados_internal::is_decision;
using rados_internal::to_error;
using rados_internal::with_locator;

StoreLimits within_bounds(StoreLimits limits, bool whole_objects) {
  limits.part_bytes =
      std::clamp<std::uint32_t>(limits.part_bytes, 64 * kKiB, exchange::kMaxOperationBytes);
  limits.operation_bytes =
      std::clamp<std::uint32_t>(limits.operation_bytes, 4096, limits.part_bytes);
  if (whole_objects) limits.operation_bytes = limits.part_bytes;
  limits.in_order = whole_objects;
  limits.inline_max_bytes = std::min(limits.inline_max_bytes, limits.part_bytes);
  limits.small_together = kAioWindow / 2;
  return limits;
}

}  // namespace

// ---- the store: small helpers ----------------------------------------------------------------

RadosStore::RadosStore(RadosCluster& cluster, Location location, const StoreLimits& limits,
                       librados::IoCtx pool, std::unique_ptr<ObjectIo> io)
    : cluster_(cluster),
      location_(std::move(location)),
      limits_(limits),
      pool_(std::move(pool)),
      io_(std::move(io)) {
  std::uint64_t stripe = 0;
  if (limits_.in_order && pool_.pool_required_alignment2(&stripe) == 0 && stripe != 0) {
    stripe_bytes_ = stripe;
  }
}

librados::IoCtx RadosStore::context(std::string_view name) const {
  return with_locator(pool_, name);
}

std::string RadosStore::describe(std::string_view name) const {
  return "extent " + std::string(name) + " in pool " + location_.to_string();
}

Error RadosStore::no_extent(std::string_view name) const {
  return {Code::kNotFound, describe(name) + " does not exist", Side::kNone, {}};
}

std::string RadosStore::address_word(std::string_view name) const {
  return shell_word(location_.to_string() + "/" + std::string(name));
}

std::string RadosStore::rados_command(std::string_view name) const {
  return "rados -p " + shell_word(location_.pool) +
         (location_.nspace.empty() ? "" : " -N " + shell_word(location_.nspace)) +
         " --object-locator " + shell_word(name);
}

Error RadosStore::damaged(Error error, const std::string& object) const {
  if (error.code != Code::kDataLoss) return error;
  error.message += " (object " + object + ")";
  return error;
}

// Says what is in the way. Blocks for two more operations.
Error RadosStore::not_siphons(const librados::IoCtx& io, std::string_view name) const {
  Holdings holdings;
  (void)look_at_object(io, head_object(name), holdings);
  return {Code::kFailedPrecondition,
          head_object(name) + " in " + location_.to_string() + " is not Siphon's: it has " +
              holdings.to_string() + " and no register; it was not touched",
          Side::kNone,
          "choose another name, or move that object away: " + rados_command(name) + " stat " +
              shell_word(head_object(name)),
          Reason::kNotSiphons};
}

Error RadosStore::corrupt(std::string_view name) const {
  return {Code::kDataLoss, describe(name) + ": its head register does not decode", Side::kNone,
          "nothing was changed; look at it: " + rados_command(name) + " getxattr " +
              shell_word(head_object(name)) + " " + kHeadXattr +
              "; or give it up: siphon rm --corrupt-head --save FILE " + address_word(name)};
}

Result<StoredHead> RadosStore::head_of(std::string_view name, HeadRead& read) {
  if (read.result == exchange::kNotSiphons) return fail(not_siphons(read.io, name));
  if (read.result == -EUCLEAN) {
    return fail(corrupt(name));
  }
  if (read.result < 0) {
    return fail(damaged(to_error(read.result, "read the head of " + describe(name)), read.object));
  }
  return std::move(read.head);
}

Result<StoredHead> RadosStore::read_head(librados::IoCtx& io, std::string_view name) {
  HeadRead read{io, head_object(name)};
  io_->read_heads({&read, 1});
  return head_of(name, read);
}

Status RadosStore::transition(librados::IoCtx& io, std::string_view name,
                              const TransitionRequest& request) {
  const int result = io_->transition(io, head_object(name), request);
  if (result == 0) return {};
  if (is_decision(result)) return fail(transition_error(result, request.kind, name));
  if (result == exchange::kNotSiphons) return fail(not_siphons(io, name));
  if (result == -EUCLEAN) return fail(corrupt(name));
  if (result == -EBUSY) {
    return fail(Code::kAborted, describe(name) + ": others keep changing it", Side::kNone,
                "retry a little later");
  }
  return fail(damaged(to_error(result, "change the head of " + describe(name)), head_object(name)));
}

bool RadosStore::tagged() {
  std::set<std::string> applications;
  return pool_.application_list(&applications) == 0 && applications.contains("siphon");
}

// Before a byte is sent, where that can be known: an OSD's companion has the setting that its OSD
// has. An ordinary client has Ceph's default, and hears of it from the first refused write.
Status RadosStore::check_object_size(std::uint64_t bytes) {
  if (!cluster_.name().starts_with("osd.")) return {};
  auto setting = cluster_.setting("osd_max_object_size");
  std::uint64_t most = 0;
  if (!setting ||
      std::from_chars(setting->data(), setting->data() + setting->size(), most).ec != std::errc()) {
    return {};
  }
  if (bytes <= most) return {};
  return fail(
      Error{Code::kFailedPrecondition,
            "objects of " + std::to_string(bytes) + " bytes in pool " + location_.to_string() +
                ": osd_max_object_size allows " + std::to_string(most),
            Side::kNone, "ceph config set osd osd_max_object_size BYTES, or lower store.part_bytes",
            Reason::kClusterLimit});
}

Status RadosStore::check_ready(bool writable) {
  // The client's map of the pools may be old, so a tag that is missing is looked for again in a
  // new one.
  if (!tagged()) {
    SIPHON_TRY(rados_internal::refresh_map(cluster_));
    if (auto id = cluster_.pool_id(location_); !id) return fail(std::move(id).error());
    if (!tagged()) {
      return fail(Code::kFailedPrecondition,
                  "pool " + location_.pool + " is not enabled for siphon", Side::kNone,
                  "ceph osd pool application enable " + location_.pool + " siphon");
    }
  }
  return writable ? check_pool_writable(cluster_, location_) : Status{};
}

StoreIdentity RadosStore::identity() const {
  const auto fsid = cluster_.fsid();
  if (!fsid) return {};
  return {"ceph:" + *fsid + "/" + std::to_string(location_.pool_id) + "/" + location_.nspace, ""};
}

// ---- looking ---------------------------------------------------------------------------------

Result<ExtentInfo> RadosStore::stat(std::string_view name) {
  SIPHON_TRY(check_extent_name(name));
  librados::IoCtx io = context(name);
  auto head = read_head(io, name);
  if (!head) return fail(std::move(head).error());
  if (head->reg.state == ExtentState::kNone) return fail(no_extent(name));
  return info_from_register(name, head->reg);
}

Result<std::uint64_t> RadosStore::stored_bytes(std::string_view name, const PrivateId& id,
                                               const SealedHeader& header, bool is_inline) {
  librados::IoCtx io = context(name);
  std::uint64_t total_bytes = 0;
  int result = 0;
  if (is_inline) {
    librados::ObjectReadOperation operation;
    operation.stat2(&total_bytes, nullptr, nullptr);
    result = io.operate(head_object(name), &operation, nullptr);
  } else {
    result = measure_parts(io, id, header.part_bytes, total_bytes);
  }
  if (result < 0) return fail(to_error(result, "measure " + describe(name)));
  return total_bytes;
}

Status RadosStore::check_parts(const ExtentInfo& info) {
  auto there = stored_bytes(info.name, info.private_id, info.header, info.is_inline);
  if (!there) return fail(std::move(there).error());
  if (*there == info.header.extent_bytes) return {};
  return fail(parts_missing(describe(info.name), *there, info.header.extent_bytes));
}

Status RadosStore::check_kept(std::string_view name, const TrashEntry& entry) {
  if (entry.state != ExtentState::kSealed) return {};  // how long it is, only its blocks say
  const auto stored = stored_bytes(name, entry.id, entry.header, entry.is_inline);
  const bool gone = !stored && stored.error().code == Code::kNotFound;  // with its head
  if (!stored && !gone) return fail(stored.error());
  if (stored && *stored == entry.header.extent_bytes) return {};
  std::optional<std::uint64_t> whole_bytes;
  if (stored) whole_bytes = *stored;
  return fail(kept_not_whole(describe(name), entry, whole_bytes,
                             "see what is left of it: " + rados_command(name) + " get " +
                                 (entry.is_inline ? shell_word(head_object(name))
                                                  : "siphon." + to_hex(entry.id) + ".NUMBER") +
                                 " FILE",
                             address_word(name)));
}

HeadRead RadosStore::head_read(const OpenRequest& request) const {
  const std::size_t most = std::min<std::size_t>(request.prefetch.size(), limits_.inline_max_bytes);
  return {context(request.name), head_object(request.name), request.prefetch.first(most)};
}

Result<std::unique_ptr<ExtentReader>> RadosStore::reader_of(std::string_view name, HeadRead& read,
                                                            bool allow_open) {
  auto head = head_of(name, read);
  if (!head) return fail(std::move(head).error());
  if (head->reg.state == ExtentState::kNone) return fail(no_extent(name));
  ExtentInfo info = info_from_register(name, head->reg);
  if (info.header.part_bytes == 0) info.header.part_bytes = limits_.part_bytes;
  if (info.state == ExtentState::kOpen) {
    if (!allow_open) {
      return fail(Code::kFailedPrecondition, describe(name) + " is open", Side::kNone,
                  "seal it first");
    }
    const int result =
        find_parts_end(read.io, info.private_id, info.header.part_bytes, info.header.extent_bytes);
    if (result < 0) return fail(to_error(result, "measure " + describe(name)));
  }
  // A short head is left to read(), which finds out why.
  const bool whole = info.is_inline && read.got == info.header.extent_bytes;
  return std::make_unique<RadosReader>(*this, std::move(read.io), std::move(info),
                                       whole ? read.got : 0);
}

Result<std::unique_ptr<ExtentReader>> RadosStore::open(std::string_view name,
                                                       std::span<std::byte> prefetch,
                                                       bool allow_open) {
  SIPHON_TRY(check_extent_name(name));
  HeadRead read = head_read({name, prefetch});
  io_->read_heads({&read, 1});
  return reader_of(name, read, allow_open);
}

std::vector<Result<std::unique_ptr<ExtentReader>>> RadosStore::open_many(
    std::span<const OpenRequest> requests) {
  std::vector<Result<std::unique_ptr<ExtentReader>>> readers;
  std::vector<HeadRead> reads;
  std::vector<std::size_t> asked;  // the request of each read
  for (std::size_t i = 0; i < requests.size(); ++i) {
    Status named = check_extent_name(requests[i].name);
    readers.emplace_back(nullptr);
    if (!named) {
      readers.back() = fail(std::move(named).error());
      continue;
    }
    reads.push_back(head_read(requests[i]));
    asked.push_back(i);
  }
  io_->read_heads(reads);
  for (std::size_t i = 0; i < reads.size(); ++i) {
    readers[asked[i]] = reader_of(requests[asked[i]].name, reads[i], /*allow_open=*/false);
  }
  return readers;
}

namespace {

void note_part(const librados::ObjectItem& object, ExtentPage& page) {
  PrivateId id;
  std::uint64_t number = 0;
  if (!parse_part_object(object.oid, id, number)) return;
  std::vector<PartsSeen>& seen = page.parts[object.locator];
  auto it = std::ranges::find(seen, id, &PartsSeen::id);
  if (it == seen.end()) it = seen.insert(it, {id, 0});
  it->end = std::max(it->end, number + 1);
}

}  // namespace

Result<ExtentPage> RadosStore::list(std::string_view cursor, std::size_t max_names,
                                    Listing listing) try {
  if (max_names == 0) return fail(Code::kInvalidArgument, "list: max_names is 0");
  librados::ObjectCursor start = pool_.object_list_begin();
  if (!cursor.empty() && !start.from_str(std::string(cursor))) {
    return fail(Code::kInvalidArgument, "list: the cursor is not one of this store");
  }
  ExtentPage page;
  const librados::ObjectCursor end = pool_.object_list_end();
  librados::ObjectCursor until = end;
  bool any_answer = !cursor.empty();
  while (start < end && page.names.size() < max_names) {
    std::vector<librados::ObjectItem> objects;
    librados::ObjectCursor next;
    const int result =
        pool_.object_list(start, until, max_names - page.names.size(), {}, &objects, &next);
    if (result < 0) {
      // One placement group that does not answer is told of and passed over. Which one it is shows
      // when they are asked one by one. Each costs a whole timeout, so that it ends the page, and
      // when nothing answers at all the third one ends the listing.
      Error error = to_error(result, "list pool " + location_.to_string());
      if (!is_retryable(error.code)) return fail(std::move(error));
      const bool one_by_one = until < end;
      const GroupEnd group = end_of_group(start);
      until = group.end;
      if (!one_by_one && until < end) continue;
      start = until;
      if (!any_answer && page.unlisted.size() == 2) return fail(std::move(error));
      page.unlisted.push_back(std::move(error).with_context(
          "placement group " + group.name + " does not answer; the extents in it are not listed"));
      page.unlisted.back().next_step = "ceph pg " + group.name + " query; then list again";
      if (any_answer) break;
      until = end_of_group(start).end;
      continue;
    }
    any_answer = true;
    std::vector<std::string> heads;
    for (const librados::ObjectItem& object : objects) {
      // A name that no extent can have is nobody's whom we know.
      if (object.locator.empty() || !check_extent_name(object.locator)) continue;
      if (object.oid == head_object(object.locator)) {
        heads.push_back(object.locator);
      } else if (listing == Listing::kEverything) {
        note_part(object, page);
      }
    }
    start = next;
    if (until < end && !(start < until)) until = end_of_group(start).end;
    if (listing != Listing::kExtents) {
      page.names.insert(page.names.end(), heads.begin(), heads.end());
    } else {
      add_current(heads, page);
    }
  }
  if (start < end) page.next_cursor = start.to_str();
  return page;
} catch (const std::system_error& e) {
  return fail(to_error(e.code().value(), "list pool " + location_.to_string()));
} catch (const std::exception& e) {
  return fail(Code::kUnavailable, "list pool " + location_.to_string() + ": " + e.what());
}

// Where the listing leaves the share of a placement group that `at` lies in, and which group it is.
RadosStore::GroupEnd RadosStore::end_of_group(const librados::ObjectCursor& at) {
  const rados_internal::PoolGroups groups(pool_);
  const librados::ObjectCursor begin = pool_.object_list_begin(), end = pool_.object_list_end();
  for (std::size_t low = 0, high = groups.shares(); low < high;) {
    const std::size_t middle = low + (high - low) / 2;
    librados::ObjectCursor from, to;
    pool_.object_list_slice(begin, end, middle, groups.shares(), &from, &to);
    if (at < from) {
      high = middle;
    } else if (at < to) {
      return {to, groups.of_share(middle)};
    } else {
      low = middle + 1;
    }
  }
  return {end, groups.of_share(groups.shares() - 1)};
}

void RadosStore::add_current(const std::vector<std::string>& names, ExtentPage& page) {
  std::vector<HeadRead> reads;
  for (const std::string& name : names) reads.push_back({context(name), head_object(name)});
  io_->ObjectIo::read_heads(reads);  // nothing for the class to do
  for (std::size_t i = 0; i < names.size(); ++i) {
    auto head = head_of(names[i], reads[i]);
    if (head && head->reg.state == ExtentState::kNone) continue;
    if (!head) page.errors.emplace(page.names.size(), head.error());
    page.names.push_back(names[i]);
    page.infos.push_back(head ? info_from_register(names[i], head->reg) : ExtentInfo{});
  }
}

// ---- changing --------------------------------------------------------------------------------

Result<std::unique_ptr<ScratchExtent>> RadosStore::begin(std::string_view name,
                                                         const BeginOptions& options) {
  SIPHON_TRY(check_extent_name(name));
  SIPHON_TRY(check_begin(options, limits_));
  const std::uint64_t largest =
      options.extent_bytes != 0 ? options.extent_bytes : limits_.max_extent_bytes;
  SIPHON_TRY(check_object_size(std::min<std::uint64_t>(largest, limits_.part_bytes)));
  librados::IoCtx io = context(name);
  auto head = read_head(io, name);
  if (!head) return fail(std::move(head).error());
  if (head->reg.state != ExtentState::kNone &&
      (!options.replace || head->reg.current == options.private_id)) {
    return fail(transition_error(-EEXIST, Transition::kPublish, name));
  }
  const TransitionRequest request = reserve_request(options, limits_);
  SIPHON_TRY(transition(io, name, request));
  if (head->reg.generation != 0) {
    // From the reservation on the generation only grows. Before, it may have started at 0 again.
    head = read_head(io, name);
    if (!head) return fail(std::move(head).error());
  }
  return std::make_unique<RadosScratch>(*this, std::move(io), std::string(name), options,
                                        head->reg.generation);
}

HeadPut RadosStore::head_put(const InlinePut& put) const {
  const TransitionRequest request = inline_request(put.id, put.header, limits_);
  return {context(put.name), head_object(put.name), put.bytes, request, 0, put.fallback_parts};
}

Status RadosStore::finish_inline_put(const InlinePut& put, HeadPut& done) {
  if (done.result == 0) return {};
  if (done.result == -EEXIST || done.result == exchange::kNotSiphons) {
    // Ours, when an earlier call took effect and its answer was lost.
    auto head = read_head(done.io, put.name);
    if (!head && head.error().reason == Reason::kNotSiphons) return fail(std::move(head).error());
    if (head && head->reg.state != ExtentState::kNone && head->reg.current == put.id) return {};
  }
  if (is_decision(done.result)) {
    return fail(transition_error(done.result, Transition::kPublish, put.name));
  }
  return fail(to_error(done.result, "write " + describe(put.name)));
}

Status RadosStore::put_inline(std::string_view name, const PrivateId& id,
                              std::span<const std::byte> bytes, const SealedHeader& header) {
  const InlinePut put{name, id, bytes, header};
  return std::move(put_inline_many({&put, 1}).front());
}

std::vector<Status> RadosStore::put_inline_many(std::span<const InlinePut> puts) {
  std::vector<Status> ends;
  std::vector<HeadPut> heads;
  std::vector<std::size_t> asked;  // the put of each head
  for (std::size_t i = 0; i < puts.size(); ++i) {
    Status sound = check_extent_name(puts[i].name);
    if (sound) sound = check_inline(puts[i].id, puts[i].bytes.size(), puts[i].header, limits_);
    ends.push_back(std::move(sound));
    if (!ends.back()) continue;
    heads.push_back(head_put(puts[i]));
    asked.push_back(i);
  }
  io_->put_heads(heads);
  for (std::size_t i = 0; i < heads.size(); ++i) {
    ends[asked[i]] = finish_inline_put(puts[asked[i]], heads[i]);
  }
  return ends;
}

// Writes the tail over whatever is there and cuts the rest off. Each part is written and cut in
// one operation; further parts are removed.
Status RadosStore::write_tail(librados::IoCtx& io, const HeadRegister& reg,
                              std::uint64_t offset_bytes, std::span<const std::byte> tail) try {
  const std::uint32_t part_bytes = reg.header.part_bytes;
  const std::uint64_t end_bytes = offset_bytes + tail.size();
  bool whole_objects = false;
  pool_.pool_requires_alignment2(&whole_objects);
  for (std::uint64_t at = offset_bytes; at < end_bytes;) {
    const std::uint64_t part = at / part_bytes, in_part = at % part_bytes;
    const std::size_t length = std::min<std::uint64_t>(part_bytes - in_part, end_bytes - at);
    const std::string object = part_object(reg.current, part);
    librados::bufferlist data;
    if (whole_objects && in_part != 0) {  // no write at an odd offset there: the whole part again
      std::vector<std::byte> front(in_part);
      std::size_t got = 0;
      const int result = io_->read(io, object, 0, front, got);
      if (result < 0) return fail(to_error(result, "read " + describe("to seal")));
      if (got != in_part) return fail(Code::kDataLoss, "object " + object + " is too short");
      data.append(reinterpret_cast<const char*>(front.data()), static_cast<unsigned>(in_part));
    }
    data.append(reinterpret_cast<const char*>(tail.data() + (at - offset_bytes)),
                static_cast<unsigned>(length));
    librados::ObjectWriteOperation operation;
    if (whole_objects || in_part == 0) {
      operation.write_full(data);
    } else {
      operation.write(in_part, data);
      operation.truncate(in_part + length);
    }
    const int result = io.operate(object, &operation, librados::OPERATION_FULL_TRY);
    if (result < 0) return fail(to_error(result, "write object " + object));
    at += length;
  }
  return {};
} catch (const std::exception& e) {
  return fail(Code::kResourceExhausted, std::string("write the extent's tail: ") + e.what());
}

Status RadosStore::seal(std::string_view name, const ExtentInfo& seen, std::uint64_t offset_bytes,
                        std::span<const std::byte> tail, const SealedHeader& header) {
  SIPHON_TRY(check_extent_name(name));
  librados::IoCtx io = context(name);
  auto head = read_head(io, name);
  if (!head) return fail(std::move(head).error());
  const HeadRegister& reg = head->reg;
  if (reg.state == ExtentState::kNone) return fail(no_extent(name));
  SIPHON_TRY(check_seen(name, reg, seen));
  const TransitionRequest request = seal_request(seen, header, reg);
  if (reg.state == ExtentState::kSealed) {  // apply() tells a repetition from a conflict
    SIPHON_TRY(check_seal(name, offset_bytes, tail.size(), ~0ull, header));
    return transition(io, name, request);
  }
  std::uint64_t available_bytes = 0;
  const int result = find_parts_end(io, reg.current, reg.header.part_bytes, available_bytes);
  if (result < 0) return fail(to_error(result, "measure " + describe(name)));
  SIPHON_TRY(check_seal(name, offset_bytes, tail.size(), available_bytes, header));
  HeadRegister sealed = reg;  // before any byte is touched: would it be accepted?
  if (const int refused = apply(sealed, true, request); refused < 0) {
    return fail(transition_error(refused, request.kind, name));
  }
  SIPHON_TRY(write_tail(io, reg, offset_bytes, tail));
  const std::uint64_t first_behind = parts_of(header.extent_bytes, reg.header.part_bytes);
  for (std::uint64_t part = first_behind; part < parts_of(available_bytes, reg.header.part_bytes);
       ++part) {
    librados::ObjectWriteOperation operation;
    operation.remove();
    const int removed =
        io.operate(part_object(reg.current, part), &operation, librados::OPERATION_FULL_TRY);
    if (removed < 0 && removed != -ENOENT) return fail(to_error(removed, "cut " + describe(name)));
  }
  return transition(io, name, request);
}

// ---- the table -------------------------------------------------------------------------------

RadosStoreTable::RadosStoreTable(RadosCluster& cluster, const StoreLimits& limits, MakeIo make_io)
    : cluster_(cluster), limits_(limits), make_io_(std::move(make_io)) {}

Result<ExtentStore*> RadosStoreTable::open(const Location& location) {
  auto id = cluster_.pool_id(location);
  if (!id) return fail(std::move(id).error());
  Location bound = location;
  bound.pool_id = *id;
  const MutexLock lock(mutex_);
  auto& store = stores_[{*id, location.nspace}];
  // The same pool under a new name gets a new store, which says so in its messages.
  if (store && store->location() != bound) retired_.push_back(std::move(store));
  if (!store) {
    auto pool = rados_internal::open_pool(cluster_, bound);
    if (!pool) return fail(std::move(pool).error());
    bool whole_objects = false;
    const int result = pool->pool_requires_alignment2(&whole_objects);
    if (result < 0) return fail(to_error(result, "look at pool " + location.pool));
    store = std::make_unique<RadosStore>(cluster_, bound, within_bounds(limits_, whole_objects),
                                         *std::move(pool), make_io_(whole_objects));
  }
  return store.get();
}

}  // namespace siphon
