#include "plugin/transfer/target.h"

#include <algorithm>
#include <limits>
#include <system_error>
#include <thread>

#include "plugin/base/log.h"
#include "plugin/base/text.h"
#include "plugin/base/thread.h"
#include "plugin/base/ticker.h"
#include "plugin/transfer/target_impl.h"

namespace siphon {

using std::chrono::duration_cast;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

// How many extents' scratch is made while the lanes are still being opened.
constexpr std::size_t kBeginEarly = 4;
// Between the frames of all extents, which bounds what is remembered of them.
constexpr std::size_t kMostGaps = 4096;
// Bytes per second below which a transfer has one lane.
constexpr std::uint64_t kOneLaneRate = kMiB;

// How often it is seen what limits a transfer.
constexpr milliseconds kLook{500};

// What one half of a transfer leaves the other, once it is over, to end by itself.
constexpr std::chrono::seconds kLastMoment{2};

// What a lane's own bytes have shown, and no broken connection can explain.
bool are_wrong_bytes(const Error& error) {
  return error.code == Code::kDataLoss || error.code == Code::kInvalidArgument ||
         error.code == Code::kOutOfRange;
}

}  // namespace

TargetTransfer::TargetTransfer(TransferSpec spec, ExtentStore& store, TargetEnvironment environment,
                               std::vector<Receipt> known)
    : spec_(std::move(spec)),
      store_(store),
      env_(environment),
      store_limits_(store.limits()),
      known_(std::move(known)),
      place_{store,
             environment.journal,
             spec_,
             environment.settings.scratch_lease,
             environment.settings.settle_timeout,
             stop_.get_token(),
             environment.left_behind,
             environment.clock},
      started_unix_ms_(now_unix_ms()),
      started_at_(steady_clock::now()) {
  extents_.reserve(spec_.extents.size());
  for (std::uint32_t i = 0; i < spec_.extents.size(); ++i) {
    extents_.push_back(std::make_unique<Extent>(i, spec_.extents[i], place_));
    const std::uint64_t planned = spec_.extents[i].planned_bytes;
    extents_.back()->begins_early = i < kBeginEarly && planned > store_limits_.inline_max_bytes &&
                                    planned <= env_.settings.max_extent_bytes;
  }
}

TargetTransfer::~TargetTransfer() = default;

// ---- the thread that runs it -----------------------------------------------------------------

void TargetTransfer::run() {
  {
    const MutexLock lock(mutex_);
    if (std::exchange(began_, true)) return;  // cancelled while it waited
  }
  step(Event::kStarted);
  BufferPool::Buffer lease;
  Status status = reserve(&lease);
  if (status && wanted_.empty()) {
    for (const Event event :
         {Event::kReserved, Event::kLanesProven, Event::kAllReceived, Event::kAllCompared}) {
      step(event);
    }
  } else if (status) {
    step(Event::kReserved);
    BufferPool pool(lease);
    pool_ = &pool;
    std::stop_callback wake(stop_.get_token(), [&pool] { pool.close(); });
    status = stream(pool);
    for (auto& extent : extents_) extent->held = {};  // buffers go back before their pool does
  }
  finish(std::move(status));
}

// Checks the target, settles what can be settled before the first byte, and leases this transfer's
// share of the receive memory: two frames.
Status TargetTransfer::reserve(BufferPool::Buffer* lease) {
  settle_known();
  SIPHON_TRY(store_.check_ready(/*writable=*/true));
  refuse_too_large();
  look_at_names();
  settle_taken();
  {
    const MutexLock lock(mutex_);
    for (auto& extent : extents_) {
      if (!extent->machine.done()) wanted_.push_back(extent.get());
    }
    wanted_count_ = wanted_.size();
    if (wanted_.empty()) {
      const auto failed = std::ranges::find_if(
          extents_, [](const auto& e) { return e->machine.error().has_value(); });
      if (failed != extents_.end() && done_count_ == 0) return fail(*(*failed)->machine.error());
      return {};
    }
  }
  auto buffer =
      env_.receive_pool.acquire(2 * BufferPool::whole_granules(env_.settings.max_frame_bytes),
                                deadline_in(env_.settings.queue_timeout));
  if (!buffer) {
    return fail_busy(env_.settings.device + " has no receive memory left: busy", Side::kTarget,
                     "try again in a minute, or raise the region's size");
  }
  *lease = std::move(*buffer);
  return {};
}

