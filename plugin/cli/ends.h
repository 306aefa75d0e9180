// The two ends of a copy: what the arguments really name. A pool's name is resolved once, and its
// id is what everything later goes by; two ends that are one and the same store are recognised
// however they were written (another conf, id or cluster name, an overlay, a second daemon over a
// folder).
#pragma once

#include <cstdint>
#include <string>

#include "plugin/cli/session.h"

namespace siphon::cli {

// Resolves the pool's name, if the address is on Ceph and has none resolved yet: from here on the
// address means that pool and no other of its name. NOT_FOUND names the pool.
Status bind(Session& session, Role role, Address& address);

// What a pool without an extent means: all of its namespaces, or the one of --namespace.
void widen(const Session& session, Address& address);

// Which store the (bound) address means. Empty where nobody can tell: a daemon that does not
// answer.
Result<StoreIdentity> identify(Session& session, Role role, const Address& address);

// Reason::kSameThing when some extent of `source` would become itself.
Status check_distinct(const Address& source, const StoreIdentity& source_store,
                      const Address& target, const StoreIdentity& target_store);

}  // namespace siphon::cli
