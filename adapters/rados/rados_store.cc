#include "adapters/rados/rados_store.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cerrno>
#include <charconv>
#include <exception>
#include <set>

#include "adapters/rados/aio_window.h"
#include "adapters/rados/parts.h"
#include "adapters/rados/pool_state.h"
#include "adapters/rados/rados_internal.h"
#include "adapters/store_util.h"
#include "plugin/base/text.h"

namespace siphon {
namespace {

using rados_internal::head_object;
using rados_internal::to_error;
using rados_internal::with_locator;

constexpr std::uint64_t parts_of(std::uint64_t extent_bytes, std::uint32_t part_bytes) {
  return part_bytes == 0 ? 0 : (extent_bytes + part_bytes - 1) / part_bytes;
}

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

// Whether apply() (or the class) decided so, rather than RADOS.
bool is_decision(int result) {
  return result == -EEXIST || result == -ESTALE || result == -ENOENT || result == -ECANCELED ||
         result == -EUSERS || result == -EINVAL;
}

}  // namespace

// ---- reader ----------------------------------------------------------------------------------

class RadosReader final : public ExtentReader {
 public:
  RadosReader(RadosStore& store, librados::IoCtx io, ExtentInfo info, std::size_t prefetched_bytes)
      : store_(store),
        io_(std::move(io)),
        info_(std::move(info)),
        prefetched_bytes_(prefetched_bytes) {}

  const ExtentInfo& info() const override { return info_; }
  std::size_t prefetched_bytes() const override { return prefetched_bytes_; }

  Status read(std::uint64_t offset_bytes, std::span<std::byte> out) override {
    const std::uint32_t part_bytes = info_.header.part_bytes;
    SIPHON_TRY(check_io_bounds(offset_bytes, out.size(), info_.header.extent_bytes, part_bytes,
                               store_.limits_.operation_bytes));
    if (out.empty()) return {};
    const std::uint64_t part = offset_bytes / part_bytes;
    const std::string object =
        info_.is_inline ? head_object(info_.name) : part_object(info_.private_id, part);
    std::size_t got = 0;
    const int result = store_.io_->read(
        io_, object, info_.is_inline ? offset_bytes : offset_bytes % part_bytes, out, got);
    if (result == 0 && got == out.size()) return {};
    if (result < 0 && result != -ENOENT) {
      return fail(store_.damaged(to_error(result, "read " + store_.describe(info_.name)), object));
    }
    return fail(explain_missing(object));
  }

 private:
  // Bytes that the header promises are not there: taken away behind us, or lost?
  Error explain_missing(const std::string& object) {
    auto head = store_.read_head(io_, info_.name);
    if (!head) return std::move(head).error();
    const HeadRegister& reg = head->reg;
    if (!head->present || reg.state == ExtentState::kNone || reg.current != info_.private_id) {
      return {Code::kNotFound,
              store_.describe(info_.name) + " was replaced or removed while it was read",
              Side::kNone, "look at it again, then retry"};
    }
    return {Code::kDataLoss,
            store_.describe(info_.name) + ": object " + object + " is missing or too short",
            Side::kNone, "check what is left of it: siphon verify"};
  }

  RadosStore& store_;
  librados::IoCtx io_;
  const ExtentInfo info_;
  const std::size_t prefetched_bytes_;
};

// ---- scratch ---------------------------------------------------------------------------------

class RadosScratch final : public ScratchExtent {
 public:
  RadosScratch(RadosStore& store, librados::IoCtx io, std::string name, const BeginOptions& options,
               std::uint64_t generation)
      : store_(store),
        io_(std::move(io)),
        name_(std::move(name)),
        id_(options.private_id),
        known_bytes_(options.extent_bytes),
        stop_(options.stop),
        generation_(generation) {}

  const PrivateId& private_id() const override { return id_; }
  std::uint32_t part_bytes() const override { return store_.limits_.part_bytes; }

  Status write(std::uint64_t offset_bytes, std::span<const std::byte> in) override {
    SIPHON_TRY(check_io_bounds(offset_bytes, in.size(), end_bytes(), part_bytes(),
                               store_.limits_.operation_bytes));
    if (finished_) return fail(Code::kFailedPrecondition, "write after publish or abort");
    if (in.empty()) return {};
    const std::uint64_t end = offset_bytes + in.size();
    const bool whole = offset_bytes % part_bytes() == 0 &&
                       (in.size() == part_bytes() || known_bytes_ == 0 || end == known_bytes_);
    if (store_.limits_.in_order && !whole) return write_in_order(offset_bytes, in);
    return write_object(offset_bytes, in);
  }