StreamCall TargetTransfer::second_call_for(const std::vector<Extent*>& extents) const {
  StreamCall call;
  call.transfer_id = spec_.id;
  call.attempt = spec_.attempt;
  call.source_address = spec_.source_address;
  call.source = spec_.source;
  for (const Extent* extent : extents) call.extents.push_back(extent->pair.source);
  call.target_device = env_.settings.device;
  const std::uint64_t rate = lower_rate(spec_.bytes_per_second, env_.settings.bytes_per_second);
  call.lanes = lanes();
  call.in_order = store_limits_.in_order;
  call.bytes_per_second = rate;
  call.max_frame_bytes = frame_bytes_for(env_.settings, rate);
  call.minimum_rate = env_.settings.minimum_rate;
  call.deadline = env_.settings.transfer_timeout;
  const auto keeps_its_name = [](const ExtentPair& pair) { return pair.source == pair.target; };
  if (std::ranges::any_of(spec_.extents, keeps_its_name)) call.target_store = store_.identity();
  call.source_key = spec_.source_key;
  return call;
}

// Opens the port, makes the second call, and takes in what comes.
Status TargetTransfer::stream(BufferPool& pool) {
  auto opened = Listener::open(env_.settings.data_address, env_.settings.data_ports);
  if (!opened) return fail(std::move(opened).error().with_suspect(Side::kTarget));
  Listener listener = std::move(*opened);

  StreamCall call = second_call_for(wanted_);
  call.data = listener.endpoint();
  const Ticket ticket = Ticket::make(ticket_binding(call));
  call.ticket = ticket.clone();
  {
    const MutexLock lock(mutex_);
    data_endpoint_ = listener.endpoint().to_string();
  }
  changed_.notify_all();
  return run_lanes(listener, ticket, std::move(call), pool);
}

// A slow transfer needs but one, and its frames would wait for each other on several.
std::uint16_t TargetTransfer::lanes() const {
  if (store_limits_.in_order) return 1;
  const std::uint64_t rate = lower_rate(spec_.bytes_per_second, env_.settings.bytes_per_second);
  if (rate != 0 && rate < kOneLaneRate) return 1;
  return spec_.lanes != 0 ? spec_.lanes : env_.settings.lanes;
}

