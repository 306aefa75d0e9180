#include "plugin/transfer/source.h"

#include <algorithm>
#include <array>
#include <thread>
#include <utility>

#include "plugin/base/log.h"
#include "plugin/base/thread.h"
#include "plugin/base/ticker.h"
#include "plugin/core/mutex.h"
#include "plugin/transfer/pooled_read.h"

namespace siphon {

namespace {

constexpr std::chrono::milliseconds kLeaseSlice{100};

}  // namespace

Error SourceService::busy(std::string_view what) const {
  return fail_busy(settings_.device + " is busy: " + std::string(what), Side::kSource,
                   "try again in " + std::to_string(settings_.queue_timeout.count() / 1000) + " s")
      .value();
}

Result<BufferPool::Buffer> SourceService::lease(std::uint64_t frame_bytes, std::stop_token stop) {
  // A stream that may run soon finds the memory that earlier ones have given back. It waits in
  // slices, so that a cancel is seen.
  const Deadline until = deadline_in(settings_.queue_timeout);
  for (;;) {
    const Deadline slice = std::min(until, deadline_in(kLeaseSlice));
    auto buffer = send_pool_.acquire(2 * BufferPool::whole_granules(frame_bytes), slice);
    if (buffer) return buffer;
    if (stop.stop_requested()) return fail(Code::kCancelled, "the transfer was cancelled");
    if (buffer.error().code != Code::kDeadlineExceeded) return buffer;
    if (Deadline::clock::now() >= until) return fail(busy("it has no send memory left"));
  }
}

StreamRequest SourceService::request_of(const StreamCall& call) const {
  const MinimumRate minimum_rate{
      std::min(call.minimum_rate.idle_timeout, settings_.minimum_rate.idle_timeout),
      std::max(call.minimum_rate.min_bytes_per_second,
               settings_.minimum_rate.min_bytes_per_second)};
  const std::uint64_t rate = lower_rate(call.bytes_per_second, settings_.bytes_per_second);
  StreamRequest request;
  request.extents = call.extents;
  request.target = call.data;
  request.ticket = call.ticket.clone();
  request.lanes = call.lanes;
  request.max_frame_bytes = std::min(call.max_frame_bytes, frame_bytes_for(settings_, rate));
  request.minimum_rate = minimum_rate;
  request.in_order = call.in_order;
  request.deadline = deadline_in(std::min(call.deadline, settings_.transfer_timeout));
  return request;
}

namespace {

// A message costs more than what a result's publish loses by waiting so long for others.
constexpr std::chrono::milliseconds kGather{4};
constexpr std::size_t kGroup = 64;

// Collects results and hands them on in groups, so that thousands of small extents do not become
// thousands of messages. One thread calls on_report.
class ResultBatcher {
 public:
  explicit ResultBatcher(const std::function<void(const SourceReport&)>& on_report)
      : on_report_(on_report) {}
  ~ResultBatcher() {
    {
      const MutexLock lock(mutex_);
      closed_ = true;
    }
    changed_.notify_all();
  }

  // Before anything is added. An error: there is no thread, and nothing will be handed on.
  Status start(std::string device) {
    auto thread = start_thread(Side::kSource, [this, device = std::move(device)] { run(device); });
    if (!thread) return fail(std::move(thread).error());
    thread_ = std::move(*thread);
    return {};
  }

  void add(ExtentResult r) {
    SourceReport::Extent e{r.extent_index, fail(Code::kUnknown, "no claim")};
    if (r.status) {
      e.claim = SourceClaim{r.info.header, r.bytes, r.crc32};
    } else {
      e.claim = fail(std::move(r.status).error());
    }
    {
      const MutexLock lock(mutex_);
      waiting_.push_back(std::move(e));
      if (waiting_.size() != 1 && waiting_.size() != kGroup) return;
    }
    changed_.notify_all();
  }
  void set_bottleneck(Bottleneck bottleneck) {
    {
      const MutexLock lock(mutex_);
      if (bottleneck == bottleneck_) return;
      bottleneck_ = bottleneck;
      bottleneck_news_ = true;
    }
    changed_.notify_all();
  }

 private:
  void run(const std::string& device) {
    SourceReport first;
    first.source_device = device;
    on_report_(first);
    MutexLock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this]() SIPHON_REQUIRES(mutex_) {
        return closed_ || bottleneck_news_ || !waiting_.empty();
      });
      changed_.wait_for(lock, kGather, [this]() SIPHON_REQUIRES(mutex_) {
        return closed_ || waiting_.size() >= kGroup;
      });
      if (waiting_.empty() && !bottleneck_news_) return;
      SourceReport report;
      report.source_device = device;
      report.extents.swap(waiting_);
      report.bottleneck = bottleneck_;
      bottleneck_news_ = false;
      lock.unlock();
      on_report_(report);
      lock.lock();
    }
  }

  const std::function<void(const SourceReport&)>& on_report_;
  Mutex mutex_;
  Condition changed_;
  std::vector<SourceReport::Extent> waiting_ SIPHON_GUARDED_BY(mutex_);
  Bottleneck bottleneck_ SIPHON_GUARDED_BY(mutex_) = Bottleneck::kNone;
  bool bottleneck_news_ SIPHON_GUARDED_BY(mutex_) = false;
  bool closed_ SIPHON_GUARDED_BY(mutex_) = false;
  std::jthread thread_;  // last: it ends before what it uses
};

