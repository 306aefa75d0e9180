// ls, stat, blocks, verify, config show: verbs that change nothing.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <set>
#include <utility>

#include "plugin/base/text.h"
#include "plugin/cli/commands.h"
#include "plugin/cli/devices.h"
#include "plugin/cli/ends.h"
#include "plugin/cli/extent_io.h"
#include "plugin/cli/verbs.h"
#include "plugin/cli/verify.h"

namespace siphon::cli {
namespace {

constexpr std::size_t kStatThreads = 8;

std::string crc_or_dash(const ExtentInfo& info) {
  return info.state == ExtentState::kSealed ? crc32_hex(info.header.crc32) : "-";
}

// "e1", in a namespace "backups/e1".
std::string shown_name(const Address& address) {
  const std::string& nspace = address.location.nspace;
  return nspace.empty() ? address.extent : nspace + "/" + address.extent;
}

std::string digest_or_dash(const ExtentInfo& info) {
  return info.header.has_digest() ? to_hex(info.header.content_digest) : "-";
}

void print_long_list(const Output& out, const std::vector<Result<ExtentInfo>>& infos,
                     const std::vector<ListedExtent>& extents) {
  Table table({{"NAME"},
               {"BYTES", true},
               {"STATE"},
               {"CRC32"},
               {"BLOCKS", true},
               {"GENERATION", true},
               {"DIGEST"}});
  for (std::size_t i = 0; i < infos.size(); ++i) {
    if (!infos[i]) {
      table.add({shown_name(extents[i].address), "-", std::string(to_string(infos[i].error().code)),
                 "-", "-", "-", "-"});
      continue;
    }
    const ExtentInfo& info = *infos[i];
    const bool sealed = info.state == ExtentState::kSealed;  // of others nobody has counted any
    table.add({shown_name(extents[i].address),
               sealed ? std::to_string(info.header.extent_bytes) : "-",
               std::string(state_name(info.state)), crc_or_dash(info),
               sealed ? std::to_string(info.header.block_count) : "-",
               std::to_string(info.generation), digest_or_dash(info)});
  }
  out.table(table);
}

void print_stat(Session& session, const Address& address, const ExtentInfo& info) {
  const Output& out = session.out();
  out.line(fmt::format("extent       {}", address.to_string()));
  out.line(
      fmt::format("state        {}{}", state_name(info.state), info.is_inline ? ", inline" : ""));
  if (info.state == ExtentState::kSealed) {
    out.line(fmt::format("bytes        {} ({})", info.header.extent_bytes,
                         human_bytes(info.header.extent_bytes)));
    out.line(fmt::format("content      {} in {}", counted(info.header.content_bytes, "byte"),
                         counted(info.header.block_count, "block")));
    out.line(fmt::format("crc32        {}", crc32_hex(info.header.crc32)));
    out.line(fmt::format("digest       {}",
                         info.header.has_digest()
                             ? to_hex(info.header.content_digest)
                             : "none (format version 1): " +
                                   session.command("verify " + shell_word(address.to_string()))));
    out.line(fmt::format("sealed       {}", rfc3339(info.header.sealed_unix_ms)));
  }
  out.line(fmt::format("part bytes   {}", info.header.part_bytes));
  out.line(fmt::format("private id   {}", to_hex(info.private_id)));
  out.line(fmt::format("generation   {}", info.generation));
  out.line(fmt::format("attempts     {} in progress or left over", info.scratch_count));
  out.line(fmt::format("trash        {}", info.trash_count));
}

void print_verified(Session& session, const Verified& item) {
  if (item.outcome.status) {
    session.out().line(
        fmt::format("{}: ok, {} in {}, crc32 {}, digest {} ({})", item.address.to_string(),
                    human_bytes(item.outcome.bytes), counted(item.outcome.block_count, "block"),
                    crc32_hex(item.outcome.crc32), to_hex(item.outcome.content_digest),
                    item.where == "here" ? "read here" : "read beside " + item.where));
  } else {
    session.meter().note("siphon: " + escaped(item.address.to_string()) + ": " +
                         error_text(item.outcome.status.error()));
  }
}

void count(Tally& tally, const Status& status) {
  if (status) {
    ++tally.done;
  } else {
    tally.fail(status.error());
  }
}

// `more`: what failed beside the extents of the tally.
int finish_verify(Session& session, Json extents, const Tally& tally,
                  const std::vector<Address>* only_there = nullptr,
                  const std::optional<Error>& more = {}) {
  Tally all = tally;
  if (more) all.fail(*more);
  Exit exit = exit_for(all);
  if (all.done + all.failed == 0) exit = Exit::kNothingToDo;
  exit = session.exit_of_listed(exit);
  if (session.interrupted()) exit = Exit::kInterrupted;
  if (session.out().json()) {
    Json doc = session.out().new_document();
    doc["extents"] = std::move(extents);
    doc["unlisted"] = session.unlisted();
    doc["verified"] = tally.done;
    doc["failed"] = tally.failed;
    if (only_there != nullptr) {
      doc["only_in_target"] = Json::array();
      for (const Address& address : *only_there) {
        doc["only_in_target"].push_back(address.to_string());
      }
    }
    session.out().document(std::move(doc), exit);
  }
  return static_cast<int>(exit);
}

// --local is what was asked for, or nothing is done.
Status check_local(const Session& session, const Address& address) {
  if (!session.options().local || address.where != Where::kDaemon) return {};
  return fail(Code::kInvalidArgument,
              "--local wants to read " + address.to_string() +
                  " here, and a folder's daemon hands out nothing",
              Side::kRequester,
              "name the folder itself: posix:DIR, on its host; or leave --local out");
}

Result<int> verify_one_side(Session& session, const Address& address) {
  auto extents = expand(session, Role::kOnly, address);
  if (!extents) return fail(std::move(extents).error());
  const std::vector<Verified> results =
      verify_all(session, {verify_end_of(Role::kOnly, *extents)}).front();
  Tally tally;
  Json json = Json::array();
  for (const Verified& item : results) count(tally, item.outcome.status);
  session.meter().finish(tally.failed == 0);
  for (const Verified& item : results) {
    if (session.out().json()) json.push_back(to_json(item));
    print_verified(session, item);
  }
  return finish_verify(session, std::move(json), tally);
}

// What is wrong at one of two ends: that end is at fault, unless it says who else is.
Status problem_of(const Verified& end, Side side) {
  if (end.outcome.status) return {};
  Error error = end.outcome.status.error();
  if (error.suspect != Side::kRequester && error.suspect != Side::kWire) error.suspect = side;
  return fail(std::move(error));
}

// Whether the two ends hold the same extent. Nothing: they were not compared.
std::optional<bool> are_same(const VerifyOutcome& source, const VerifyOutcome& target) {
  if (source.status && target.status) return same_content(source, target);
  if (!source.status && !target.status) return std::nullopt;
  const Code broken = (source.status ? target : source).status.error().code;
  if (broken == Code::kNotFound || broken == Code::kDataLoss) return false;
  return std::nullopt;
}

// Why the two ends do not hold the same extent, as far as that is known, or OK.
Status compare(const Session& session, const Verified& source, const Verified& target) {
  SIPHON_TRY(problem_of(source, Side::kSource));
  SIPHON_TRY(problem_of(target, Side::kTarget));
  if (same_content(source.outcome, target.outcome)) return {};
  const auto what = [](const VerifyOutcome& o) {
    return fmt::format("{} bytes, crc32 {}, digest {}", o.bytes, crc32_hex(o.crc32),
                       to_hex(o.content_digest));
  };
  std::string looks;
  for (const auto& [role, end] :
       {std::pair(Role::kSource, &source.address), std::pair(Role::kTarget, &target.address)}) {
    if (end->where == Where::kDaemon) continue;  // which says no more than this
    looks += (looks.empty() ? ": " : "; ") +
             session.command("stat " + shell_word(end->to_string()), role);
  }
  return fail(Code::kDataLoss,
              fmt::format("the two differ: source {}; target {}", what(source.outcome),
                          what(target.outcome)),
              Side::kNone, "each is whole in itself: see which one is meant" + looks);
}

// Those of `there` that have no counterpart among `here`: by namespace, where there are any, and
// name.
std::vector<Address> without(std::vector<Address> there, const std::vector<Address>& here) {
  std::set<std::pair<std::string, std::string>> names;
  for (const Address& a : here) names.emplace(a.location.nspace, a.extent);
  // A single place is compared with a single place, whatever their namespaces are called.
  const bool by_namespace = std::ranges::any_of(
      here, [&](const Address& a) { return a.location.nspace != here.front().location.nspace; });
  std::set<std::string> bare;
  for (const Address& a : here) bare.insert(a.extent);
  std::erase_if(there, [&](const Address& a) {
    return by_namespace ? names.contains({a.location.nspace, a.extent}) : bare.contains(a.extent);
  });
  return there;
}

// What is in the target and not in the source: a failure with --exact.
std::optional<Error> tell_only_there(Session& session, const Address& target,
                                     const std::vector<Address>& only_there) {
  if (only_there.empty()) return std::nullopt;
  const std::string where = target.store();
  Error error{Code::kFailedPrecondition,
              counted(only_there.size(), "extent") + " only in " + where +
                  ", the first: " + only_there.front().to_string(),
              Side::kTarget, session.command("ls " + shell_word(where), Role::kTarget),
              Reason::kDiffers};
  if (session.options().exact) {
    session.meter().note("siphon: " + error_text(error));
    return error;
  }
  session.out().line(error.message);
  return std::nullopt;
}

Result<int> verify_both_sides(Session& session, const Address& source, const Address& target) {
  auto sources = expand(session, Role::kSource, source);
  if (!sources) return fail(std::move(sources).error());
  const VerifyEnd left_end = verify_end_of(Role::kSource, *sources);
  std::vector<Address> only_there;
  if (source.extent.empty() && target.extent.empty() && target.where != Where::kDaemon) {
    auto there = expand(session, Role::kTarget, target);
    if (!there) return fail(std::move(there).error());
    only_there = without(verify_end_of(Role::kTarget, *there).addresses, left_end.addresses);
  }
  if (left_end.addresses.size() > 1 && !target.extent.empty()) {
    return fail(Code::kInvalidArgument, "one extent cannot equal many", Side::kRequester,
                "name a store as the target");
  }
  // What is the same has the same size; what is not is no success, whose progress nobody keeps.
  VerifyEnd right_end{Role::kTarget, {}, left_end.bytes};
  for (const Address& address : left_end.addresses) {
    std::vector<Address>& targets = right_end.addresses;
    targets.push_back(target.extent.empty() ? target.with_extent(address.extent) : target);
    if (target.all_namespaces) targets.back().location.nspace = address.location.nspace;
    targets.back().all_namespaces = false;
  }
  const auto ends = verify_all(session, {left_end, right_end});
  const std::vector<Verified>&left = ends[0], &right = ends[1];
  Tally tally;
  Json json = Json::array();
  Table table({{"SOURCE"},
               {"TARGET"},
               {"BYTES", true},
               {"SOURCE CRC32"},
               {"TARGET CRC32"},
               {"READ AT"},
               {"SAME"}});
  for (std::size_t i = 0; i < left.size(); ++i) {
    const Status status = compare(session, left[i], right[i]);
    count(tally, status);
    const std::optional<bool> same = are_same(left[i].outcome, right[i].outcome);
    if (session.out().json()) {
      json.push_back(Json{{"same", same ? Json(*same) : Json()},
                          {"source", to_json(left[i])},
                          {"target", to_json(right[i])},
                          {"problem", status ? Json() : to_json(status.error())}});
    }
    const auto crc = [](const VerifyOutcome& o) { return o.status ? crc32_hex(o.crc32) : "-"; };
    const auto where = [](const Verified& v) { return v.where.empty() ? "-" : v.where; };
    table.add({left[i].address.to_string(), right[i].address.to_string(),
               left[i].outcome.status ? std::to_string(left[i].outcome.bytes) : "-",
               crc(left[i].outcome), crc(right[i].outcome), where(left[i]) + ", " + where(right[i]),
               same ? (*same ? "yes" : "NO") : "-"});
  }
  session.meter().finish(tally.failed == 0);
  for (std::size_t i = 0; i < left.size(); ++i) {
    const auto note = [&](const Verified& end, const Status& status) {
      if (status) return true;
      session.meter().note("siphon: " + escaped(end.address.to_string()) + ": " +
                           error_text(status.error()));
      return false;
    };
    const bool source_is_whole = note(left[i], problem_of(left[i], Side::kSource));
    const bool target_is_whole = note(right[i], problem_of(right[i], Side::kTarget));
    if (source_is_whole && target_is_whole) note(left[i], compare(session, left[i], right[i]));
  }
  session.out().table(table);
  const std::optional<Error> surplus = tell_only_there(session, target, only_there);
  return finish_verify(session, std::move(json), tally, &only_there, surplus);
}

}  // namespace

Result<int> run_ls(Session& session) {
  auto address = parse_address(session.options().names.at(0), Want::kStore);
  if (!address) return fail(std::move(address).error());
  widen(session, *address);
  auto extents = list_store(session, Role::kOnly, *address);
  if (!extents) return fail(std::move(extents).error());
  std::vector<Result<ExtentInfo>> infos;
  if (session.options().long_listing) {
    infos.resize(extents->size());
    run_parallel(extents->size(), kStatThreads, [&](std::size_t i) {
      if (session.interrupted()) return;
      const ListedExtent& listed = (*extents)[i];
      if (listed.info.state == ExtentState::kSealed) {
        infos[i] = listed.info;
      } else if (listed.problem) {
        infos[i] = fail(*listed.problem);
      } else {
        auto store = session.store(listed.address);
        if (!store)
          infos[i] = fail(std::move(store).error());
        else
          infos[i] = (*store)->stat(listed.address.extent);
      }
    });
    if (session.interrupted()) return fail(Session::interrupted_error("interrupted while listing"));
  }
  const auto problem_of = [&](std::size_t i) -> const Error* {
    if (i < infos.size()) return infos[i] ? nullptr : &infos[i].error();
    return (*extents)[i].problem ? &*(*extents)[i].problem : nullptr;
  };
  bool all_well = true;
  for (std::size_t i = 0; i < extents->size(); ++i) {
    const Error* problem = problem_of(i);
    if (problem == nullptr) continue;
    all_well = false;
    session.meter().note("siphon: " + escaped((*extents)[i].address.to_string()) + ": " +
                         error_text(*problem));
  }
  const Exit exit = session.exit_of_listed(all_well ? Exit::kOk : Exit::kPartial);
  if (session.out().json()) {
    Json list = Json::array();
    for (std::size_t i = 0; i < extents->size(); ++i) {
      Json entry{{"name", (*extents)[i].address.extent}};
      if (i < infos.size() && infos[i]) entry = to_json(*infos[i]);
      if (const Error* problem = problem_of(i)) entry["problem"] = to_json(*problem);
      entry["namespace"] = (*extents)[i].address.location.nspace;
      list.push_back(std::move(entry));
    }
    Json doc = session.out().new_document();
    doc["store"] = address->store();
    doc["extents"] = std::move(list);
    doc["unlisted"] = session.unlisted();
    session.out().document(std::move(doc), exit);
  } else if (session.options().long_listing) {
    print_long_list(session.out(), infos, *extents);
  } else {
    for (const ListedExtent& extent : *extents) session.out().line(shown_name(extent.address));
  }
  return static_cast<int>(exit);
}

Result<int> run_stat(Session& session) {
  auto address = parse_address(session.options().names.at(0), Want::kExtent);
  if (!address) return fail(std::move(address).error());
  auto store = session.store(*address);
  if (!store) return fail(std::move(store).error());
  auto info = (*store)->stat(address->extent);
  if (!info) return fail(std::move(info).error().with_context("stat " + address->to_string()));
  if (session.out().json()) {
    Json doc = session.out().new_document();
    doc["extent"] = address->to_string();
    doc["info"] = to_json(*info);
    session.out().document(std::move(doc), Exit::kOk);
  } else {
    print_stat(session, *address, *info);
  }
  return 0;
}

Result<int> run_blocks(Session& session) {
  auto address = parse_address(session.options().names.at(0), Want::kExtent);
  if (!address) return fail(std::move(address).error());
  auto store = session.store(*address);
  if (!store) return fail(std::move(store).error());
  auto blocks = read_blocks(**store, address->extent, IoControl{&session.stop(), {}});
  if (!blocks) return fail(std::move(blocks).error());
  Table table({{"BLOCK", true}, {"OFFSET", true}, {"LENGTH", true}, {"SHA256"}});
  Json list = Json::array();
  for (std::size_t i = 0; i < blocks->entries.size(); ++i) {
    const IndexEntry& entry = blocks->entries[i];
    if (session.out().json()) {
      list.push_back(Json{{"block", i},
                          {"offset_bytes", entry.offset_bytes},
                          {"length_bytes", entry.length_bytes},
                          {"sha256", to_hex(entry.sha256)}});
    } else {
      table.add({std::to_string(i), std::to_string(entry.offset_bytes),
                 std::to_string(entry.length_bytes), to_hex(entry.sha256)});
    }
  }
  if (session.out().json()) {
    Json doc = session.out().new_document();
    doc["extent"] = address->to_string();
    doc["state"] = state_name(blocks->info.state);
    doc["rest_bytes"] = blocks->bytes - blocks->valid_bytes;
    doc["blocks"] = std::move(list);
    session.out().document(std::move(doc), Exit::kOk);
    return 0;
  }
  session.out().table(table);
  if (blocks->bytes != blocks->valid_bytes) {
    session.meter().note(
        fmt::format("siphon: the blocks end at byte {}; {} behind them, torn or damaged: {}",
                    blocks->valid_bytes, counted(blocks->bytes - blocks->valid_bytes, "byte"),
                    session.command("seal --dry-run " + shell_word(address->to_string()))));
  }
  return 0;
}

Result<int> run_verify(Session& session) {
  const Options& options = session.options();
  auto source = parse_extent_or_store(options.names.at(0));
  if (!source) return fail(std::move(source).error());
  SIPHON_TRY(check_local(session, *source));
  widen(session, *source);
  if (options.names.size() == 1) return verify_one_side(session, *source);
  auto target = parse_extent_or_store(options.names.at(1));
  if (!target) return fail(std::move(target).error());
  SIPHON_TRY(check_local(session, *target));
  if (source->all_namespaces || options.nspace) widen(session, *target);
  if (options.exact && target->where == Where::kDaemon) {
    return fail(
        Code::kInvalidArgument,
        "--exact wants to list " + target->store() + ", and a folder's daemon lists nothing",
        Side::kRequester, "name the folder itself: posix:DIR, on its host");
  }
  return verify_both_sides(session, *source, *target);
}

Result<int> run_config_show(Session& session) {
  const Options& o = session.options();
  const auto truth = [](bool set) { return std::string(set ? "true" : "false"); };
  std::string verbs_wanted;
  for (const std::string& verb : o.verbs_wanted) {
    verbs_wanted += (verbs_wanted.empty() ? "" : ",") + verb;
  }
  const std::vector<std::pair<std::string, std::string>> values = {
      {"--conf", o.cluster.conf},
      {"--cluster", o.cluster.cluster},
      {"--id", o.cluster.id},
      {"--name", o.cluster.name},
      {"--keyring", o.cluster.keyring},
      {"--timeout", std::to_string(o.timeout_seconds)},
      {"--source-conf", o.source_cluster.conf},
      {"--source-cluster", o.source_cluster.cluster},
      {"--source-id", o.source_cluster.id},
      {"--source-name", o.source_cluster.name},
      {"--source-keyring", o.source_cluster.keyring},
      {"--target-conf", o.target_cluster.conf},
      {"--target-cluster", o.target_cluster.cluster},
      {"--target-id", o.target_cluster.id},
      {"--target-name", o.target_cluster.name},
      {"--target-keyring", o.target_cluster.keyring},
      {"--secret-file", o.secret_file},
      {"--tls-ca", o.tls_ca},
      {"--tls-cert", o.tls_cert},
      {"--tls-key", o.tls_key},
      {"--lanes", std::to_string(o.lanes)},
      {"--bwlimit", std::to_string(o.bwlimit)},
      {"--max-transfers", std::to_string(o.max_transfers)},
      {"--receipts", o.receipts},
      {"--block-size", std::to_string(o.block_size)},
      {"--format", o.format},
      {"--progress", o.progress},
      {"--no-progress", truth(o.no_progress)},
      {"--namespace", o.nspace.value_or("")},
      {"--dry-run", truth(o.dry_run)},
      {"--check", truth(o.check)},
      {"--deep", truth(o.deep)},
      {"--exact", truth(o.exact)},
      {"--local", truth(o.local)},
      {"--long", truth(o.long_listing)},
      {"--open", truth(o.open)},
      {"--expect-bytes", o.expect_bytes},
      {"--expect-sha256", o.expect_sha256},
      {"--private-id", o.private_id},
      {"--older-than", o.older_than},
      {"--save", o.save},
      {"--as", o.as_entity},
      {"--for", verbs_wanted},
  };
  Table table({{"SETTING"}, {"VALUE"}, {"FROM"}, {"ENVIRONMENT"}});
  Json list = Json::array();
  for (const auto& [flag, value] : values) {
    const auto origin = o.origins.find(flag);
    const std::string from = origin == o.origins.end() ? "default" : origin->second;
    table.add({flag, value.empty() ? "-" : value, from, environment_name(flag)});
    list.push_back(Json{
        {"flag", flag}, {"value", value}, {"from", from}, {"environment", environment_name(flag)}});
  }
  if (session.out().json()) {
    Json doc = session.out().new_document();
    doc["settings"] = std::move(list);
    session.out().document(std::move(doc), Exit::kOk);
  } else {
    session.out().table(table);
  }
  return 0;
}

}  // namespace siphon::cli