Status TargetTransfer::run_lanes(Listener& listener, const Ticket& ticket, StreamCall call,
                                 BufferPool& pool) {
  const std::uint16_t lane_count = call.lanes;
  // An extent that is too large is its own fault, and not its lane's: see admit().
  const FrameLimits limits{static_cast<std::uint32_t>(wanted_.size()), call.max_frame_bytes,
                           std::numeric_limits<std::uint64_t>::max()};
  last_data_.note();
  Throttle& throttle = env_.receive_throttle;
  const ReceiveOptions options{limits,
                               call.minimum_rate,
                               deadline_in(call.deadline),
                               &last_data_,
                               throttle.rate() != 0 ? &throttle : nullptr,
                               stop_.get_token()};
  std::stop_callback stop_listening(stop_.get_token(), [&listener] { listener.cancel(); });

  try {
    const std::uint32_t writers = store_limits_.in_order ? 1 : env_.settings.writers;
    writers_.emplace(writers, [this](Task task) { do_task(std::move(task)); });
  } catch (const std::system_error& e) {
    return fail_without_thread(Side::kTarget, e);
  }
  env_.counters.open_data_ports.fetch_add(1);
  // The first write must not wait for a reservation that waits behind the source's first reads.
  const auto early =
      start_thread(Side::kTarget, [this] { begin_first_extents(); });  // else the first frame does
  auto second_call =
      start_thread(Side::kTarget, [&, call = std::make_shared<StreamCall>(std::move(call))] {
        make_second_call(*call, listener);
      });
  if (!second_call) {
    note_second_call_ended(second_call.error());
    listener.cancel();
  }
  auto sockets = listener.accept_lanes(
      ticket, lane_count, deadline_in(env_.settings.queue_timeout + env_.settings.connect_timeout));
  env_.counters.open_data_ports.fetch_sub(1);
  env_.counters.rejected_connections.fetch_add(listener.rejected_connections());

  Status status;
  if (sockets) {
    step(Event::kLanesProven);
    status = receive_all(*sockets, pool, options);
    note_lanes_ended();
    if (status) step(Event::kAllReceived);
    await_second_call(status ? env_.settings.second_call_timeout : kLastMoment);
    if (second_call) second_call->join();
    if (status) step(Event::kAllCompared);
    const MutexLock lock(mutex_);
    for (const Socket& s : *sockets) lane_bytes_ += s.received_bytes() + s.sent_bytes();
  } else {
    note_lanes_ended();
    stop_.request_stop();
    if (second_call) second_call->join();
    status = fail(std::move(sockets).error());
  }
  writers_.reset();  // when all is stored
  const MutexLock lock(mutex_);
  rejected_connections_ += listener.rejected_connections();
  // A hopeless stream was cut by ourselves: every extent has its own error already.
  if (hopeless_ && !cancel_requested_) {
    const Error& first = *wanted_.front()->machine.error();
    return fail(extents_.size() == 1
                    ? first
                    : first.with_context("no extent of this transfer could be copied; the first"));
  }
  // The second call knows best why nothing came.
  const bool seen_here = !status && are_wrong_bytes(status.error());
  if (!seen_here && !stream_end_.status && stream_end_.status.error().code != Code::kCancelled) {
    return fail(stream_end_.status.error());
  }
  return status;
}

// One thread per lane, until all have ended. The error that is told is the first that is no mere
// consequence.
Status TargetTransfer::receive_all(std::vector<Socket>& sockets, BufferPool& pool,
                                   const ReceiveOptions& options) {
  const auto cut_all = [&sockets] {
    for (Socket& s : sockets) s.shutdown();
  };
  give_up_if_hopeless();  // if that was seen before there was a lane to cut
  std::vector<Status> ends(sockets.size());
  const auto look = Ticker::start(Side::kTarget, kLook, [this, last = LastLook{}]() mutable {
    look_for_bottleneck(last);
    return true;
  });
  {
    std::stop_callback cut(stop_.get_token(), cut_all);
    std::vector<std::jthread> lanes;
    for (std::size_t i = 0; i < sockets.size(); ++i) {
      auto lane = start_thread(Side::kTarget, [&, i] {
        ends[i] = receive_lane(sockets[i], pool, options, *this, times_);
        // One lane lost ends the attempt: the others would wait for frames that never come.
        if (!ends[i]) cut_all();
      });
      if (!lane) {
        ends[i] = fail(std::move(lane).error());
        cut_all();
        break;
      }
      lanes.push_back(std::move(*lane));
    }
  }
  Status status;
  for (Status& end : ends) {
    if (!end && (status || status.error().code == Code::kCancelled)) status = std::move(end);
  }
  return status;
}

void TargetTransfer::note_second_call_ended(Error error) {
  const MutexLock lock(mutex_);
  stream_end_.status = fail(std::move(error));
  second_call_ended_ = true;
}

void TargetTransfer::make_second_call(const StreamCall& call, Listener& listener) {
  // The call may wait for its turn at the source, whose first report says that it has come.
  std::once_flag begun;
  StreamEnd end = env_.caller.stream(
      call,
      [&](const SourceReport& report) {
        std::call_once(begun,
                       [&] { listener.expect_by(deadline_in(env_.settings.connect_timeout)); });
        on_report(report);
      },
      stop_.get_token());
  const bool failed = !end.status;
  {
    const MutexLock lock(mutex_);
    stream_end_ = std::move(end);
    second_call_ended_ = true;
  }
  changed_.notify_all();
  if (!failed) return;
  listener.cancel();  // nobody will connect any more
  // Nor will a claim come. The lanes end when the source gives up, unless they wait for memory that
  // only claims would free.
  MutexLock lock(mutex_);
  if (changed_.wait_for(lock, kLastMoment,
                        [this]() SIPHON_REQUIRES(mutex_) { return lanes_ended_; })) {
    return;
  }
  lock.unlock();
  stop_.request_stop();
}