  Status read(std::uint64_t offset_bytes, std::span<std::byte> out) override {
    SIPHON_TRY(check_io_bounds(offset_bytes, out.size(), end_bytes(), part_bytes(),
                               store_.limits_.operation_bytes));
    if (out.empty()) return {};
    const std::string object = part_object(id_, offset_bytes / part_bytes());
    std::size_t got = 0;
    const int result = store_.io_->read(io_, object, offset_bytes % part_bytes(), out, got);
    if (result < 0 && result != -ENOENT) {
      return fail(store_.damaged(to_error(result, "read back " + store_.describe(name_)), object));
    }
    if (result < 0 || got < out.size()) return fail(scratch_is_short(name_));
    return {};
  }

  Status publish(const SealedHeader& header, bool replace, ExtentState as_state) override {
    if (as_state == ExtentState::kNone) {
      return fail(Code::kInvalidArgument, "publish as neither open nor sealed");
    }
    if (as_state == ExtentState::kSealed) SIPHON_TRY(check_length(header.extent_bytes));
    TransitionRequest request;
    request.kind = Transition::kPublish;
    request.id = id_;
    request.replace = replace;
    request.open = as_state == ExtentState::kOpen;
    request.expected_generation = generation_;
    request.header = header;
    request.header.part_bytes = part_bytes();
    if (request.open) request.header.extent_bytes = 0;  // unknown: it may grow until it is sealed
    request.now_unix_ms = now_unix_ms();
    SIPHON_TRY(store_.transition(io_, name_, request));
    finished_ = true;
    return {};
  }

  bool settled() const override { return !uncertain_; }
  Status abort() override {
    // A write that got no answer may still happen: then a trash entry stays for the collector,
    // who looks for the parts again.
    SIPHON_TRY(store_.drop(name_, id_, parts_of(written_end_, part_bytes()), uncertain_));
    finished_ = true;
    return {};
  }

 private:
  Status write_object(std::uint64_t offset_bytes, std::span<const std::byte> in) {
    const std::uint64_t part = offset_bytes / part_bytes();
    const std::uint64_t part_start = part * part_bytes();
    const std::string object = part_object(id_, part);
    raise_end(offset_bytes + in.size());
    const int result =
        store_.io_->write(io_, object, offset_bytes - part_start, in,
                          std::min<std::uint64_t>(part_bytes(), end_bytes() - part_start), stop_);
    if (result == 0) return {};
    if (result == -EINTR && stop_.stop_requested()) {
      return fail(Code::kCancelled, "write " + store_.describe(name_) + ": cancelled");
    }
    if (result == -ETIMEDOUT) uncertain_ = true;
    if (result == -EBADMSG) {
      return fail(Code::kDataLoss,
                  "write " + store_.describe(name_) +
                      ": the bytes changed in memory after they were verified",
                  Side::kTarget, "retry; if it happens again, test that host's memory");
    }
    return fail(store_.damaged(to_error(result, "write " + store_.describe(name_)), object));
  }

  // Where a pool takes whole stripes at an object's end only: what is less waits for the next
  // piece. A part's last append may be of any length.
  Status write_in_order(std::uint64_t offset_bytes, std::span<const std::byte> in) {
    const std::lock_guard lock(order_mutex_);
    const std::uint64_t in_part = offset_bytes % part_bytes();
    if (in_part == 0) rest_.clear();
    if (in_part != 0 && offset_bytes != next_bytes_) {
      return fail(Code::kFailedPrecondition,
                  "write " + store_.describe(name_) + ": the pool takes no overwrites, and byte " +
                      std::to_string(offset_bytes) + " came when " + std::to_string(next_bytes_) +
                      " was due",
                  Side::kTarget,
                  "ceph osd pool set " + store_.location_.pool +
                      " allow_ec_overwrites true, or use another pool");
    }
    const std::uint64_t end = offset_bytes + in.size();
    const std::uint64_t start = offset_bytes - rest_.size();
    const bool last = end % part_bytes() == 0 || end == known_bytes_;
    const std::uint64_t stripe = store_.stripe_bytes_;
    const std::size_t now = last ? end - start : (end - start) / stripe * stripe;
    std::span<const std::byte> out = in;
    std::vector<std::byte> joined;
    if (!rest_.empty()) {
      joined.reserve(rest_.size() + in.size());
      joined.insert(joined.end(), rest_.begin(), rest_.end());
      joined.insert(joined.end(), in.begin(), in.end());
      out = joined;
    }
    if (now > 0) SIPHON_TRY(write_object(start, out.first(now)));
    const std::span<const std::byte> left = out.subspan(now);
    rest_ = std::vector<std::byte>(left.begin(), left.end());
    next_bytes_ = end;
    return {};
  }

