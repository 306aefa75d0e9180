// Preloaded into a siphond under test: its connections to 127.0.0.1 and a port of a given range go
// to 127.0.0.2 and the same port instead, where a hostile proxy (lane_proxy.py) listens. siphond
// itself is the one that ships, and sees the address it asked for.
//
//   SIPHON_TEST_REDIRECT_PORTS   FIRST-LAST
//   SIPHON_TEST_REDIRECT_WHILE   a file: only while it exists (optional)
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

constexpr in_addr_t kReal = 0x7f000001;
constexpr in_addr_t kProxy = 0x7f000002;

bool in_range(std::uint16_t port) {
  const char* text = std::getenv("SIPHON_TEST_REDIRECT_PORTS");
  unsigned first = 0, last = 0;
  if (text == nullptr || std::sscanf(text, "%u-%u", &first, &last) != 2) return false;
  return port >= first && port <= last;
}

bool is_on() {
  const char* file = std::getenv("SIPHON_TEST_REDIRECT_WHILE");
  return file == nullptr || ::access(file, F_OK) == 0;
}

// `from` becomes `to` when it is an address with a port of the range.
bool swap_address(sockaddr_in* address, in_addr_t from, in_addr_t to) {
  if (address->sin_family != AF_INET || ntohl(address->sin_addr.s_addr) != from ||
      !in_range(ntohs(address->sin_port))) {
    return false;
  }
  address->sin_addr.s_addr = htonl(to);
  return true;
}

// The same for an IPv4 address in IPv6's clothes, as gRPC has them.
bool swap_address(sockaddr_in6* address, in_addr_t from, in_addr_t to) {
  if (address->sin6_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&address->sin6_addr)) return false;
  sockaddr_in inner{};
  inner.sin_family = AF_INET;
  inner.sin_port = address->sin6_port;
  std::memcpy(&inner.sin_addr, &address->sin6_addr.s6_addr[12], sizeof inner.sin_addr);
  if (!swap_address(&inner, from, to)) return false;
  std::memcpy(&address->sin6_addr.s6_addr[12], &inner.sin_addr, sizeof inner.sin_addr);
  return true;
}

}  // namespace

extern "C" int connect(int fd, const sockaddr* address, socklen_t length) {
  using Connect = int (*)(int, const sockaddr*, socklen_t);
  static const auto real = reinterpret_cast<Connect>(dlsym(RTLD_NEXT, "connect"));
  sockaddr_in changed{};
  if (address != nullptr && length == sizeof changed) {
    std::memcpy(&changed, address, sizeof changed);
    if (is_on() && swap_address(&changed, kReal, kProxy)) {
      return real(fd, reinterpret_cast<const sockaddr*>(&changed), sizeof changed);
    }
  }
  sockaddr_in6 changed6{};
  if (address != nullptr && length == sizeof changed6) {
    std::memcpy(&changed6, address, sizeof changed6);
    if (is_on() && swap_address(&changed6, kReal, kProxy)) {
      return real(fd, reinterpret_cast<const sockaddr*>(&changed6), sizeof changed6);
    }
  }
  return real(fd, address, length);
}

extern "C" int getpeername(int fd, sockaddr* address, socklen_t* length) noexcept {
  using GetPeerName = int (*)(int, sockaddr*, socklen_t*);
  static const auto real = reinterpret_cast<GetPeerName>(dlsym(RTLD_NEXT, "getpeername"));
  const int result = real(fd, address, length);
  if (result == 0 && *length == sizeof(sockaddr_in)) {
    swap_address(reinterpret_cast<sockaddr_in*>(address), kProxy, kReal);
  }
  return result;
}
