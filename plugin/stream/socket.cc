#include "plugin/stream/socket.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <utility>

#include "plugin/stream/socket_address.h"

namespace siphon {
namespace {

// A blocked call returns this often, so that deadline and minimum rate are looked at. No timers
// needed.
constexpr std::chrono::milliseconds kTick{100};

// Drops `bytes` from the front of the vector.
void advance(iovec*& vec, std::size_t& count, std::size_t bytes) {
  while (count > 0 && bytes >= vec->iov_len) {
    bytes -= vec->iov_len;
    ++vec;
    --count;
  }
  if (count > 0) {
    vec->iov_base = static_cast<std::byte*>(vec->iov_base) + bytes;
    vec->iov_len -= bytes;
  }
}

template <typename Parts>
std::size_t fill_iovec(const Parts& parts, std::array<iovec, Socket::kMaxSpans>& vec) {
  std::size_t count = 0;
  for (const auto& part : parts) {
    if (part.empty() || count == vec.size()) continue;
    vec[count++] = {const_cast<std::byte*>(part.data()), part.size()};
  }
  return count;
}

// Waits for a non-blocking connect to end.
Status finish_connect(int fd, const std::string& to, Deadline deadline, int wake_fd) {
  while (true) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - Deadline::clock::now());
    if (left.count() <= 0) {
      return fail(Code::kDeadlineExceeded, "connect to " + to + ": no answer in time");
    }
    std::array<pollfd, 2> fds{{{fd, POLLOUT, 0}, {wake_fd, POLLIN, 0}}};
    const int timeout_ms = static_cast<int>(std::min<std::int64_t>(left.count(), 60'000));
    const int ready = ::poll(fds.data(), fds.size(), timeout_ms);
    if (ready < 0 && errno != EINTR) return fail(error_from_errno(errno, "poll"));
    if (fds[1].revents != 0 && ready > 0) return fail(Code::kCancelled, "cancelled");
    if (ready <= 0 || fds[0].revents == 0) continue;
    int error = 0;
    socklen_t size = sizeof error;
    ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) {
      const Code code = error == ECONNRESET ? Code::kAborted : Code::kUnavailable;
      return fail(code, "connect to " + to + ": " + std::strerror(error));
    }
    return {};
  }
}

}  // namespace

// ---- addresses ---------------------------------------------------------------------------------

std::string Endpoint::to_string() const {
  const bool v6 = address.find(':') != std::string::npos;
  return (v6 ? "[" + address + "]" : address) + ":" + std::to_string(port);
}

Result<SocketAddress> to_socket_address(const std::string& address, std::uint16_t port) {
  SocketAddress out;
  auto* v4 = reinterpret_cast<sockaddr_in*>(&out.storage);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&out.storage);
  if (::inet_pton(AF_INET, address.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    out.size = sizeof(sockaddr_in);
  } else if (::inet_pton(AF_INET6, address.c_str(), &v6->sin6_addr) == 1) {
    if (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr)) {
      in_addr mapped;
      std::memcpy(&mapped, &v6->sin6_addr.s6_addr[12], sizeof mapped);
      out.storage = {};
      v4->sin_addr = mapped;
      v4->sin_family = AF_INET;
      v4->sin_port = htons(port);
      out.size = sizeof(sockaddr_in);
      return out;
    }
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    out.size = sizeof(sockaddr_in6);
  } else {
    return fail(Code::kInvalidArgument, "'" + address + "' is not a numeric IPv4 or IPv6 address");
  }
  return out;
}

Result<Endpoint> to_endpoint(const SocketAddress& address) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  Endpoint out;
  if (address.storage.ss_family == AF_INET) {
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(&address.storage);
    ::inet_ntop(AF_INET, &v4->sin_addr, text.data(), text.size());
    out.port = ntohs(v4->sin_port);
  } else if (address.storage.ss_family == AF_INET6) {
    const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&address.storage);
    ::inet_ntop(AF_INET6, &v6->sin6_addr, text.data(), text.size());
    out.port = ntohs(v6->sin6_port);
  } else {
    return fail(Code::kInternal, "not an IP socket");
  }
  out.address = text.data();
  return out;
}

Result<Endpoint> parse_endpoint(std::string_view text) {
  const auto bad = [&] {
    return fail(Code::kInvalidArgument,
                "'" + std::string(text) + "' is not ADDRESS:PORT with a numeric address");
  };
  const auto colon = text.rfind(':');
  if (colon == std::string_view::npos) return bad();
  std::string_view host = text.substr(0, colon);
  const std::string_view port_text = text.substr(colon + 1);
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);
  if (bracketed != (host.find(':') != std::string_view::npos)) return bad();

  std::uint16_t port = 0;
  const auto [end, ec] =
      std::from_chars(port_text.data(), port_text.data() + port_text.size(), port);
  if (ec != std::errc() || end != port_text.data() + port_text.size()) return bad();
  auto address = to_socket_address(std::string(host), port);
  if (!address) return bad();
  return to_endpoint(*address);  // in the one spelling that inet_ntop gives
}

