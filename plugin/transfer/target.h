// TargetTransfer: the choreography, as the target runs it. One object per transfer id.
//
// `run` is one blocking thread that reads from top to bottom as design.md section 2 does: reserve,
// open the port, make the second call, take in the lanes, compare, publish, answer. Beside it run,
// for as long as the transfer streams: one thread for the second call, one per lane (receive,
// verify), as many writers (store, publish) as the frames that wait need. All of them end before
// `run` returns.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <semaphore>
#include <stop_token>
#include <string>
#include <vector>

#include "adapters/extent_store.h"
#include "plugin/base/buffer_pool.h"
#include "plugin/base/clock.h"
#include "plugin/base/throttle.h"
#include "plugin/base/work_queue.h"
#include "plugin/core/mutex.h"
#include "plugin/stream/listener.h"
#include "plugin/stream/receiver.h"
#include "plugin/transfer/counters.h"
#include "plugin/transfer/journal.h"
#include "plugin/transfer/machine.h"
#include "plugin/transfer/second_call.h"
#include "plugin/transfer/settings.h"
#include "plugin/transfer/target_extent.h"
#include "plugin/transfer/types.h"

namespace siphon {

// What a transfer uses and does not own; everything outlives it.
struct TargetEnvironment {
  const TransferSettings& settings;
  BufferPool& receive_pool;
  AttemptJournal& journal;
  SourceCaller& caller;
  DeviceCounters& counters;
  Throttle& receive_throttle;  // all that comes in, together
  // Told of scratch that could not be removed; its row stays in the journal. Must not block.
  std::function<void(Attempt)> left_behind = {};
  const Clock& clock = Clock::system();  // of what it does again, or gives up, in time
};

class TargetTransfer final : private FrameSink {
 public:
  // `known`: receipts that earlier tries of the same transfer have earned.
  TargetTransfer(TransferSpec spec, ExtentStore& store, TargetEnvironment environment,
                 std::vector<Receipt> known = {});
  ~TargetTransfer() override;

  // Once, on a thread of its own. Afterwards the phase is final and nothing of it runs.
  void run();
  // From any thread, any number of times. What is published stays published. One that has not begun
  // ends at once.
  void cancel();
  // Ends a transfer that never ran (the queue was closed).
  void refuse(Error error);

  // What is new since `*cursor` outcomes; waits up to `timeout` for something. Any thread.
  struct Update {
    Progress progress;
    std::vector<ExtentOutcome> outcomes;
    std::optional<Summary> summary;  // the transfer has ended and this is all of it
  };
  Update wait_update(std::size_t* cursor, std::chrono::milliseconds timeout);

  const TransferSpec& spec() const { return spec_; }
  TransferInfo info() const;
  std::vector<Receipt> receipts() const;  // so far

 private:
  // Of large extents (spec.check_blocks); each has a buffer of 4 MiB, and 48 bytes for a block.
  static constexpr int kBlockChecksAtOnce = 2;
  struct Extent;
  // A writer's task.
  struct Task {
    ReceivedFrame frame;         // to be stored, when it has a payload
    Extent* complete = nullptr;  // else: to be published, if it is complete
                                 // neither: small ones that are ready
  };

  void settle_known();
  void refuse_too_large();
  void look_at_names();
  void settle_taken();
  void ask_headers(const std::vector<Extent*>& extents);
  StreamCall second_call_for(const std::vector<Extent*>& extents) const;
  Status reserve(BufferPool::Buffer* lease);
  Status stream(BufferPool& pool);
  std::uint16_t lanes() const;
  Status run_lanes(Listener& listener, const Ticket& ticket, StreamCall call, BufferPool& pool);
  Status receive_all(std::vector<Socket>& sockets, BufferPool& pool, const ReceiveOptions& options);
  void make_second_call(const StreamCall& call, Listener& listener);
  void note_second_call_ended(Error error);
  void note_lanes_ended();
  void await_second_call(std::chrono::milliseconds at_most);
  void give_up_if_hopeless();
  bool any_was_cancelled();
  void finish(Status attempt);
  struct LastLook;
  void look_for_bottleneck(LastLook& last);

  Result<bool> admit(const FrameHeader& header) override;
  Status deliver(ReceivedFrame frame) override;
  Status bad_frame(const FrameHeader& header, std::uint32_t sent, std::uint32_t received) override;
  void lane_broken(const Error& error) override;

