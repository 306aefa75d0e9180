// Re-reading extents: beside their devices where a daemon answers, else here.
#pragma once

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

// One result per address, in order. An address whose device cannot be asked has that error in its
// outcome. Blocks; Ctrl-C ends it with CANCELLED in the outcomes that are missing.
std::vector<Verified> verify_all(Session& session, Role role,
                                 const std::vector<Address>& addresses);

// Every extent that the address names: itself, or all of its store, by name.
Result<std::vector<Address>> expand(Session& session, Role role, const Address& address);
// All of a store, by name, with what the listing saw of each (state kNone: nothing). `on_page` is
// told how many there are so far; when it says false, that is all.
struct Listed {
  Address address;
  ExtentInfo info;
  std::vector<PartsSeen> parts{};     // with kEverything, see ExtentPage
  std::optional<Error> problem = {};  // why nothing was seen of it: a head that does not decode
};
Result<std::vector<Listed>> list_store(Session& session, Role role, const Address& address,
                                       Listing listing = Listing::kExtents,
                                       const std::function<bool(std::size_t)>& on_page = {});

Json to_json(const Verified& verified);

}  // namespace siphon::cli
