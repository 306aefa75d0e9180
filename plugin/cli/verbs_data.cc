// put, get, seal, rm.
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "adapters/store_util.h"
#include "plugin/base/text.h"
#include "plugin/cli/commands.h"
#include "plugin/cli/devices.h"
#include "plugin/cli/extent_io.h"
#include "plugin/cli/local_file.h"
#include "plugin/cli/verbs.h"

namespace siphon::cli {
namespace {

IoControl control_of(Session& session, std::uint64_t total_bytes) {
  IoControl control;
  control.stop = &session.stop();
  control.progress = [&session, total_bytes](std::uint64_t done_bytes) {
    ProgressState state;
    state.done_bytes = done_bytes;
    state.total_bytes = total_bytes;
    session.meter().update(state);
  };
  return control;
}

std::string speed(std::uint64_t bytes, std::chrono::steady_clock::time_point since) {
  return pace_text(bytes,
                   std::chrono::duration<double>(std::chrono::steady_clock::now() - since).count());
}

// What was announced of the content with --expect-bytes and --expect-sha256, and what came.
class Expectation {
 public:
  static Result<Expectation> from(const Options& options) {
    Expectation e;
    if (!options.expect_bytes.empty()) e.bytes_ = std::stoull(options.expect_bytes);
    if (!options.expect_sha256.empty()) {
      if (!from_hex(options.expect_sha256, e.sha256_.emplace())) {
        return fail(Code::kInvalidArgument, "--expect-sha256 wants 64 hex digits", Side::kRequester,
                    "sha256sum FILE");
      }
      e.hash_.emplace();
    }
    return e;
  }
  // The next bytes; none: the end.
  Status take(std::span<const std::byte> bytes) {
    seen_bytes_ += bytes.size();
    if (hash_) hash_->update(bytes);
    if (bytes_ && seen_bytes_ > *bytes_) {
      return wrong(Code::kDataLoss, fmt::format("there is more than the {} that were announced",
                                                counted(*bytes_, "byte")));
    }
    if (!bytes.empty()) return {};
    if (bytes_ && seen_bytes_ < *bytes_) {
      return fail(Error{Code::kAborted,
                        fmt::format("it ended after {} of the {} that were announced", seen_bytes_,
                                    counted(*bytes_, "byte")),
                        Side::kRequester,
                        "nothing was published: see why what writes it ended, and put it again",
                        Reason::kSourceChanged});
    }
    if (!hash_) return {};
    const Sha256 got = hash_->finish();
    if (got == *sha256_) return {};
    return wrong(Code::kDataLoss,
                 fmt::format("its SHA-256 is {}, announced was {}", to_hex(got), to_hex(*sha256_)));
  }
  bool any() const { return bytes_ || sha256_; }
  // All of a regular file: its size, and its content only where a SHA-256 was announced.
  Status check(InputFile& file) {
    if (!any()) return {};
    if (!hash_) {
      seen_bytes_ = *file.size_bytes();
      return take({});
    }
    std::vector<std::byte> buffer(kMaxBlockBytes);
    while (true) {
      auto got = file.read(buffer);
      if (!got) return fail(std::move(got).error());
      SIPHON_TRY(take(std::span(buffer).first(*got)));
      if (*got == 0) return {};
    }
  }