void TargetTransfer::note_lanes_ended() {
  {
    const MutexLock lock(mutex_);
    lanes_ended_ = true;
  }
  changed_.notify_all();
}

// The lanes have ended. A source that still speaks knows why one is gone, or has the last claims to
// tell: it gets a while for that, then this end hangs up.
void TargetTransfer::await_second_call(milliseconds at_most) {
  {
    MutexLock lock(mutex_);
    if (changed_.wait_for(lock, at_most,
                          [this]() SIPHON_REQUIRES(mutex_) { return second_call_ended_; })) {
      if (stream_end_.status) return;
    }
  }
  stop_.request_stop();
}

// With no extent left that could still be published, the rest of the stream is of no use.
// Before it streams and after it, what is under way ends by itself.
void TargetTransfer::give_up_if_hopeless() {
  bool streams = false;
  {
    const MutexLock lock(mutex_);
    const auto has_failed = [](const Extent* e) {
      return e->machine.state() == ExtentMachine::State::kFailed;
    };
    if (!std::ranges::all_of(wanted_, has_failed)) return;
    hopeless_ = true;
    streams = phase_ == Phase::kStream && !lanes_ended_;
  }
  if (streams) stop_.request_stop();
}

// When the lanes had brought everything before the cancel came.
bool TargetTransfer::any_was_cancelled() {
  const MutexLock lock(mutex_);
  return std::ranges::any_of(extents_, [](const auto& extent) {
    const std::optional<Error>& error = extent->machine.error();
    return error && error->code == Code::kCancelled;
  });
}

void TargetTransfer::finish(Status attempt) {
  if (cancel_requested_ && (!attempt || any_was_cancelled())) {
    attempt =
        fail(Code::kCancelled,
             "the transfer was cancelled; the source is untouched, nothing more is published");
  }
  if (!attempt) step(cancel_requested_ ? Event::kCancel : Event::kError);
  Error reason = attempt ? Error{Code::kDataLoss, "the source ended the stream without this extent",
                                 Side::kSource, "run the copy again"}
                         : attempt.error();
  {
    const MutexLock lock(mutex_);
    for (auto& extent : extents_) {
      Error e = reason;
      extent->on_error(std::move(e).with_context("extent " + extent->pair.source));
    }
  }
  settle_taken();
  // What cannot be removed in time is the collector's: nobody waits for it here.
  const Deadline until = env_.clock.now() + env_.settings.drop_timeout;
  for (auto& extent : extents_) {
    if (env_.clock.now() < until) {
      extent->stored.drop();
    } else {
      extent->stored.drop_later();
    }
  }
  const MutexLock lock(mutex_);
  for (auto& extent : extents_) add_outcome_locked(*extent);
  phase_ = next_phase(phase_, Event::kAllPublished, failed_count_ > 0);
  Summary s;
  s.phase = phase_;
  s.extents_done = done_count_;
  s.extents_already_there = there_count_;
  s.extents_failed = failed_count_;
  s.bytes = published_bytes_;
  durable_bytes_ = published_bytes_;  // of what has failed nothing is kept
  s.lane_bytes = lane_bytes_;
  s.rpc_bytes = stream_end_.rpc_bytes + header_rpc_bytes_;
  s.elapsed_ms = duration_cast<milliseconds>(steady_clock::now() - started_at_).count();
  if (first_frame_at_ && last_durable_at_) {
    s.stream_ms = duration_cast<milliseconds>(*last_durable_at_ - *first_frame_at_).count();
  }
  s.rejected_connections = rejected_connections_;
  s.fallback_parts = stream_end_.fallback_parts + fallback_parts_;
  s.status = std::move(attempt);
  s.source_device = source_device_;
  s.target_device = env_.settings.device;
  s.data_endpoint = data_endpoint_;
  env_.counters.fallback_parts.fetch_add(fallback_parts_);  // the source counts its own
  log::info("transfer {}: {}, {} published, {} already there, {} failed, {} in {} ms{}", spec_.id,
            to_string(phase_), counted(done_count_ - there_count_, "extent"), there_count_,
            failed_count_, counted(s.bytes, "byte"), s.elapsed_ms,
            s.status ? "" : ": " + s.status.error().message);
  summary_ = std::move(s);
  wanted_.clear();
  extents_.clear();  // an ended transfer stays known for long, by its outcomes
  changed_.notify_all();
}