Result<std::string> parse_address(std::string_view text) {
  std::string_view inner = text;
  if (text.size() > 2 && text.front() == '[' && text.back() == ']' &&
      text.find(':') != std::string_view::npos) {
    inner = text.substr(1, text.size() - 2);
  }
  if (const auto zone = inner.find('%'); zone != std::string_view::npos) {
    return fail(Code::kInvalidArgument,
                "'" + std::string(text) + "' has a zone (" + std::string(inner.substr(zone)) +
                    "): addresses that are good on one link only cannot be used",
                Side::kNone, "name a global or unique local address");
  }
  auto address = to_socket_address(std::string(inner), 0);
  if (!address) return fail(std::move(address).error());
  auto endpoint = to_endpoint(*address);
  if (!endpoint) return fail(std::move(endpoint).error());
  return endpoint->address;
}

bool is_loopback(std::string_view address) {
  auto parsed = to_socket_address(std::string(address), 0);
  if (!parsed) return false;
  if (parsed->storage.ss_family == AF_INET) {
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(&parsed->storage);
    return (ntohl(v4->sin_addr.s_addr) >> 24) == 127;
  }
  const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&parsed->storage);
  return IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
}

bool is_wildcard(std::string_view address) {
  auto parsed = to_socket_address(std::string(address), 0);
  if (!parsed) return false;
  if (parsed->storage.ss_family == AF_INET) {
    return reinterpret_cast<const sockaddr_in*>(&parsed->storage)->sin_addr.s_addr == INADDR_ANY;
  }
  const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&parsed->storage);
  return IN6_IS_ADDR_UNSPECIFIED(&v6->sin6_addr);
}

// ---- minimum rate ------------------------------------------------------------------------------

Status MinimumRateMeter::check(Deadline now) {
  const auto elapsed = now - window_start_;
  if (elapsed < minimum_rate_.idle_timeout) return {};
  const double seconds = std::chrono::duration<double>(elapsed).count();
  const double wanted = static_cast<double>(minimum_rate_.min_bytes_per_second) * seconds;
  if (window_bytes_ == 0 || static_cast<double>(window_bytes_) < wanted) {
    return fail(Code::kDeadlineExceeded,
                window_bytes_ == 0
                    ? "the peer was silent for " +
                          std::to_string(minimum_rate_.idle_timeout.count()) + " ms"
                    : "the peer is too slow: " + std::to_string(window_bytes_) + " bytes in " +
                          std::to_string(minimum_rate_.idle_timeout.count()) + " ms");
  }
  restart(now);
  return {};
}

// ---- Socket ------------------------------------------------------------------------------------

Socket::Socket(int fd) : fd_(fd) {
  if (fd_ < 0) return;
  ::fcntl(fd_, F_SETFD, FD_CLOEXEC);
  ::fcntl(fd_, F_SETFL, ::fcntl(fd_, F_GETFL) & ~O_NONBLOCK);
  const int on = 1;
  ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  const timeval tick{0, std::chrono::microseconds(kTick).count()};
  ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &tick, sizeof tick);
  ::setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &tick, sizeof tick);
}

Socket::Socket(Socket&& other) noexcept { *this = std::move(other); }

Socket& Socket::operator=(Socket&& other) noexcept {
  if (this == &other) return *this;
  close();
  fd_ = std::exchange(other.fd_, -1);
  wake_after_bytes_ = std::exchange(other.wake_after_bytes_, 1);
  shut_.store(other.shut_.load());
  sent_.store(other.sent_.load());
  received_.store(other.received_.load());
  return *this;
}

Socket::~Socket() { close(); }

Result<Socket> Socket::connect(const Endpoint& to, Deadline deadline, int wake_fd) {
  auto address = to_socket_address(to.address, to.port);
  if (!address) return fail(std::move(address).error());
  const int family = address->storage.ss_family;
  const int fd = ::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return fail(error_from_errno(errno, "socket"));
  Socket socket;
  socket.fd_ = fd;
  const auto* raw = reinterpret_cast<const sockaddr*>(&address->storage);
  if (::connect(fd, raw, address->size) != 0 && errno != EINPROGRESS) {
    return fail(Code::kUnavailable, "connect to " + to.to_string() + ": " + std::strerror(errno));
  }
  SIPHON_TRY(finish_connect(fd, to.to_string(), deadline, wake_fd));
  return Socket(std::exchange(socket.fd_, -1));
}

