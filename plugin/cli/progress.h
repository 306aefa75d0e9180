// The progress line on stderr, and its arithmetic.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "plugin/core/mutex.h"

namespace siphon::cli {

struct ProgressState {
  std::uint64_t done_bytes = 0;   // durable
  std::uint64_t total_bytes = 0;  // fixed once known; 0: not known yet
  bool counts = false;            // the three below mean something
  std::uint32_t active = 0, failed = 0, retried = 0;
  std::string bottleneck;  // "osd.7 disk"; empty: nothing stands out
  // What counts while total_bytes is not known. 0 of 0: not known either.
  std::uint64_t done_extents = 0, total_extents = 0;
};

// "12.4/88.0 GiB 14% 1.31 GiB/s ETA 57s | 9 active 0 failed 3 retried | bottleneck: osd.7 disk".
// Without a total in bytes: "12.4 GiB, 1420 of 10000 extents 14% 1.31 GiB/s ...". What is not
// known yet (a rate, an end) is left out; "starting" where nothing is.
// Never above 99 % unless `finished`, which a caller says after the last durable acknowledgement
// of everything. Saturating: done beyond total shows as total. At most `columns` wide: what counts
// least goes first.
std::string progress_line(const ProgressState& state, double bytes_per_second, bool finished,
                          std::size_t columns = std::string::npos);
// "1.31 GiB/s", "12 B/s"
std::string rate_text(double bytes_per_second);
// Remaining time: "57s", "3m12s", "2h05m"; empty when it cannot be told.
std::string eta_text(const ProgressState& state, double bytes_per_second);

enum class ProgressMode { kNone, kTerminal, kPlain, kJson };
// What `--progress auto|none|terminal|plain|json` means here: auto shows it only on a terminal.
ProgressMode progress_mode(const std::string& word, bool no_progress, bool stderr_is_terminal);

// What to show once `now` is known, `shown` before it: what was acknowledged stays acknowledged,
// whichever thread tells it last, until something is tried again, from its first byte.
ProgressState next_shown(const ProgressState& shown, const ProgressState& now);

// Writes progress to stderr, at bounded intervals. Thread safe.
class ProgressMeter {
 public:
  explicit ProgressMeter(ProgressMode mode);
  ~ProgressMeter() { clear(); }
  // The latest state; drawn when its time has come.
  void update(const ProgressState& state);
  // Whether anybody looks at it at all.
  bool shown() const { return mode_ != ProgressMode::kNone; }
  // Another piece of work begins: what is done counts from nothing again.
  void begin_anew();
  // Whether an update would be looked at: there is a line, and its time is near.
  bool due();
  // The state to finish with, if anything was shown at all.
  void settle(const ProgressState& state);
  // The last line, when `complete`: everything is durable (100 %). Else nothing stays.
  void finish(bool complete);
  // Text on stderr that does not mix with the progress line. Shown in every mode; control
  // characters are escaped.
  void note(const std::string& text);
  // Takes away the line that is shown, if one is.
  void clear();

 private:
  using Clock = std::chrono::steady_clock;
  void take(const ProgressState& state) SIPHON_REQUIRES(mutex_);
  std::chrono::milliseconds redraw_interval() const;
  void draw(bool finished) SIPHON_REQUIRES(mutex_);
  void draw_json(double rate, bool finished) const SIPHON_REQUIRES(mutex_);
  void erase() SIPHON_REQUIRES(mutex_);
  void measure(Clock::time_point now) SIPHON_REQUIRES(mutex_);

  const ProgressMode mode_;
  Mutex mutex_;
  ProgressState state_ SIPHON_GUARDED_BY(mutex_);
  bool started_ SIPHON_GUARDED_BY(mutex_) = false;
  bool line_shown_ SIPHON_GUARDED_BY(mutex_) = false;
  bool finished_ SIPHON_GUARDED_BY(mutex_) = false;
  Clock::time_point start_ SIPHON_GUARDED_BY(mutex_), last_draw_ SIPHON_GUARDED_BY(mutex_),
      last_sample_ SIPHON_GUARDED_BY(mutex_);
  std::uint64_t last_sample_bytes_ SIPHON_GUARDED_BY(mutex_) = 0;
  double rate_ SIPHON_GUARDED_BY(mutex_) = 0;  // bytes per second, smoothed over some seconds
};

}  // namespace siphon::cli
