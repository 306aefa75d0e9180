// Between Endpoint and the kernel's sockaddr. For .cc files only.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <string>

#include "plugin/base/status.h"
#include "plugin/stream/socket.h"

namespace siphon {

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;
};

// INVALID_ARGUMENT: not a numeric address.
Result<SocketAddress> to_socket_address(const std::string& address, std::uint16_t port);
Result<Endpoint> to_endpoint(const SocketAddress& address);

}  // namespace siphon