  std::uint64_t end_bytes() const {
    return known_bytes_ != 0 ? known_bytes_ : store_.limits_.max_extent_bytes;
  }
  void raise_end(std::uint64_t end_bytes) {
    std::uint64_t seen = written_end_;
    while (seen < end_bytes && !written_end_.compare_exchange_weak(seen, end_bytes)) {
    }
  }
  // That what is there ends where the header says. Asks the parts only when this attempt did not
  // write up to there itself (a resumed one).
  Status check_length(std::uint64_t extent_bytes) {
    if (written_end_ == extent_bytes) return {};
    std::uint64_t total_bytes = 0;
    const int result = measure_parts(io_, id_, part_bytes(), total_bytes);
    if (result < 0) return fail(to_error(result, "measure " + store_.describe(name_)));
    if (total_bytes == extent_bytes) return {};
    auto head = store_.read_head(io_, name_);
    if (!head) return fail(std::move(head).error());
    const auto is_ours = [this](const Reservation& entry) { return entry.id == id_; };
    if (std::ranges::none_of(head->reg.reservations, is_ours)) {
      return fail(transition_error(-ECANCELED, Transition::kPublish, name_));
    }
    return fail(Code::kFailedPrecondition, "publish " + name_ + ": " + std::to_string(total_bytes) +
                                               " of " + std::to_string(extent_bytes) +
                                               " bytes were written");
  }

