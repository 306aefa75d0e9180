#include "plugin/cli/progress.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "plugin/base/text.h"
#include "plugin/cli/output.h"
#include "plugin/cli/stdio.h"

namespace siphon::cli {
namespace {

constexpr std::array<const char*, 6> kUnits = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};

std::size_t unit_for(double bytes) {
  std::size_t unit = 0;
  while (bytes >= 1024 && unit + 1 < kUnits.size()) {
    bytes /= 1024;
    ++unit;
  }
  return unit;
}

double in_unit(double bytes, std::size_t unit) { return bytes / std::pow(1024.0, unit); }

std::string amount(std::uint64_t bytes, std::size_t unit) {
  return fmt::format("{:.{}f}", in_unit(static_cast<double>(bytes), unit), unit == 0 ? 0 : 1);
}

// The share that is done, in bytes or else in extents; at most 1.
double share_done(std::uint64_t done, std::uint64_t total) {
  return std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
}

// What is left, when the extents to come are as large as those so far. 0: not known.
double bytes_left(const ProgressState& state) {
  if (state.total_bytes != 0) {
    return static_cast<double>(state.total_bytes - std::min(state.done_bytes, state.total_bytes));
  }
  if (state.done_extents == 0 || state.total_extents == 0) return 0;
  const double share = share_done(state.done_extents, state.total_extents);
  return static_cast<double>(state.done_bytes) * (1 - share) / share;
}

}  // namespace

std::string eta_text(const ProgressState& state, double bytes_per_second) {
  const bool known =
      state.total_bytes != 0 || (state.done_extents != 0 && state.total_extents != 0);
  if (!known || !(bytes_per_second >= 1)) return "";
  const double seconds = std::ceil(bytes_left(state) / bytes_per_second);
  if (seconds >= 1000.0 * 3600) return "";
  const auto s = static_cast<std::uint64_t>(seconds);
  if (s < 60) return fmt::format("{}s", s);
  if (s < 3600) return fmt::format("{}m{:02}s", s / 60, s % 60);
  return fmt::format("{}h{:02}m", s / 3600, s % 3600 / 60);
}

std::string rate_text(double bytes_per_second) {
  const double rate = bytes_per_second >= 0 ? bytes_per_second : 0;
  const std::size_t unit = unit_for(rate);
  return fmt::format("{:.{}f} {}/s", in_unit(rate, unit), unit == 0 ? 0 : 2, kUnits[unit]);
}

namespace {

// How much is done, of how much: never left out.
std::string done_text(const ProgressState& state, bool finished) {
  const std::uint64_t total = state.total_bytes;
  if (total != 0) {
    const std::uint64_t done = finished ? total : std::min(state.done_bytes, total);
    const auto ratio = static_cast<long double>(done) / static_cast<long double>(total);
    const int percent = finished ? 100 : std::min(99, static_cast<int>(ratio * 100));
    const std::size_t unit = unit_for(static_cast<double>(total));
    return fmt::format("{}/{} {} {}%", amount(done, unit), amount(total, unit), kUnits[unit],
                       percent);
  }
  if (state.total_extents == 0 && state.done_bytes == 0 && !finished) return "starting";
  const std::size_t unit = unit_for(static_cast<double>(state.done_bytes));
  std::string text = amount(state.done_bytes, unit) + " " + kUnits[unit];
  if (state.total_extents != 0) {
    const double share = share_done(state.done_extents, state.total_extents);
    text += fmt::format(
        ", {} of {} {}%",
        finished ? state.total_extents : std::min(state.done_extents, state.total_extents),
        counted(state.total_extents, "extent"),
        finished ? 100 : std::min(99, static_cast<int>(share * 100)));
  }
  return text;
}

}  // namespace

std::string progress_line(const ProgressState& state, double bytes_per_second, bool finished,
                          std::size_t columns) {
  std::string line = done_text(state, finished);
  // In the order in which they stand; what comes last goes first when there is no room.
  std::vector<std::string> more;
  if (bytes_per_second > 0) {
    more.push_back(" " + rate_text(bytes_per_second));
    const std::string eta = finished ? "" : eta_text(state, bytes_per_second);
    if (!eta.empty()) more.push_back(" ETA " + eta);
  }
  if (state.counts) {
    more.push_back(fmt::format(" | {} active {} failed {} retried", state.active, state.failed,
                               state.retried));
  }
  if (!state.bottleneck.empty() && !finished)
    more.push_back(" | bottleneck: " + escaped(state.bottleneck));
  for (const std::string& part : more) {
    if (line.size() + part.size() > columns) break;
    line += part;
  }
  return line.substr(0, columns);
}

ProgressMode progress_mode(const std::string& word, bool no_progress, bool stderr_is_terminal) {
  if (no_progress || word == "none") return ProgressMode::kNone;
  if (word == "plain") return ProgressMode::kPlain;
  if (word == "json") return ProgressMode::kJson;
  if (word == "terminal" || stderr_is_terminal) return ProgressMode::kTerminal;
  return ProgressMode::kNone;
}

