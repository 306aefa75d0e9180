// Proofs of a grant, whose nonce both ends know and neither sends: the requester has made it, the
// device has it in its region. `key` is the nonce, or (between target and source) the key that
// `source_key` makes of it. Every proof names the endpoint that the caller means, so that one who
// stands at another port cannot pass proofs on. Pure.
#pragma once

#include <span>
#include <string>

#include "plugin/base/types.h"

namespace siphon::rpc {

// What the target may show the source for one transfer out of `source`.
Sha256 source_key(std::span<const std::byte> nonce, const std::string& transfer_id,
                  const Location& source);
// The device's answer to a Challenge.
Sha256 device_proof(std::span<const std::byte> key, const std::string& endpoint,
                    std::span<const std::byte> nonce);
// The caller's, over `request`: serialized, with its authority cleared.
Sha256 call_proof(std::span<const std::byte> key, const std::string& method,
                  const std::string& endpoint, std::span<const std::byte> call_nonce,
                  const std::string& request);

}  // namespace siphon::rpc