// One stream in the device's counters: what it has sent so far, and that it is there.
class OutgoingCount {
 public:
  OutgoingCount(DeviceCounters& counters, const StreamSender& sender)
      : counters_(counters), sender_(sender) {
    counters_.transfers_out.fetch_add(1);
  }
  ~OutgoingCount() {
    bring_up_to_date();
    counters_.transfers_out.fetch_sub(1);
  }
  OutgoingCount(const OutgoingCount&) = delete;
  OutgoingCount& operator=(const OutgoingCount&) = delete;

  // One thread at a time.
  void bring_up_to_date() {
    const SenderCounters now = sender_.counters();
    counters_.bytes_sent.fetch_add(now.bytes_sent - counted_.bytes_sent, kRelaxed);
    counters_.fallback_parts.fetch_add(now.fallback_parts - counted_.fallback_parts, kRelaxed);
    counted_ = now;
  }

 private:
  static constexpr auto kRelaxed = std::memory_order_relaxed;
  DeviceCounters& counters_;
  const StreamSender& sender_;
  SenderCounters counted_;
};

// What the source's lanes have waited for most since it was asked last.
class BottleneckWatch {
 public:
  BottleneckWatch(const LaneTimes& times, bool own_throttle) : times_(times), own_(own_throttle) {}

  Bottleneck next() {
    const auto& throttles = times_.waiting_for_throttle_ns;
    const std::array<std::pair<Bottleneck, std::uint64_t>, 4> now = {{
        {Bottleneck::kLanes, times_.in_socket_ns.load()},
        {Bottleneck::kSourceStore, times_.waiting_for_buffer_ns.load()},
        {own_ ? Bottleneck::kSetting : Bottleneck::kSourceSetting, throttles[0].load()},
        {Bottleneck::kSourceSetting, throttles[1].load()},
    }};
    Bottleneck most = Bottleneck::kNone;
    std::uint64_t longest_ns = 0;
    for (std::size_t i = 0; i < now.size(); ++i) {
      const std::uint64_t waited_ns = now[i].second - std::exchange(last_[i], now[i].second);
      if (waited_ns <= longest_ns) continue;
      longest_ns = waited_ns;
      most = now[i].first;
    }
    return most;
  }

 private:
  const LaneTimes& times_;
  const bool own_;  // the first throttle is the transfer's own
  std::array<std::uint64_t, 4> last_{};
};

}  // namespace

StreamEnd SourceService::report_headers(const StreamCall& call, ExtentStore& store,
                                        const std::function<void(const SourceReport&)>& on_report,
                                        const std::stop_token& stop) {
  StreamEnd end;
  const Deadline until = deadline_in(call.deadline);
  // A file's size is one look away; an extent in a pool has many parts.
  const bool are_files = !store.identity().node.empty();
  for (std::uint32_t i = 0; i < call.extents.size(); ++i) {
    if (stop.stop_requested() || std::chrono::steady_clock::now() > until) {
      end.status = fail(Code::kCancelled, "the target has hung up");
      break;
    }
    auto info = store.stat(call.extents[i]);
    SourceReport report{
        settings_.device, {{i, fail(Code::kUnknown, "no claim")}}, Bottleneck::kNone};
    if (!info) {
      report.extents[0].claim = fail(std::move(info).error());
    } else if (info->state != ExtentState::kSealed) {
      report.extents[0].claim =
          fail(Code::kFailedPrecondition, "extent " + call.extents[i] + " is open");
    } else {
      report.extents[0].claim =
          SourceClaim{info->header, info->header.extent_bytes, info->header.crc32};
    }
    on_report(report);
    if (!report.extents[0].claim || !are_files) continue;
    // What was sealed is said first: by that an extent is found to be at the target already, though
    // it could not be sent any more.
    if (Status whole = store.check_parts(*info); !whole) {
      report.extents[0].claim = fail(std::move(whole).error());
      on_report(report);
    }
  }
  return end;
}