  RadosStore& store_;
  librados::IoCtx io_;
  const std::string name_;
  const PrivateId id_;
  const std::uint64_t known_bytes_;  // 0: unknown
  const std::stop_token stop_;
  const std::uint64_t generation_;  // what begin saw
  std::atomic<std::uint64_t> written_end_{0};
  std::mutex order_mutex_;  // guards the two below
  std::uint64_t next_bytes_ = 0;
  std::vector<std::byte> rest_;  // before next_bytes_, less than a stripe, not written yet
  std::atomic<bool> uncertain_{false};
  std::atomic<bool> finished_{false};
};

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

namespace {

Error no_extent(const std::string& description) {
  return {Code::kNotFound, description + " does not exist", Side::kNone, {}};
}

}  // namespace

Result<ExtentInfo> RadosStore::stat(std::string_view name) {
  SIPHON_TRY(check_extent_name(name));
  librados::IoCtx io = context(name);
  auto head = read_head(io, name);
  if (!head) return fail(std::move(head).error());
  if (head->reg.state == ExtentState::kNone) return fail(no_extent(describe(name)));
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
  if (head->reg.state == ExtentState::kNone) return fail(no_extent(describe(name)));
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
  TransitionRequest request;
  request.kind = Transition::kPublish;
  request.id = put.id;
  request.is_inline = true;
  request.expected_generation = TransitionRequest::kAnyGeneration;
  request.header = put.header;
  request.header.part_bytes = limits_.part_bytes;
  request.now_unix_ms = now_unix_ms();
  return {context(put.name), head_object(put.name), put.bytes, request, 0, put.fallback_parts};
}

Status RadosStore::end_of(const InlinePut& put, HeadPut& done) {
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
    ends[asked[i]] = end_of(puts[asked[i]], heads[i]);
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
  if (reg.state == ExtentState::kNone) return fail(no_extent(describe(name)));
  SIPHON_TRY(check_seen(name, reg, seen));
  TransitionRequest request;
  request.kind = Transition::kSeal;
  request.id = seen.private_id;
  request.expected_generation = seen.generation;
  request.header = header;
  request.header.part_bytes = reg.header.part_bytes;
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

Status RadosStore::trash(std::string_view name, const ExtentInfo& seen) {
  SIPHON_TRY(check_extent_name(name));
  librados::IoCtx io = context(name);
  auto head = read_head(io, name);
  if (!head) return fail(std::move(head).error());
  if (head->reg.state == ExtentState::kNone) return fail(no_extent(describe(name)));
  SIPHON_TRY(check_seen(name, head->reg, seen));
  TransitionRequest request;
  request.kind = Transition::kCondemn;
  request.id = seen.private_id;
  request.expected_generation = seen.generation;
  request.now_unix_ms = now_unix_ms();
  return transition(io, name, request);
}

// Looks again before anybody goes on to what cannot be undone: the class of an older build answers
// 0 for whatever is in the trash. An attempt that is condemned once stays that.
Status RadosStore::condemn_attempt(librados::IoCtx& io, std::string_view name, const PrivateId& id,
                                   const HeadRegister& seen) {
  TransitionRequest request;
  request.kind = Transition::kCondemn;
  request.id = id;
  request.now_unix_ms = now_unix_ms();
  request.expected_generation = seen.generation;  // refuses what was published just now
  Status condemned = transition(io, name, request);
  auto head = read_head(io, name);
  if (!head) return fail(std::move(head).error());
  SIPHON_TRY(check_removal(head->reg, id, std::nullopt, describe(name)));
  return condemned;
}

Status RadosStore::drop(std::string_view name, const PrivateId& id, std::uint64_t at_least,
                        bool keep_entry, std::optional<std::uint64_t> trashed_unix_ms) {
  librados::IoCtx io = context(name);
  auto head = read_head(io, name);
  if (!head && head.error().reason == Reason::kNotSiphons) {
    head = StoredHead{};  // the parts of a private id are ours all the same
  }
  if (!head) return fail(std::move(head).error());
  const HeadRegister& reg = head->reg;
  SIPHON_TRY(check_removal(reg, id, trashed_unix_ms, describe(name)));
  TransitionRequest request;
  request.id = id;
  request.now_unix_ms = now_unix_ms();
  // Without a trace of it, and without a size, the parts are looked for.
  bool in_register = false, is_inline = false;
  bool look_further = false;
  std::uint64_t known_parts = 0;
  for (const Reservation& entry : reg.reservations) {
    if (entry.id != id) continue;
    in_register = true;
    known_parts = believable_parts(entry.extent_bytes, entry.part_bytes, limits_.max_extent_bytes,
                                   look_further);
    SIPHON_TRY(condemn_attempt(io, name, id, reg));
  }
  for (const TrashEntry& entry : reg.trash) {
    if (entry.id != id) continue;
    in_register = true;
    is_inline = entry.is_inline;
    known_parts = believable_parts(entry.header.extent_bytes, entry.header.part_bytes,
                                   limits_.max_extent_bytes, look_further);
    if (!entry.was_published) continue;
    request.kind = Transition::kDiscard;           // from here on no restore brings it back
    request.expected_generation = reg.generation;  // refuses if it was restored just now
    SIPHON_TRY(transition(io, name, request));
  }
  if (!is_inline) {
    const int result =
        remove_parts(io, id, std::max(known_parts, at_least), look_further || known_parts == 0);
    if (result < 0) return fail(to_error(result, "remove what is left of " + describe(name)));
  }
  if (!in_register || keep_entry) return {};
  request.kind = Transition::kForget;
  return transition(io, name, request);
}

Status RadosStore::collect(std::string_view name, const PrivateId& id) {
  SIPHON_TRY(check_extent_name(name));
  return drop(name, id, 0, false);
}

Status RadosStore::purge(std::string_view name, const PrivateId& id,
                         std::uint64_t trashed_unix_ms) {
  SIPHON_TRY(check_extent_name(name));
  return drop(name, id, 0, false, trashed_unix_ms);
}

// The register decides, whatever still is on its way to the OSD: with a reservation in the head an
// exclusive create of it fails, and with the id condemned a publish does.
Status RadosStore::fence(std::string_view name, const PrivateId& id) {
  SIPHON_TRY(check_extent_name(name));
  librados::IoCtx io = context(name);
  TransitionRequest request;
  request.kind = Transition::kReserve;
  request.id = id;
  request.header.part_bytes = limits_.part_bytes;
  request.now_unix_ms = now_unix_ms();
  request.lease_unix_ms = request.now_unix_ms;
  const int reserved = io_->transition(io, head_object(name), request);
  const bool in_trash = reserved == -ECANCELED;
  if (reserved < 0 && is_decision(reserved) && !in_trash) {
    return fail(transition_error(reserved, request.kind, name));
  }
  if (reserved < 0 && !in_trash) {
    return fail(to_error(reserved, "change the head of " + describe(name)));
  }
  auto head = read_head(io, name);
  if (!head) return fail(std::move(head).error());
  SIPHON_TRY(check_removal(head->reg, id, std::nullopt, describe(name)));
  if (in_trash) return {};  // condemned already
  return condemn_attempt(io, name, id, head->reg);
}

Result<HeadRegister> RadosStore::inspect(std::string_view name) {
  SIPHON_TRY(check_extent_name(name));
  librados::IoCtx io = context(name);
  auto head = read_head(io, name);
  if (!head) return fail(std::move(head).error());
  return std::move(head->reg);
}

Result<std::optional<UnnamedParts>> RadosStore::find_unnamed(std::string_view name,
                                                             const PartsSeen& seen) try {
  SIPHON_TRY(check_extent_name(name));
  librados::IoCtx io = context(name);
  auto head = read_head(io, name);
  if (!head) return fail(std::move(head).error());
  if (names_id(head->reg, seen.id)) return std::nullopt;
  UnnamedParts found;
  found.has_head = head->present;
  bool any = false;
  for (std::uint64_t next = 0; next < seen.end; next += kAioWindow) {
    const auto count =
        static_cast<std::size_t>(std::min<std::uint64_t>(kAioWindow, seen.end - next));
    std::array<int, kAioWindow> results{};
    std::array<std::uint64_t, kAioWindow> sizes{};
    std::array<timespec, kAioWindow> times{};
    run_window(count, results, [&](std::size_t i, librados::AioCompletion* completion) {
      librados::ObjectReadOperation operation;
      operation.stat2(&sizes[i], &times[i], nullptr);
      return io.aio_operate(part_object(seen.id, next + i), completion, &operation, nullptr);
    });
    for (std::size_t i = 0; i < count; ++i) {
      if (results[i] == -ENOENT) continue;
      if (results[i] < 0) return fail(to_error(results[i], "look at parts of " + describe(name)));
      any = true;
      found.bytes += sizes[i];
      found.written_unix_ms =
          std::max(found.written_unix_ms, static_cast<std::uint64_t>(times[i].tv_sec) * 1000);
    }
  }
  if (!any) return std::nullopt;
  return found;
} catch (const std::exception& e) {
  return fail(Code::kUnavailable, "look at parts of " + describe(name) + ": " + e.what());
}

// A private id is reserved in the head before its first part exists, and never twice: one that the
// head does not name has ended, and no attempt comes back to it.
Status RadosStore::remove_unnamed(std::string_view name, const PartsSeen& seen) {
  SIPHON_TRY(check_extent_name(name));
  librados::IoCtx io = context(name);
  auto head = read_head(io, name);
  if (!head) return fail(std::move(head).error());
  if (names_id(head->reg, seen.id)) {
    return fail(Code::kFailedPrecondition,
                describe(name) + ": its head names private id " + to_hex(seen.id) +
                    " now; nothing was removed",
                Side::kNone, "look again: siphon scratch ls");
  }
  const int result = remove_parts(io, seen.id, seen.end, false);
  if (result < 0) return fail(to_error(result, "remove what is left of " + describe(name)));
  return {};
}

Status RadosStore::restore(std::string_view name, const PrivateId& id) {
  SIPHON_TRY(check_extent_name(name));
  librados::IoCtx io = context(name);
  auto head = read_head(io, name);
  if (!head) return fail(std::move(head).error());
  for (const TrashEntry& entry : head->reg.trash) {
    if (entry.id != id || !entry.was_published || !entry.is_inline ||
        entry.state != ExtentState::kNone) {
      continue;
    }
    return fail(Code::kFailedPrecondition,
                describe(name) +
                    ": an older version of Siphon put it into the trash without its header, and "
                    "it lies in its head alone: it cannot be made current again",
                Side::kNone,
                "its bytes are still there: " + rados_command(name) + " get " +
                    shell_word(head_object(name)) + " FILE");
  }
  return transition(io, name, restore_request(head->reg, id));
}

// ---- a register that does not decode ---------------------------------------------------------

Result<CorruptHead> RadosStore::corrupt_head(std::string_view name) try {
  SIPHON_TRY(check_extent_name(name));
  librados::IoCtx io = context(name);
  HeadRead read{io, head_object(name)};
  io_->ObjectIo::read_heads({&read, 1});
  if (read.result != -EUCLEAN) {
    auto head = head_of(name, read);
    if (!head) return fail(std::move(head).error());
    return head->present ? fail(register_in_order(name)) : fail(no_extent(describe(name)));
  }
  const auto bytes_of = [](librados::bufferlist& list) {
    const auto bytes = std::as_bytes(std::span<const char>(list.c_str(), list.length()));
    return std::vector<std::byte>(bytes.begin(), bytes.end());
  };
  librados::bufferlist reg, data;
  librados::ObjectReadOperation operation;
  operation.getxattr(kHeadXattr, &reg, nullptr);
  operation.read(0, exchange::kMaxOperationBytes, &data, nullptr);
  const int result = io.operate(head_object(name), &operation, nullptr);
  if (result < 0) return fail(to_error(result, "read the head of " + describe(name)));
  return CorruptHead{bytes_of(reg), bytes_of(data),
                     "its parts, if it had any, stay in the pool as siphon.ID.NUMBER with the "
                     "locator key " +
                         std::string(name) +
                         "; ID is bytes 16 to 31 of the register, where those are sound"};
} catch (const std::exception& e) {
  return fail(Code::kResourceExhausted, "read the head of " + describe(name) + ": " + e.what());
}

// Guarded by the object's version: what was seen is what goes. Attributes and omap entries of
// somebody else's keep the object.
Status RadosStore::remove_corrupt_head(std::string_view name, const CorruptHead& seen) try {
  SIPHON_TRY(check_extent_name(name));
  librados::IoCtx io = context(name);
  Holdings holdings;
  const int looked = look_at_object(io, head_object(name), holdings);
  if (looked < 0) return fail(to_error(looked, "look at the head of " + describe(name)));
  auto there = corrupt_head(name);
  if (!there) return fail(std::move(there).error());
  if (*there != seen) return fail(transition_error(-ESTALE, Transition::kForget, name));
  librados::ObjectWriteOperation operation;
  operation.assert_version(holdings.version);
  if (holdings.attributes || holdings.omap) {
    operation.rmxattr(kHeadXattr);
  } else {
    operation.remove();
  }
  const int result = io.operate(head_object(name), &operation, librados::OPERATION_FULL_TRY);
  if (result == -ERANGE || result == -EOVERFLOW || result == -ENOENT) {
    return fail(transition_error(-ESTALE, Transition::kForget, name));
  }
  if (result < 0) return fail(to_error(result, "remove the head of " + describe(name)));
  return {};
} catch (const std::exception& e) {
  return fail(Code::kResourceExhausted, "remove the head of " + describe(name) + ": " + e.what());
}

Result<std::size_t> RadosStore::purge_trash(std::string_view name) {
  SIPHON_TRY(check_extent_name(name));
  librados::IoCtx io = context(name);
  auto head = read_head(io, name);
  if (!head) return fail(std::move(head).error());
  const std::vector<Purgeable> all = purgeable(head->reg, now_unix_ms());
  for (const Purgeable& p : all) SIPHON_TRY(drop(name, p.id, 0, false, p.trashed_unix_ms));
  return all.size();
}

// ---- the table -------------------------------------------------------------------------------

RadosStoreTable::RadosStoreTable(RadosCluster& cluster, const StoreLimits& limits, MakeIo make_io)
    : cluster_(cluster), limits_(limits), make_io_(std::move(make_io)) {}

Result<ExtentStore*> RadosStoreTable::open(const Location& location) {
  auto id = cluster_.pool_id(location);
  if (!id) return fail(std::move(id).error());
  Location bound = location;
  bound.pool_id = *id;
  std::lock_guard lock(mutex_);
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
