#include "plugin/transfer/leftovers.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "plugin/base/log.h"

namespace siphon {

void Leftovers::add(Attempt attempt) {
  {
    const MutexLock lock(mutex_);
    waiting_.push_back(std::move(attempt));
    news_ = true;
  }
  changed_.notify_all();
}

void Leftovers::find(ExtentStore& folder) {
  constexpr std::size_t kPage = 1000;
  std::string cursor;
  do {
    const auto page = folder.list(cursor, kPage, Listing::kEverything);
    if (!page) return log::warn("looking for what was left over: {}", page.error().message);
    for (const std::string& name : page->names) {
      const auto reg = folder.inspect(name);
      if (!reg) continue;
      for (const Reservation& attempt : reg->reservations) {
        if (attempt.lease_unix_ms != 0) continue;  // somebody's, until then
        Attempt left;
        left.location = folder.location();
        left.extent = name;
        left.private_id = attempt.id;
        add(std::move(left));
      }
    }
    cursor = page->next_cursor;
  } while (!cursor.empty());
}

std::size_t Leftovers::tidy(ExtentStore& folder, std::chrono::milliseconds since_last,
                            const std::stop_token& stop) {
  constexpr std::size_t kPage = 1000;
  auto rows = journal_.watched();
  if (!rows) {
    log::warn("what the trash has held for how long is not known: {}", rows.error().message);
    return 0;
  }
  std::map<PrivateId, Watched> known;
  for (Watched& w : *rows) known.emplace(w.private_id, std::move(w));
  std::vector<Watched> seen;
  std::size_t looked = 0;
  std::string cursor;
  do {
    const auto page = folder.list(cursor, kPage, Listing::kEverything);
    if (!page) {
      log::warn("looking for what the trash has held for long enough: {}", page.error().message);
      return looked;
    }
    for (const std::string& name : page->names) {
      if (stop.stop_requested()) return looked;
      ++looked;
      auto kept = age(folder, name, known, since_last);
      if (kept) {
        std::ranges::move(*kept, std::back_inserter(seen));
        continue;
      }
      log::warn("what is behind {} stays for now: {}", name, kept.error().message);
      for (const auto& [id, w] : known) {
        if (w.extent == name) seen.push_back(w);
      }
    }
    cursor = page->next_cursor;
  } while (!cursor.empty());
  if (Status s = journal_.keep_watched(seen); !s) {
    log::warn("for how long the trash has held what is not kept: {}", s.error().message);
  }
  return looked;
}

// Returns what stays.
Result<std::vector<Watched>> Leftovers::age(ExtentStore& folder, const std::string& name,
                                            const std::map<PrivateId, Watched>& known,
                                            std::chrono::milliseconds since_last) {
  SIPHON_TRY(folder.make_room(name, /*replaces=*/false));
  auto reg = folder.inspect(name);
  if (!reg) return fail(std::move(reg).error());
  std::vector<Watched> kept;
  for (const TrashEntry& entry : reg->trash) {
    if (!entry.was_published) continue;
    Watched now{name, entry.id, entry.trashed_unix_ms, 0};
    const auto before = known.find(entry.id);
    // Another time: it was restored, and trashed again.
    if (before != known.end() && before->second.trashed_unix_ms == entry.trashed_unix_ms) {
      now.watched_ms = before->second.watched_ms + static_cast<std::uint64_t>(since_last.count());
    }
    if (now.watched_ms < folder.limits().trash_grace_ms) {
      kept.push_back(std::move(now));
      continue;
    }
    if (Status gone = folder.purge(name, entry.id, entry.trashed_unix_ms); !gone) {
      log::warn("private id {} stays in the trash of {} for now: {}", to_hex(entry.id), name,
                gone.error().message);
      kept.push_back(std::move(now));
      continue;
    }
    log::info("private id {} of {}, trashed at {}, left the trash for good: its grace time is over",
              to_hex(entry.id), name, rfc3339(entry.trashed_unix_ms));
  }
  return kept;
}

void Leftovers::run(std::stop_token stop) {
  auto pause = kShortestPause;
  while (!stop.stop_requested()) {
    const std::size_t left = collect();
    MutexLock lock(mutex_);
    if (left == 0) {
      changed_.wait(lock, stop, [this]() SIPHON_REQUIRES(mutex_) { return !waiting_.empty(); });
      pause = kShortestPause;
    } else if (clock_.wait_until(changed_, lock, stop, clock_.now() + pause,
                                 [this]() SIPHON_REQUIRES(mutex_) { return news_; })) {
      pause = kShortestPause;
    } else {
      pause = std::min(pause * 2, kLongestPause);
    }
    news_ = false;
  }
}

std::size_t Leftovers::collect() {
  std::vector<Attempt> round;
  {
    const MutexLock lock(mutex_);
    round.swap(waiting_);
  }
  const Deadline now = clock_.now();
  std::erase_if(round, [&](const Attempt& a) { return a.not_before <= now && collect_one(a); });
  const MutexLock lock(mutex_);
  waiting_.insert(waiting_.end(), round.begin(), round.end());
  return waiting_.size();
}

// True when there is nothing left to do.
namespace {

bool was_published(const HeadRegister& reg, const PrivateId& id) {
  if (reg.state != ExtentState::kNone && reg.current == id) return true;
  return std::ranges::any_of(
      reg.trash, [&](const TrashEntry& entry) { return entry.id == id && entry.was_published; });
}

}  // namespace

bool Leftovers::collect_one(const Attempt& a) {
  auto store = stores_.open(a.location);
  Status collected =
      store ? (*store)->collect(a.extent, a.private_id) : Status(fail(store.error()));
  // A pool that is gone has taken its scratch along; only that no store is found says so.
  bool over = collected.has_value() || (!store && store.error().code == Code::kNotFound);
  if (!over && store && collected.error().code == Code::kFailedPrecondition) {
    const auto reg = (*store)->inspect(a.extent);
    over = reg && was_published(*reg, a.private_id);  // after all; it may be in the trash by now
  }
  if (!over) {
    log::warn("leftover scratch {} of {}/{} stays for now: {}", to_hex(a.private_id),
              a.location.to_string(), a.extent, collected.error().message);
    return false;
  }
  log::info("leftover scratch {} of {}/{} is gone", to_hex(a.private_id), a.location.to_string(),
            a.extent);
  journal_.remove(a.private_id);
  return true;
}

}  // namespace siphon