 private:
  static Status wrong(Code code, const std::string& what) {
    return fail(code, what, Side::kRequester,
                "nothing was published: compare what was announced with the content");
  }
  std::optional<std::uint64_t> bytes_;
  std::optional<Sha256> sha256_;
  std::optional<Sha256Stream> hash_;
  std::uint64_t seen_bytes_ = 0;
};

// What can be known beforehand of a put. A regular file is read, where a checksum was announced; a
// stream would be used up.
Result<int> plan_put(Session& session, ExtentStore& store, const Address& address, InputFile& file,
                     Expectation& expectation) {
  SIPHON_TRY(store.check_ready(true));
  auto there = store.stat(address.extent);
  if (!there && there.error().code != Code::kNotFound) return fail(there.error());
  if (there && !session.options().replace) {
    return fail(Code::kAlreadyExists, "extent " + address.to_string() + " already exists",
                Side::kRequester, "choose another name, or add --replace");
  }
  const bool readable = file.size_bytes().has_value();
  if (readable && *file.size_bytes() > store.limits().max_extent_bytes) {
    return fail(
        Code::kResourceExhausted,
        fmt::format("{} has more than the {} that an extent may have", session.options().file,
                    counted(store.limits().max_extent_bytes, "byte")),
        Side::kRequester, "put it in pieces");
  }
  if (readable) SIPHON_TRY(expectation.check(file));
  const bool unchecked = !readable && expectation.any();
  auto gone = store.in_the_way(address.extent, session.options().replace);
  if (!gone) return fail(std::move(gone).error());
  Json doc = session.out().new_document();
  doc["dry_run"] = true;
  doc["extent"] = address.to_string();
  doc["content_bytes"] = readable ? Json(*file.size_bytes()) : Json();
  doc["expectation_checked"] = expectation.any() ? Json(readable) : Json();
  doc["replaces"] = there ? to_json(*there) : Json();
  doc["left_for_good"] = gone_json(*gone);
  if (session.out().json()) session.out().document(std::move(doc), Exit::kOk);
  session.out().line(
      fmt::format("would put {} to {}{}; nothing was changed",
                  file.size_bytes() ? human_bytes(*file.size_bytes()) : std::string("a stream"),
                  address.to_string(), there ? ", replacing what is there" : ""));
  for (const TrashEntry& entry : *gone) session.out().line(gone_text(entry, true));
  if (unchecked) {
    session.out().line("what was announced of it was not checked: a stream is read only once");
  }
  return 0;
}

// Reads the file once more: whether its blocks are still these.
Status read_again(InputFile& file, std::span<const IndexEntry> blocks, const std::string& path) {
  SIPHON_TRY(file.rewind());
  std::vector<std::byte> buffer;
  const auto fill = [&](std::size_t bytes) -> Result<std::size_t> {
    buffer.resize(bytes);
    std::size_t filled = 0;
    while (filled < bytes) {
      auto got = file.read(std::span(buffer).subspan(filled));
      if (!got) return fail(std::move(got).error());
      if (*got == 0) break;
      filled += *got;
    }
    return filled;
  };
  for (const IndexEntry& block : blocks) {
    auto got = fill(block.length_bytes);
    if (!got) return fail(std::move(got).error());
    if (*got != block.length_bytes || sha256(buffer) != block.sha256) {
      return fail(source_changed(path +
                                 " changed while it was read: its content is another, though "
                                 "its size and time are the same"));
    }
  }
  return {};
}

// Whether what was read is what the file held all the time.
Status check_unchanged(InputFile& file, std::span<const IndexEntry> blocks,
                       const std::string& path) {
  auto changed = file.changed();
  if (changed.change == InputFile::Change::kMaybe) {
    SIPHON_TRY(read_again(file, blocks, path));  // a mere rename is no change
    changed = file.changed();
  }
  if (changed.change == InputFile::Change::kContent) return fail(std::move(changed.error));
  return {};
}

struct Removal {
  Address address;
  ExtentInfo info;
  bool only_trash = false;
  std::size_t purged = 0;        // generations that left for good, or would
  std::vector<TrashEntry> gone;  // left the trash, to make room
};

constexpr std::size_t kRemoveThreads = 8;
constexpr std::size_t kToldTogether = 500;  // removals: what they came to is told so many at a time

Status nothing_of_that_name() {
  return fail(Code::kNotFound, "there is neither an extent nor trash of that name");
}

// Each of them once, however often it is named: the second removal would find nothing.
Result<std::vector<Address>> named_extents(const std::vector<std::string>& names) {
  std::vector<Address> addresses;
  std::set<std::string> seen;
  for (const std::string& name : names) {
    auto address = parse_address(name, Want::kExtent);
    if (!address) return fail(std::move(address).error());
    Address comparable = *address;
    std::error_code failed;  // a folder that is not there has no other spelling that is
    if (address->where == Where::kFolder) {
      const auto real = std::filesystem::weakly_canonical(address->dir, failed);
      if (!failed) comparable.dir = real.string();
    }
    if (seen.insert(comparable.to_string()).second) addresses.push_back(std::move(*address));
  }
  return addresses;
}

Status remove_one(Session& session, Removal& removal) {
  auto store = session.store(removal.address);
  if (!store) return fail(std::move(store).error());
  auto info = (*store)->stat(removal.address.extent);
  removal.only_trash = !info && info.error().code == Code::kNotFound && session.options().purge;
  if (!info && !removal.only_trash) return fail(std::move(info).error());
  if (info) removal.info = *info;
  const bool purge = session.options().purge;
  std::size_t generations = removal.only_trash ? 0 : 1;
  if (purge) {  // all of its trash goes: that is what was asked for
    const auto reg = (*store)->inspect(removal.address.extent);
    if (!reg) return fail(reg.error());
    generations += std::ranges::count_if(reg->trash, &TrashEntry::was_published);
    if (removal.only_trash && purgeable(*reg, now_unix_ms()).empty()) return nothing_of_that_name();
  }
  if (session.options().dry_run) {
    if (purge) {
      removal.purged = generations;
      return {};
    }
    auto gone = (*store)->in_the_way(removal.address.extent, true);
    if (!gone) return fail(std::move(gone).error());
    removal.purged = gone->size();
    removal.gone = std::move(*gone);
    return {};
  }
  if (!removal.only_trash) {
    // Where so much is kept that the trash is full, the oldest of it leaves first.
    const auto on_gone = [&](const TrashEntry& entry) {
      if (purge) return;
      ++removal.purged;
      removal.gone.push_back(entry);
    };
    SIPHON_TRY((*store)->make_room(removal.address.extent, true, on_gone));
    SIPHON_TRY((*store)->trash(removal.address.extent, removal.info));
    if (!purge) (void)(*store)->trim_trash(removal.address.extent, on_gone);  // the next one tries
  }
  if (purge) {
    auto purged = (*store)->purge_trash(removal.address.extent);
    if (!purged) return fail(std::move(purged).error());
    if (removal.only_trash && *purged == 0) return nothing_of_that_name();
    removal.purged = generations;
  }
  return {};
}

std::string removal_text(const Removal& removal, const Options& options) {
  const std::string name = removal.address.to_string();
  if (options.purge) {
    return fmt::format("{} {} ({})",
                       options.dry_run ? "would remove for good" : "removed for good:", name,
                       counted(removal.purged, "generation"));
  }
  return (options.dry_run ? "would move to the trash " : "in the trash: ") + name;
}

}  // namespace

Result<int> run_put(Session& session) {
  const Options& options = session.options();
  auto address = parse_address(options.names.at(0), Want::kExtent);
  if (!address) return fail(std::move(address).error());
  if (options.file == "-" && !options.origins.contains("FILE") && ::isatty(STDIN_FILENO)) {
    return fail(Code::kInvalidArgument, "standard input is a terminal", Side::kRequester,
                "name a file, or '-' to type the content");
  }
  if (options.replace) {
    if (const auto refused = session.refused("replacing an extent")) return *refused;
  }
  auto expectation = Expectation::from(options);
  if (!expectation) return fail(std::move(expectation).error());
  auto file = InputFile::open(options.file);
  if (!file) return fail(std::move(file).error());
  // What a folder makes of it may be read and written by nobody who may not do that to the file.
  if (const auto mode = file->mode()) ::umask(::umask(0) | (~(*mode | 0600) & 0666));
  auto store = session.store(*address);
  if (!store) return fail(std::move(store).error());
  if (options.dry_run) return plan_put(session, **store, *address, *file, *expectation);
  if (Status ready = (*store)->check_ready(true); !ready) {
    if (ready.error().code != Code::kFailedPrecondition) return fail(std::move(ready).error());
    return session.out().error(ready.error(), Exit::kNotFit);
  }

  const auto start = std::chrono::steady_clock::now();
  std::vector<TrashEntry> gone;
  PutRequest request{options.block_size, options.open, options.replace, {}, {}};
  request.on_gone = [&](const TrashEntry& entry) { gone.push_back(entry); };
  if (!options.allow_changing) {
    request.before_publish = [&](std::span<const IndexEntry> blocks) {
      return check_unchanged(*file, blocks, options.file == "-" ? "standard input" : options.file);
    };
  }
  const auto read = [&](std::span<std::byte> out) -> Result<std::size_t> {
    auto got = file->read(out);
    if (got) SIPHON_TRY(expectation->take(out.first(*got)));
    return got;
  };
  auto info = put_extent(**store, address->extent, read, request,
                         control_of(session, file->size_bytes().value_or(0)));
  session.meter().finish(info.has_value());
  for (const TrashEntry& entry : gone) {
    session.meter().note("siphon: " + address->to_string() + ": " + gone_text(entry));
  }
  if (!info) return fail(std::move(info).error());
  if (session.out().json()) {
    Json doc = session.out().new_document();
    doc["extent"] = address->to_string();
    doc["info"] = to_json(*info);
    doc["left_for_good"] = gone_json(gone);
    session.out().document(std::move(doc), Exit::kOk);
  }
  if (info->state == ExtentState::kSealed) {
    session.out().line(fmt::format(
        "{}: {} in {}, crc32 {}, sealed ({})", address->to_string(),
        human_bytes(info->header.content_bytes), counted(info->header.block_count, "block"),
        crc32_hex(info->header.crc32), speed(info->header.extent_bytes, start)));
  } else {
    session.out().line(address->to_string() + ": left open; seal it with: " +
                       session.command("seal " + shell_word(address->to_string())));
  }
  return 0;
}

Result<int> run_get(Session& session) {
  const Options& options = session.options();
  auto address = parse_address(options.names.at(0), Want::kExtent);
  if (!address) return fail(std::move(address).error());
  const bool to_stdout = options.file == "-";
  if (to_stdout && !options.origins.contains("FILE") && ::isatty(STDOUT_FILENO)) {
    return fail(Code::kInvalidArgument, "standard output is a terminal", Side::kRequester,
                "name a file, or '-' to have the content here");
  }
  if (to_stdout) session.out().data_on_stdout();
  auto store = session.store(*address);
  if (!store) return fail(std::move(store).error());
  auto there = (*store)->stat(address->extent);
  if (!there) return fail(std::move(there).error());
  auto file = OutputFile::open(options.file, options.force);
  if (!file) return fail(std::move(file).error());
  session.note_temporary(file->temporary());

  const auto start = std::chrono::steady_clock::now();
  auto info = get_extent(
      **store, address->extent,
      [&](std::span<const std::byte> bytes) { return file->write(bytes); },
      control_of(session, there->header.extent_bytes));
  session.meter().finish(info.has_value());
  if (!info) return fail(std::move(info).error());
  SIPHON_TRY(file->commit());
  session.note_temporary("");
  if (session.out().json()) {
    Json doc = session.out().new_document();
    doc["extent"] = address->to_string();
    doc["file"] = options.file;
    doc["info"] = to_json(*info);
    session.out().document(std::move(doc), Exit::kOk);
  }
  if (!to_stdout) {
    session.out().line(fmt::format(
        "{}: {} in {}, all verified, crc32 {} ({})", options.file,
        human_bytes(info->header.content_bytes), counted(info->header.block_count, "block"),
        crc32_hex(info->header.crc32), speed(info->header.extent_bytes, start)));
  }
  return 0;
}

Result<int> run_seal(Session& session) {
  const Options& options = session.options();
  auto address = parse_address(options.names.at(0), Want::kExtent);
  if (!address) return fail(std::move(address).error());
  auto store = session.store(*address);
  if (!store) return fail(std::move(store).error());
  auto plan = plan_seal(**store, address->extent, control_of(session, 0));
  session.meter().finish(false);
  if (!plan && plan.error().code == Code::kAlreadyExists) {
    return session.out().error(plan.error(), Exit::kNothingToDo);
  }
  if (!plan) return fail(std::move(plan).error());
  if (plan->is_damaged()) {
    if (!options.drop_damaged) {
      Error error = seal_is_refused(address->extent, *plan);
      error.next_step =
          session.command("seal --drop-damaged --dry-run " + shell_word(address->to_string()));
      return fail(std::move(error));
    }
    const auto refused = session.refused(fmt::format("cutting {} off {}, {} of which are sound,",
                                                     counted(plan->dropped_bytes, "byte"),
                                                     address->to_string(), plan->behind.bytes));
    if (refused) return *refused;
  }
  if (!options.dry_run) {
    if (session.interrupted()) return fail(Session::interrupted_error("interrupted"));
    SIPHON_TRY(seal_extent(**store, address->extent, *plan));
  }
  if (session.out().json()) {
    Json doc = session.out().new_document();
    doc["dry_run"] = options.dry_run;
    doc["extent"] = address->to_string();
    doc["dropped_bytes"] = plan->dropped_bytes;
    doc["dropped_sound_bytes"] = plan->behind.bytes;
    doc["header"] = to_json(plan->header);
    session.out().document(std::move(doc), Exit::kOk);
  }
  session.out().line(fmt::format(
      "{}{}: {}, {}, crc32 {}, {} of {} dropped", options.dry_run ? "would seal " : "sealed ",
      address->to_string(), counted(plan->header.block_count, "block"),
      human_bytes(plan->header.content_bytes), crc32_hex(plan->header.crc32),
      plan->is_damaged() ? "damaged rest" : "torn tail", counted(plan->dropped_bytes, "byte")));
  return 0;
}

namespace {

// The record of what goes, on the disk before it goes.
Status save_new(const std::string& path, std::span<const std::byte> bytes) {
  auto file = OutputFile::open(path, /*force=*/false);
  if (!file) return fail(std::move(file).error());
  SIPHON_TRY(file->write(bytes));
  return file->commit();
}

Result<int> remove_corrupt_head(Session& session) {
  const Options& options = session.options();
  if (options.names.size() != 1 || options.purge) {
    return fail(Code::kInvalidArgument, "--corrupt-head is for one extent, without --purge",
                Side::kRequester, "siphon rm --corrupt-head --save FILE EXTENT");
  }
  if (options.save.empty() || options.save == "-") {
    return fail(Code::kInvalidArgument, "--corrupt-head wants a file for the register's bytes",
                Side::kRequester, "siphon rm --corrupt-head --save FILE EXTENT");
  }
  auto address = parse_address(options.names.at(0), Want::kExtent);
  if (!address) return fail(std::move(address).error());
  if (const auto refused = session.refused("removing a head register that does not decode")) {
    return *refused;
  }
  auto store = session.store(*address);
  if (!store) return fail(std::move(store).error());
  auto head = (*store)->corrupt_head(address->extent);
  if (!head) return fail(std::move(head).error().with_context("rm " + address->to_string()));
  std::vector<std::string> saved;
  if (!options.dry_run) {
    SIPHON_TRY(save_new(options.save, head->reg));
    saved.push_back(options.save);
    if (!head->data.empty()) {
      SIPHON_TRY(save_new(options.save + ".data", head->data));
      saved.push_back(options.save + ".data");
    }
    SIPHON_TRY((*store)->remove_corrupt_head(address->extent, *head));
  }
  if (session.out().json()) {
    Json doc = session.out().new_document();
    doc["dry_run"] = options.dry_run;
    doc["extent"] = address->to_string();
    doc["register_bytes"] = head->reg.size();
    doc["data_bytes"] = head->data.size();
    doc["saved"] = saved;
    doc["stays"] = head->stays;
    session.out().document(std::move(doc), Exit::kOk);
  }
  session.out().line(fmt::format("{} the head register of {}: {}{}",
                                 options.dry_run ? "would remove" : "removed", address->to_string(),
                                 counted(head->reg.size(), "byte"),
                                 options.dry_run ? "" : ", kept in " + options.save));
  if (!head->data.empty()) {
    session.out().line(fmt::format("with {} of the head's own{}",
                                   counted(head->data.size(), "byte"),
                                   options.dry_run ? "" : ", kept in " + options.save + ".data"));
  }
  session.out().line("lost with it: what is current, the trash and the attempts of the name");
  session.out().line(head->stays);
  return 0;
}

}  // namespace

Result<int> run_rm(Session& session) {
  const Options& options = session.options();
  if (options.corrupt_head) return remove_corrupt_head(session);
  if (!options.save.empty()) {
    return fail(Code::kInvalidArgument, "--save goes with --corrupt-head", Side::kRequester,
                "siphon rm --help");
  }
  auto named = named_extents(options.names);
  if (!named) return fail(std::move(named).error());
  const std::vector<Address> addresses = std::move(*named);
  if (const auto refused = session.refused("removing extents")) return *refused;
  Tally tally;
  Json extents = Json::array();
  for (std::size_t from = 0; from < addresses.size(); from += kToldTogether) {
    const std::span<const Address> some =
        std::span(addresses).subspan(from, std::min(kToldTogether, addresses.size() - from));
    std::vector<Removal> removals(some.size());
    std::vector<std::optional<Status>> ends(some.size());  // none: interrupted before
    run_by_name(some, kRemoveThreads, [&](std::size_t i) {
      if (session.interrupted()) return;
      removals[i].address = some[i];
      ends[i] = remove_one(session, removals[i]);
    });
    for (std::size_t i = 0; i < some.size(); ++i) {
      if (!ends[i]) continue;
      // Of a purge that broke off nobody knows how much it came to.
      Json entry{{"extent", some[i].to_string()},
                 {"purged", *ends[i] || !options.purge ? Json(removals[i].purged) : Json()},
                 {"left_for_good", gone_json(removals[i].gone)}};
      for (const TrashEntry& gone : removals[i].gone) {
        session.out().line(some[i].to_string() + ": " + gone_text(gone, options.dry_run));
      }
      if (*ends[i]) {
        ++tally.done;
        session.out().line(removal_text(removals[i], options));
      } else {
        tally.fail(ends[i]->error());
        const Error error = ends[i]->error().with_context("rm " + some[i].to_string());
        entry["problem"] = to_json(error);
        session.meter().note("siphon: " + error_text(error));
      }
      extents.push_back(std::move(entry));
    }
  }
  if (extents.size() < addresses.size()) {
    session.meter().note("siphon: interrupted; nothing was done to " +
                         counted(addresses.size() - extents.size(), "more extent"));
  }
  const bool all = extents.size() == addresses.size();
  const Exit exit = all ? exit_for(tally) : Exit::kInterrupted;
  if (session.out().json()) {
    Json doc = session.out().new_document();
    doc["dry_run"] = options.dry_run;
    doc["to_trash"] = !options.purge;
    doc["extents"] = std::move(extents);
    session.out().document(std::move(doc), exit);
  }
  return static_cast<int>(exit);
}

}  // namespace siphon::cli
