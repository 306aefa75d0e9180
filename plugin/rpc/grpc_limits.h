// Limits on gRPC 1.51 that it has no settings for.
//
// Until a peer has acknowledged our SETTINGS, gRPC lets a header block expand to 16 MiB (one byte
// of it can name a field of 4 KiB), whatever GRPC_ARG_MAX_METADATA_SIZE says: an unproven peer with
// a kilobyte fills the memory. With this file linked, the limit holds from the first byte on, on
// both sides of a connection. And each malformed field is a line of gRPC's in the log.
#pragma once

#include <cstdint>

namespace siphon::rpc {

// Of one header block, with its fields written out (RFC 9113, 6.5.2).
inline constexpr std::uint32_t kMaxMetadataBytes = 8 << 10;

// Before gRPC is used; again as often as you like. From then on what it has to say is in our log,
// and only for who debugs.
void prepare_grpc();

}  // namespace siphon::rpc