void TargetTransfer::refuse(Error error) {
  {
    const MutexLock lock(mutex_);
    if (std::exchange(began_, true)) return;
  }
  finish(fail(std::move(error)));
}

void TargetTransfer::cancel() {
  bool waited = false;
  {
    const MutexLock lock(mutex_);
    if (is_final(phase_)) return;
    cancel_requested_ = true;
    waited = !std::exchange(began_, true);
  }
  cancel_.request_stop();
  stop_.request_stop();
  if (waited) finish(fail(Code::kCancelled, "cancelled while it waited in line"));
}

// ---- what the lanes and the second call bring ------------------------------------------------

Result<bool> TargetTransfer::admit(const FrameHeader& header) {
  Extent& extent = *wanted_[header.extent_index];
  bool wanted = false;
  {
    const MutexLock lock(mutex_);
    if (!first_frame_at_) first_frame_at_ = steady_clock::now();
    if (header.extent_bytes <= env_.settings.max_extent_bytes) return !extent.machine.done();
    extent.on_error(
        too_large(extent.pair.source, header.extent_bytes, env_.settings.max_extent_bytes));
    wanted = !extent.machine.done();
  }
  give_up_if_hopeless();
  return wanted;
}

Status TargetTransfer::deliver(ReceivedFrame frame) {
  const FrameHeader h = frame.header;
  Extent& extent = *wanted_[h.extent_index];
  bool is_inline = false, too_many_gaps = false;
  {
    const MutexLock lock(mutex_);
    if (extent.machine.done()) return {};
    if (extent.started_unix_ms == 0) {
      extent.started_unix_ms = now_unix_ms();
      ++sized_count_;
      sized_bytes_ += h.extent_bytes;
    }
    const std::size_t pieces = extent.machine.pieces();
    if (!extent.machine.on_frame(h.extent_bytes, h.offset_bytes, h.length_bytes, frame.crc32)) {
      return {};  // that extent has failed; the lane goes on
    }
    pieces_ += extent.machine.pieces() - pieces;
    too_many_gaps = pieces_ > extents_.size() + kMostGaps;
    if (too_many_gaps) {
      extent.on_error({Code::kOutOfRange,
                       "extent " + extent.pair.source + ": the frames of this transfer leave " +
                           std::to_string(kMostGaps) + " gaps, more than can be under way",
                       Side::kSource,
                       {}});
    } else {
      received_bytes_ += h.length_bytes;
      env_.counters.bytes_received.fetch_add(h.length_bytes, std::memory_order_relaxed);
      is_inline = !spec_.replace && !extent.begins_early && h.length_bytes == h.extent_bytes &&
                  h.extent_bytes <= store_limits_.inline_max_bytes;
      if (is_inline) {
        extent.inline_candidate = true;
        extent.held = std::move(frame);
        if (!extent.machine.complete()) return {};  // the source's claim will find it
        ready_.push_back(&extent);
      }
    }
  }
  if (too_many_gaps) {
    give_up_if_hopeless();
  } else if (is_inline) {
    start_publishers();
  } else {
    writers_->push({std::move(frame)});
  }
  return {};
}

Status TargetTransfer::bad_frame(const FrameHeader& header, std::uint32_t sent,
                                 std::uint32_t received) {
  Extent& extent = *wanted_[header.extent_index];
  Error error{Code::kDataLoss,
              "extent " + extent.pair.source + ": checksum mismatch in the frame at byte " +
                  std::to_string(header.offset_bytes) + " (" + std::to_string(header.length_bytes) +
                  " bytes; source " + crc32_hex(sent) + ", target " + crc32_hex(received) +
                  "): suspect the wire; the source is untouched, nothing was published",
              Side::kWire, "run the copy again"};
  {
    const MutexLock lock(mutex_);
    extent.on_error(std::move(error));
  }
  give_up_if_hopeless();
  return {};
}