StreamEnd SourceService::stream(const StreamCall& call, ExtentStore& store,
                                const std::function<void(const SourceReport&)>& on_report,
                                std::stop_token stop) {
  StreamEnd end;
  end.status = store.check_ready(/*writable=*/false);
  if (!end.status) return end;
  if (call.target_store.same_as(store.identity())) {
    end.status = fail(Error{Code::kInvalidArgument,
                            "source and target are one and the same store: " + settings_.device +
                                " and " + call.target_device + "; nothing was copied",
                            Side::kRequester, "name another target", Reason::kSameThing});
    return end;
  }
  if (call.headers_only) return report_headers(call, store, on_report, stop);
  const auto place = streams_.enter(deadline_in(settings_.queue_timeout), stop);
  if (!place) {
    end.status = stop.stop_requested()
                     ? Status(fail(Code::kCancelled, "the transfer was cancelled"))
                     : Status(fail(busy(std::to_string(streams_.inside()) + " transfers out")));
    return end;
  }
  StreamRequest request = request_of(call);
  auto leased = lease(std::max<std::uint64_t>(request.max_frame_bytes, BufferPool::kGranule), stop);
  if (!leased) {
    end.status = fail(std::move(leased).error());
    return end;
  }
  BufferPool pool(*leased);
  // Both hold: what this transfer may have, and what all of this device's may have together.
  Throttle own_throttle(call.bytes_per_second);
  if (call.bytes_per_second != 0) request.throttles.push_back(&own_throttle);
  if (throttle_.rate() != 0) request.throttles.push_back(&throttle_);
  ResultBatcher batcher(on_report);
  end.status = batcher.start(settings_.device);
  if (!end.status) return end;
  StreamSender sender(store, pool, std::move(request),
                      [&batcher](ExtentResult r) { batcher.add(std::move(r)); });
  std::stop_callback wake(stop, [&sender] { sender.cancel(); });
  OutgoingCount count(counters_, sender);
  {
    // Without a thread for it the stream goes on: what limits it is not told, its bytes at its end.
    BottleneckWatch bottleneck(sender.lane_times(), call.bytes_per_second != 0);
    const auto watch = Ticker::start(Side::kSource, std::chrono::milliseconds(500), [&] {
      batcher.set_bottleneck(bottleneck.next());
      count.bring_up_to_date();
      return true;
    });
    end.status = sender.run();
  }
  end.fallback_parts = sender.counters().fallback_parts;
  log::info("stream for transfer {} to {}: {}", call.transfer_id, call.target_device,
            end.status ? "done" : end.status.error().message);
  return end;
}

namespace {

// In portions, so that streams under the same limit have their turns in between.
Status take_in_portions(Throttle& throttle, std::uint64_t bytes, std::stop_token stop) {
  while (bytes > 0) {
    const std::uint64_t rate = throttle.rate();
    const std::uint64_t portion =
        rate == 0 ? bytes : std::min(bytes, std::max<std::uint64_t>(1, rate / 20));
    SIPHON_TRY(throttle.wait(throttle.line_up(portion), Deadline::max(), stop));
    bytes -= portion;
  }
  return {};
}

}  // namespace

Status read_range(ExtentReader& reader, BufferPool& pool, std::uint32_t operation_bytes,
                  std::uint64_t offset_bytes, std::span<std::byte> out) {
  const std::uint64_t part = std::max<std::uint64_t>(reader.info().header.part_bytes, 1);
  return read_pooled(
      pool, operation_bytes, reader.info().is_inline ? 0 : part, offset_bytes, out,
      [&](std::uint64_t at, std::span<std::byte> piece) { return reader.read(at, piece); });
}

VerifyOutcome SourceService::verify(ExtentStore& store, const std::string& extent,
                                    const std::function<Status(std::uint64_t)>& on_progress,
                                    std::stop_token stop) {
  VerifyOutcome outcome;
  outcome.extent = extent;
  const auto place = verifies_.enter(deadline_in(settings_.queue_timeout), stop);
  if (!place) {
    outcome.status = stop.stop_requested() ? Status(fail(Code::kCancelled, "verify was cancelled"))
                                           : Status(fail(busy("it verifies other extents")));
    return outcome;
  }
  auto reader = store.open(extent, {});
  if (!reader) {
    outcome.status = fail(std::move(reader).error());
    return outcome;
  }
  const ExtentInfo& info = (*reader)->info();
  outcome.header = info.header;
  outcome.private_id = info.private_id;
  const std::uint32_t operation = store.limits().operation_bytes;
  auto verified = verify_extent(
      [&](std::uint64_t offset, std::span<std::byte> out) -> Status {
        if (stop.stop_requested()) return fail(Code::kCancelled, "verify was cancelled");
        SIPHON_TRY(take_in_portions(throttle_, out.size(), stop));
        return read_range(**reader, send_pool_, operation, offset, out);
      },
      info.header, on_progress);
  if (!verified) {
    outcome.status = fail(std::move(verified).error().with_context("extent " + extent));
    return outcome;
  }
  outcome.bytes = verified->extent_bytes;
  outcome.crc32 = verified->crc32;
  outcome.block_count = verified->block_count;
  outcome.content_digest = verified->content_digest;
  return outcome;
}

}  // namespace siphon
