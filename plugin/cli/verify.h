// Re-reading extents: beside their devices where a daemon answers, else here.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "plugin/cli/session.h"

namespace siphon::cli {

struct Verified {
  Address address;
  VerifyOutcome outcome;
  std::string where;  // "osd.3", "127.0.0.1:7411", "here"; empty: nowhere
};

// What is to be read at one end.
struct VerifyEnd {
  Role role = Role::kOnly;
  std::vector<Address> addresses;
  std::vector<std::uint64_t> bytes;  // of each, where somebody has seen it; 0: not known
};

// For each end, one after the other, a result per address, in order. An address whose device cannot
// be asked has that error in its outcome. One progress for all ends: its total is what they have
// together or, where a size cannot be known beforehand, the number of extents. Blocks; Ctrl-C ends
// it with CANCELLED in the outcomes that are missing.
std::vector<std::vector<Verified>> verify_all(Session& session, std::vector<VerifyEnd> ends);

// An extent of a store, with what a listing saw of it (state kNone: nothing).
struct ListedExtent {
  Address address;
  ExtentInfo info;
  std::vector<PartsSeen> parts{};     // with kEverything, see ExtentPage
  std::optional<Error> problem = {};  // why nothing was seen of it: a head that does not decode
};
// All of a store, by name. `on_page` is told how many there are so far; when it says false, that is
// all.
Result<std::vector<ListedExtent>> list_store(Session& session, Role role, const Address& address,
                                             Listing listing = Listing::kExtents,
                                             const std::function<bool(std::size_t)>& on_page = {});
// Every extent that the address names: itself, which nobody has looked at, or all of its store.
Result<std::vector<ListedExtent>> expand(Session& session, Role role, const Address& address);
VerifyEnd verify_end_of(Role role, const std::vector<ListedExtent>& extents);

Json to_json(const Verified& verified);

}  // namespace siphon::cli
