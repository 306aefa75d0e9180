// Runs a copy plan: one transfer per group, several at once, and again for what can be mended by
// trying again.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "plugin/cli/copy_plan.h"
#include "plugin/cli/receipts.h"
#include "plugin/cli/session.h"
#include "plugin/core/mutex.h"

namespace siphon::cli {

// What all transfers of a copy did together.
struct CopyTotals {
  std::uint64_t bytes = 0;  // published
  // The targets' accounts. One is missing where a target was lost, or is left to go on: then what
  // these four are is not known.
  std::uint64_t lane_bytes = 0, rpc_bytes = 0, rejected_connections = 0, fallback_parts = 0;
  bool accounts_complete = true;
  std::set<std::string> transfers;  // their ids, of those that a target was asked for
  std::uint32_t retried = 0;
  std::uint64_t receipts_lost = 0;
  std::string receipts_error;
  double seconds = 0;
  std::set<std::string> data_endpoints;
  struct GoingOn {
    std::string id, where;  // `where`: the argument by which watch and cancel find it
  };
  std::vector<GoingOn> going_on;  // transfers that we stopped watching
};

class CopyRun {
 public:
  CopyRun(Session& session, CopyPlan& plan);
  ~CopyRun();
  // Every item has a final state (or kGoesOn) afterwards. FAILS only when nothing could start, for
  // instance when the receipts' file cannot be opened.
  Result<CopyTotals> run();

 private:
  // A transfer under way, for the progress line.
  struct Slot {
    Progress progress;
    std::string source, target;
  };
  enum class Ended { kDone, kBusy };

  void write_receipt(CopyItem& item) SIPHON_REQUIRES(mutex_);
  void keep_receipts();
  // The one id of all tries of what goes this way.
  const std::string& transfer_id_of(const CopyGroup& group);
  void run_group(std::size_t slot, const CopyGroup& group);
  // One transfer of those items of the group that are not settled yet.
  Ended run_transfer(std::size_t slot, const CopyGroup& group, Authority& authority);
  // Grants for the group's devices; renewed, when `authority` has some.
  Status authorise(const CopyGroup& group, Authority& authority);
  // The call broke: the transfer may go on at the target. Watches it again.
  Result<Summary> rejoin(const CopyGroup& group, TransferSpec& spec, Error broken,
                         const std::function<void(const rpc::TransferEvent&)>& on_event);
  // Items that are waited for, by the name at the target: a next try has indices of its own.
  using Pending = std::map<std::string, std::size_t>;
  void on_outcome(const ExtentOutcome& outcome, const Pending& pending);
  // `asked`: the target was, for the transfer.
  Ended settle(std::size_t slot, const CopyGroup& group, const Pending& pending,
               const TransferSpec& spec, const Result<Summary>& result, bool asked);
  void check_already_there();
  void drop_gone();
  void show(std::size_t slot, const Progress& progress);
  ProgressState progress_of_all();  // a walk over all items
  std::uint32_t transfers_at_once(std::size_t groups);
  std::size_t requeue_retryable(std::string& reason);

  Session& session_;
  CopyPlan& plan_;
  CopyRouter router_;
  CopyTotals totals_ SIPHON_GUARDED_BY(mutex_);
  ReceiptFile receipts_ SIPHON_GUARDED_BY(mutex_);
  // By both devices and both places, and the how many thousandth group of these.
  std::map<std::tuple<std::string, std::string, Location, Location>, std::string> ids_
      SIPHON_GUARDED_BY(mutex_);
  std::uint64_t share_bytes_per_second_ = 0;  // of each transfer, of --bwlimit

  Mutex mutex_;  // also of the plan's items while transfers run
  std::map<std::size_t, Slot> slots_ SIPHON_GUARDED_BY(mutex_);
  // Published by transfers that have ended.
  std::uint64_t settled_bytes_ SIPHON_GUARDED_BY(mutex_) = 0;
};

}  // namespace siphon::cli