  void on_report(const SourceReport& report);
  void do_task(Task task);
  void store_frame(ReceivedFrame frame);
  void begin_first_extents();
  void publish_if_complete(Extent& extent);
  Status check_blocks(Extent& extent);
  std::size_t group_locked() const SIPHON_REQUIRES(mutex_);
  void start_publishers();
  void publish_ready();
  std::vector<Extent*> take_ready_locked() SIPHON_REQUIRES(mutex_);
  void published_locked(Extent& extent, Status status) SIPHON_REQUIRES(mutex_);
  void step(Event event);
  void add_outcome_locked(Extent& extent) SIPHON_REQUIRES(mutex_);
  Receipt receipt_of(const Extent& extent, const SourceClaim& claim, std::uint32_t target_crc32,
                     const PrivateId& id) const SIPHON_REQUIRES(mutex_);
  Progress progress_locked() const SIPHON_REQUIRES(mutex_);

  const TransferSpec spec_;
  ExtentStore& store_;
  const TargetEnvironment env_;
  const StoreLimits store_limits_;
  std::vector<Receipt> known_;  // until it runs
  std::stop_source stop_;       // before the place, which has its token
  std::stop_source cancel_;     // asked to end; stop_ also ends a stream that is of no use any more
  const TargetPlace place_;
  std::vector<std::unique_ptr<Extent>> extents_;
  std::vector<Extent*> wanted_;  // those that are streamed, in the order of the frames' indices
  LaneTimes times_;
  LastData last_data_;
  std::optional<WorkQueue<Task>> writers_;  // while it streams
  BufferPool* pool_ = nullptr;              // while it streams
  std::counting_semaphore<> block_checks_{kBlockChecksAtOnce};
  std::uint64_t started_unix_ms_;
  std::chrono::steady_clock::time_point started_at_;

  mutable Mutex mutex_;  // also of what changes in extents_ while it streams
  std::condition_variable_any changed_;
  std::atomic<bool> cancel_requested_{false};
  std::atomic<std::uint64_t> fallback_parts_{0};
  bool began_ SIPHON_GUARDED_BY(mutex_) = false;     // it runs, or has ended without
  bool hopeless_ SIPHON_GUARDED_BY(mutex_) = false;  // every extent has failed
  bool second_call_ended_ SIPHON_GUARDED_BY(mutex_) = false;
  bool lanes_ended_ SIPHON_GUARDED_BY(mutex_) = false;
  Phase phase_ SIPHON_GUARDED_BY(mutex_) = Phase::kQueued;
  Bottleneck bottleneck_ SIPHON_GUARDED_BY(mutex_) = Bottleneck::kNone;
  Bottleneck source_bottleneck_ SIPHON_GUARDED_BY(mutex_) = Bottleneck::kNone;
  std::string source_device_ SIPHON_GUARDED_BY(mutex_);
  std::string data_endpoint_ SIPHON_GUARDED_BY(mutex_);
  // Of the sized_count_ extents that have begun to arrive.
  std::uint64_t sized_bytes_ SIPHON_GUARDED_BY(mutex_) = 0;
  std::size_t sized_count_ SIPHON_GUARDED_BY(mutex_) = 0;
  // That are to arrive: what is there already is not among them.
  std::size_t wanted_count_ SIPHON_GUARDED_BY(mutex_) = 0;
  std::uint64_t received_bytes_ SIPHON_GUARDED_BY(mutex_) = 0;
  std::uint64_t durable_bytes_ SIPHON_GUARDED_BY(mutex_) = 0;
  std::size_t pieces_ SIPHON_GUARDED_BY(mutex_) = 0;               // that all sessions remember
  std::deque<Extent*> ready_ SIPHON_GUARDED_BY(mutex_);            // small ones, to be published
  std::size_t publishers_ SIPHON_GUARDED_BY(mutex_) = 0;           // writers that publish these
  std::size_t publishers_to_start_ SIPHON_GUARDED_BY(mutex_) = 0;  // of which have not begun
  std::uint32_t done_count_ SIPHON_GUARDED_BY(mutex_) = 0;
  std::uint32_t there_count_ SIPHON_GUARDED_BY(mutex_) = 0;  // of those, already there
  std::uint32_t failed_count_ SIPHON_GUARDED_BY(mutex_) = 0;
  std::optional<std::chrono::steady_clock::time_point> first_frame_at_ SIPHON_GUARDED_BY(mutex_),
      last_durable_at_ SIPHON_GUARDED_BY(mutex_);
  StreamEnd stream_end_ SIPHON_GUARDED_BY(mutex_);
  std::uint64_t lane_bytes_ SIPHON_GUARDED_BY(mutex_) = 0;
  std::uint64_t rejected_connections_ SIPHON_GUARDED_BY(mutex_) = 0;
  std::uint64_t header_rpc_bytes_ SIPHON_GUARDED_BY(mutex_) = 0;
  std::uint64_t published_bytes_ SIPHON_GUARDED_BY(mutex_) = 0;
  std::vector<ExtentOutcome> outcomes_ SIPHON_GUARDED_BY(mutex_);
  std::optional<Summary> summary_ SIPHON_GUARDED_BY(mutex_);
};

}  // namespace siphon
