// What a copy is going to do: which extents, from which device to which, in which transfers.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "plugin/cli/devices.h"
#include "plugin/cli/exit_codes.h"
#include "plugin/cli/session.h"
#include "plugin/cli/verify.h"
#include "plugin/core/mutex.h"

namespace siphon::cli {

inline constexpr std::size_t kLookThreads = 16;

enum class ItemState {
  kPending,
  kCopied,
  kAlreadyThere,  // an identical sealed extent stands at the target
  kFailed,
  kGoesOn,  // we stopped watching; the target goes on
  kGone,    // its name was listed, but there is no extent behind it (any more)
};
std::string_view to_string(ItemState state);  // "copied"

// One extent's way.
struct CopyItem {
  Address source, target;
  std::optional<ExtentInfo> info;  // the source's; absent when nobody looked, or may
  bool by_name = false;            // listed, not looked at: small, and one of many
  std::uint64_t said_bytes =
      0;  // what the source's daemon said, where there is no info; 0: nothing
  // Its daemon's word: it is not there to be sent, or not all of it.
  std::optional<Error> source_problem = {};
  std::optional<Error> not_looked = {};  // why nobody has looked at one of its ends
  // A sealed extent of this name is at the target, and nobody has its content's digest: the two
  // must be read before it is known whether they are the same.
  bool undecided = false;
  Device source_device, target_device;
  ItemState state = ItemState::kPending;
  std::optional<Receipt> receipt;
  // Already there: computed at both ends in this run (--check, --deep). Else nobody has read it.
  struct ReadCrc32 {
    std::uint32_t source = 0, target = 0;
  };
  std::optional<ReadCrc32> read_crc32;
  Error error;
  // Of a move: why the source stays though its copy is at the target. The state is the copy's.
  std::optional<Error> stays = {};
  // Generations that left the trash, to make room: at the target in all tries; at the source for a
  // move.
  std::vector<TrashEntry> left_for_good, source_left_for_good;
  std::string transfer_id;
  std::uint32_t attempts = 0;
  bool receipt_lost = false;  // --receipts: its line is not on the disk

  // It was seen before any try that it cannot be copied. Whatever else went wrong has failed.
  bool refused() const { return state == ItemState::kFailed && attempts == 0 && is_refusal(error); }
  std::uint64_t bytes() const { return info ? info->header.extent_bytes : said_bytes; }
  // What a copy of it would bring.
  std::uint64_t bytes_to_come() const { return source_problem ? 0 : bytes(); }
  void fail_with(Error e) {
    state = ItemState::kFailed;
    error = std::move(e);
  }
};

// Extents that one transfer can carry: same devices, same locations, at most
// kMaxExtentsPerTransfer.
struct CopyGroup {
  Device source, target;
  std::vector<std::size_t> items;
  std::size_t number = 0;  // among those of the same devices and places
};

struct CopyPlan {
  std::vector<CopyItem> items;
  StoreIdentity target_store;
  std::vector<Address> whole_sources;  // those arguments that name all of a store
  std::uint64_t total_bytes = 0;       // of the pending ones; 0: not known
};

// Reads some of the items anew, at both ends.
struct BothEnds {
  std::vector<Verified> source, target;
};
BothEnds verify_both_ends(Session& session, const CopyPlan& plan,
                          const std::vector<std::size_t>& items);

// The item's receipt, with the checksums that were computed in this run and no others; null: none.
Json receipt_json(const CopyItem& item);

// Of all that is to be copied; nothing where a size is not known.
std::optional<std::uint64_t> pending_bytes(const CopyPlan& plan);

// From the arguments SOURCE... TARGET: names, sizes, what is there already. INVALID_ARGUMENT when
// the arguments contradict each other; what is wrong with single extents is in their items. Of a
// store of many small extents only the names are listed, unless `look_at_all`: the devices look.
Result<CopyPlan> plan_copy(Session& session, bool look_at_all);

// Finds devices and sorts items into transfers. One object per copy: it remembers.
class CopyRouter {
 public:
  explicit CopyRouter(Session& session) : session_(session) {}
  // Groups of the pending items; those whose device cannot be found fail here.
  std::vector<CopyGroup> route(CopyPlan& plan);
  void forget();  // before trying again

 private:
  Result<Device> device_of(Role role, const Address& address);
  Result<PlacementMap*> placement(Role role);

  Session& session_;
  Mutex mutex_;
  std::map<Role, std::unique_ptr<PlacementMap>> placements_ SIPHON_GUARDED_BY(mutex_);
};

// The cephx caps that a copy from `source` to `target` needs, as a next step with its command.
std::string caps_command(const std::string& name, const Address& source, const Address& target);

}  // namespace siphon::cli