// What to do when a call came back early: nothing, or an error.
Status Socket::interrupted(Deadline deadline, MinimumRateMeter* meter) const {
  if (shut_.load(std::memory_order_relaxed))
    return fail(Code::kCancelled, "the lane was shut down");
  const auto now = Deadline::clock::now();
  if (now >= deadline) return fail(Code::kDeadlineExceeded, "the peer did not keep the deadline");
  return meter != nullptr ? meter->check(now) : Status{};
}

Status Socket::send_all(std::initializer_list<std::span<const std::byte>> parts, Deadline deadline,
                        MinimumRateMeter* meter, bool more) {
  std::array<iovec, kMaxSpans> storage;
  iovec* vec = storage.data();
  std::size_t count = fill_iovec(parts, storage);
  while (count > 0) {
    msghdr message{};
    message.msg_iov = vec;
    message.msg_iovlen = count;
    const ssize_t n = ::sendmsg(fd_, &message, MSG_NOSIGNAL | (more ? MSG_MORE : 0));
    if (n > 0) {
      sent_.fetch_add(static_cast<std::uint64_t>(n), std::memory_order_relaxed);
      if (meter != nullptr) meter->add(static_cast<std::size_t>(n));
      advance(vec, count, static_cast<std::size_t>(n));
      if (count == 0) return {};
    } else if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
      if (shut_.load()) return fail(Code::kCancelled, "the lane was shut down");
      return fail(Code::kUnavailable, std::string("send: ") + std::strerror(errno));
    }
    SIPHON_TRY(interrupted(deadline, meter));
  }
  return {};
}

Status Socket::recv_all(std::initializer_list<std::span<std::byte>> parts, Deadline deadline,
                        MinimumRateMeter* meter) {
  std::array<iovec, kMaxSpans> storage;
  iovec* vec = storage.data();
  std::size_t count = fill_iovec(parts, storage);
  bool begun = false;
  while (count > 0) {
    msghdr message{};
    message.msg_iov = vec;
    message.msg_iovlen = count;
    const ssize_t n = ::recvmsg(fd_, &message, MSG_WAITALL);
    if (n > 0) {
      begun = true;
      received_.fetch_add(static_cast<std::uint64_t>(n), std::memory_order_relaxed);
      if (meter != nullptr) meter->add(static_cast<std::size_t>(n));
      advance(vec, count, static_cast<std::size_t>(n));
      if (count == 0) return {};
    } else if (n == 0) {
      if (shut_.load()) return fail(Code::kCancelled, "the lane was shut down");
      if (!begun) return fail(Code::kOutOfRange, "the peer closed the lane");
      return fail(Code::kUnavailable, "the peer closed the lane in the middle of a message");
    } else if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
      if (shut_.load()) return fail(Code::kCancelled, "the lane was shut down");
      return fail(Code::kUnavailable, std::string("receive: ") + std::strerror(errno));
    }
    SIPHON_TRY(interrupted(deadline, meter));
  }
  return {};
}

void Socket::wake_after(std::size_t bytes) {
  if (bytes == wake_after_bytes_) return;
  const int value = static_cast<int>(bytes);
  if (::setsockopt(fd_, SOL_SOCKET, SO_RCVLOWAT, &value, sizeof value) == 0) {
    wake_after_bytes_ = bytes;
  }
}

void Socket::limit_unsent(std::size_t bytes) {
  const int value = static_cast<int>(bytes);
  (void)::setsockopt(fd_, SOL_SOCKET, SO_SNDBUF, &value, sizeof value);
}

void Socket::shutdown() {
  shut_.store(true);
  const MutexLock lock(close_mutex_);
  if (fd_ >= 0) ::shutdown(fd_, SHUT_RDWR);
}

void Socket::close() {
  const MutexLock lock(close_mutex_);
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

Result<Endpoint> Socket::local() const {
  SocketAddress address;
  address.size = sizeof address.storage;
  if (::getsockname(fd_, reinterpret_cast<sockaddr*>(&address.storage), &address.size) != 0) {
    return fail(error_from_errno(errno, "getsockname"));
  }
  return to_endpoint(address);
}

Result<Endpoint> Socket::peer() const {
  SocketAddress address;
  address.size = sizeof address.storage;
  if (::getpeername(fd_, reinterpret_cast<sockaddr*>(&address.storage), &address.size) != 0) {
    return fail(error_from_errno(errno, "getpeername"));
  }
  return to_endpoint(address);
}

}  // namespace siphon