// Bytes that are wrong in themselves: that the source finds its lane closed only follows from it.
void TargetTransfer::lane_broken(const Error& error) {
  if (!are_wrong_bytes(error)) return;
  const MutexLock lock(mutex_);
  for (Extent* extent : wanted_) {
    extent->on_error(error.with_context("extent " + extent->pair.source));
  }
}

void TargetTransfer::on_report(const SourceReport& report) {
  std::vector<Extent*> large;
  bool one_has_failed = false;
  {
    const MutexLock lock(mutex_);
    if (!report.source_device.empty()) source_device_ = report.source_device;
    source_bottleneck_ = report.bottleneck;
    for (const SourceReport::Extent& e : report.extents) {
      if (e.index >= wanted_.size()) continue;
      Extent& extent = *wanted_[e.index];
      if (e.claim) {
        extent.machine.on_claim(*e.claim);
        if (!extent.machine.complete()) continue;
        if (extent.inline_candidate) {
          ready_.push_back(&extent);
        } else {
          large.push_back(&extent);
        }
      } else if (!cancel_requested_) {  // else it is our own cut that the source complains of
        Error error = e.claim.error();
        extent.on_error(std::move(error).with_suspect(Side::kSource));
        one_has_failed = true;
      }
    }
  }
  if (one_has_failed) give_up_if_hopeless();
  start_publishers();
  for (Extent* extent : large) writers_->push({{}, extent});
}

// ---- what watchers see -----------------------------------------------------------------------

void TargetTransfer::step(Event event) {
  {
    const MutexLock lock(mutex_);
    phase_ = next_phase(phase_, event, failed_count_ > 0);
  }
  changed_.notify_all();
}

void TargetTransfer::add_outcome_locked(Extent& extent) {
  if (extent.has_outcome) return;
  extent.has_outcome = true;
  ExtentOutcome outcome{extent.index, extent.pair.source, extent.pair.target,
                        fail(Code::kUnknown, "no outcome")};
  if (extent.machine.state() != ExtentMachine::State::kPublished) {
    ++failed_count_;
    outcome.result = fail(*extent.machine.error());
    outcome.left_for_good = extent.stored.left_for_good();
    outcomes_.push_back(std::move(outcome));
    return;
  }
  ++done_count_;
  if (extent.receipt && extent.receipt->already_there) ++there_count_;
  if (!extent.receipt) {
    extent.receipt = receipt_of(extent, *extent.machine.claim(), extent.machine.target_crc32(),
                                extent.stored.private_id());
    env_.journal.note(*extent.receipt);
  }
  outcome.result = *extent.receipt;
  outcomes_.push_back(std::move(outcome));
}

Receipt TargetTransfer::receipt_of(const Extent& extent, const SourceClaim& claim,
                                   std::uint32_t target_crc32, const PrivateId& id) const {
  Receipt r;
  r.transfer_id = spec_.id;
  r.source_extent = extent.pair.source;
  r.target_extent = extent.pair.target;
  r.source = spec_.source;
  r.target = spec_.target;
  r.source_device = source_device_;
  r.target_device = env_.settings.device;
  r.bytes = claim.bytes;
  r.source_crc32 = claim.crc32;
  r.target_crc32 = target_crc32;
  r.header = claim.header;
  r.private_id = id;
  r.data_endpoint = data_endpoint_;
  r.lanes = lanes();
  r.started_unix_ms = extent.started_unix_ms != 0 ? extent.started_unix_ms : started_unix_ms_;
  r.finished_unix_ms = now_unix_ms();
  r.attempts = spec_.attempt;
  r.fallback_parts = extent.stored.fallback_parts();
  r.blocks_checked = spec_.check_blocks;
  r.left_for_good = extent.stored.left_for_good();
  return r;
}

}  // namespace siphon
