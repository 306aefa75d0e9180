// Socket: a connected TCP stream with deadlines, and the address type. No DNS anywhere.
//
// Blocking, for one thread at a time per direction; `shutdown` may come from any thread and makes
// both directions fail at once. Counts its bytes (atomic, readable any time).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "plugin/base/status.h"
#include "plugin/base/types.h"

namespace siphon {

// A numeric IPv4 or IPv6 address and a port.
struct Endpoint {
  std::string address;
  std::uint16_t port = 0;
  bool operator==(const Endpoint&) const = default;
  std::string to_string() const;  // "127.0.0.1:7400", "[::1]:7400"
};
Result<Endpoint> parse_endpoint(std::string_view text);
bool is_loopback(std::string_view address);
bool is_wildcard(std::string_view address);

// The lowest rate a peer must keep, and how long it may stay silent.
struct Pace {
  std::chrono::milliseconds idle_timeout{10000};
  std::uint64_t min_bytes_per_second = 64 * kKiB;  // over any window of idle_timeout
};

class Socket {
 public:
  Socket() = default;
  explicit Socket(int fd);  // takes ownership; sets non-inheritable, TCP_NODELAY
  Socket(Socket&& other) noexcept;
  Socket& operator=(Socket&& other) noexcept;
  ~Socket();

  static Result<Socket> connect(const Endpoint& to, Deadline deadline);

  // All of it or an error: UNAVAILABLE (reset, closed), DEADLINE_EXCEEDED, CANCELLED (shutdown
  // from here). end of file before the first byte of recv_all is OUT_OF_RANGE.
  Status send_all(std::span<const std::byte> a, std::span<const std::byte> b, Deadline deadline);
  Status recv_all(std::span<std::byte> a, std::span<std::byte> b, Deadline deadline);

  void shutdown();
  void close();
  int fd() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  Result<Endpoint> local() const;
  Result<Endpoint> peer() const;
  std::uint64_t sent_bytes() const { return sent_.load(std::memory_order_relaxed); }
  std::uint64_t received_bytes() const { return received_.load(std::memory_order_relaxed); }

 private:
  int fd_ = -1;
  std::atomic<bool> shut_{false};
  std::atomic<std::uint64_t> sent_{0};
  std::atomic<std::uint64_t> received_{0};
};

}  // namespace siphon