ProgressState next_shown(const ProgressState& shown, const ProgressState& now) {
  ProgressState next = now;
  next.retried = std::max(shown.retried, now.retried);
  if (now.retried < shown.retried) next.done_bytes = shown.done_bytes;  // of before that
  if (now.retried == shown.retried) next.done_bytes = std::max(shown.done_bytes, now.done_bytes);
  return next;
}

ProgressMeter::ProgressMeter(ProgressMode mode) : mode_(mode) {}

// The rate of the last seconds: each sample of at least half a second counts for 40 %.
void ProgressMeter::measure(Clock::time_point now) {
  const double seconds = std::chrono::duration<double>(now - last_sample_).count();
  if (seconds < 0.5) return;
  const std::uint64_t done = state_.done_bytes;
  const double sample = static_cast<double>(done - last_sample_bytes_) / seconds;
  rate_ = rate_ == 0 ? sample : 0.6 * rate_ + 0.4 * sample;
  last_sample_ = now;
  last_sample_bytes_ = done;
}

void ProgressMeter::update(const ProgressState& state) {
  if (mode_ == ProgressMode::kNone) return;
  const MutexLock lock(mutex_);
  if (finished_) return;
  const auto now = Clock::now();
  if (!started_) {
    started_ = true;
    start_ = last_sample_ = now;
    last_draw_ = now - std::chrono::seconds(10);
    last_sample_bytes_ = state.done_bytes;
  }
  take(state);
  measure(now);
  if (now - last_draw_ < redraw_interval()) return;
  last_draw_ = now;
  draw(false);
}

void ProgressMeter::take(const ProgressState& state) {
  state_ = next_shown(state_, state);
  if (state_.done_bytes >= last_sample_bytes_) return;
  last_sample_bytes_ = state_.done_bytes;  // the rate goes on from there
  last_sample_ = Clock::now();
}

void ProgressMeter::settle(const ProgressState& state) {
  const MutexLock lock(mutex_);
  if (started_ && !finished_) take(state);
}

void ProgressMeter::begin_anew() {
  const MutexLock lock(mutex_);
  if (finished_) return;
  state_ = {};
  rate_ = 0;
  last_sample_bytes_ = 0;
  start_ = last_sample_ = Clock::now();
}

bool ProgressMeter::due() {
  if (mode_ == ProgressMode::kNone) return false;
  const MutexLock lock(mutex_);
  return !started_ || Clock::now() - last_draw_ >= redraw_interval() / 2;
}

std::chrono::milliseconds ProgressMeter::redraw_interval() const {
  return std::chrono::milliseconds(mode_ == ProgressMode::kTerminal ? 200 : 1000);
}

void ProgressMeter::draw(bool finished) {
  const double elapsed = std::chrono::duration<double>(Clock::now() - start_).count();
  double rate = rate_;
  if (finished || rate == 0) {
    const std::uint64_t bytes =
        finished ? std::max(state_.done_bytes, state_.total_bytes) : state_.done_bytes;
    rate = elapsed > 0.001 ? static_cast<double>(bytes) / elapsed : 0;
  }
  if (mode_ == ProgressMode::kJson) return draw_json(rate, finished);
  TextStream& err = standard_error();
  if (mode_ != ProgressMode::kTerminal) {
    err.write(progress_line(state_, rate, finished) + "\n");
    return;
  }
  // The last column stays free: a terminal may wrap as soon as it is written.
  const std::size_t columns = std::max<std::size_t>(error_columns(), 2) - 1;
  const std::string line = progress_line(state_, rate, finished, columns);
  err.write("\r\x1b[K" + line + (finished ? "\n" : ""));
  line_shown_ = !finished;
}

void ProgressMeter::draw_json(double rate, bool finished) const {
  const std::uint64_t total = state_.total_bytes;
  std::uint64_t done = state_.done_bytes;
  if (total > 0) done = finished ? total : std::min(done, total);
  const Json progress{{"done_bytes", done},
                      {"total_bytes", total},
                      {"done_extents", state_.done_extents},
                      {"total_extents", state_.total_extents},
                      {"bytes_per_second", static_cast<std::uint64_t>(std::max(rate, 0.0))},
                      {"active", state_.active},
                      {"failed", state_.failed},
                      {"retried", state_.retried},
                      {"bottleneck", state_.bottleneck},
                      {"finished", finished}};
  standard_error().write(
      json_line(Json{{"schema_version", kSchemaVersion}, {"progress", progress}}));
}

void ProgressMeter::finish(bool complete) {
  const MutexLock lock(mutex_);
  if (!started_ || finished_) return;
  finished_ = true;
  if (complete) {
    draw(true);
  } else {
    erase();
  }
}

void ProgressMeter::clear() {
  const MutexLock lock(mutex_);
  erase();
}

void ProgressMeter::erase() {
  if (line_shown_) standard_error().write("\r\x1b[K");
  line_shown_ = false;
}

void ProgressMeter::note(const std::string& text) {
  const MutexLock lock(mutex_);
  erase();
  standard_error().write(escaped_lines(text) + "\n");
}

}  // namespace siphon::cli
