// Socket: a connected TCP stream with deadlines, and the address type. No DNS anywhere.
//
// Blocking, for one thread at a time per direction; `shutdown` may come from any thread and makes
// both directions fail at once. Counts its bytes (atomic, readable any time).
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>

#include "plugin/base/status.h"
#include "plugin/base/types.h"
#include "plugin/core/mutex.h"

namespace siphon {

// A numeric IPv4 or IPv6 address and a port. An IPv4 address that is written as an IPv6 one
// (::ffff:127.0.0.1) is the IPv4 address.
struct Endpoint {
  std::string address;
  std::uint16_t port = 0;
  bool operator==(const Endpoint&) const = default;
  std::string to_string() const;  // "127.0.0.1:7400", "[::1]:7400"
};
Result<Endpoint> parse_endpoint(std::string_view text);
// A numeric address in its one spelling; IPv6 in brackets or not. INVALID_ARGUMENT says what is
// wrong: no number, or a zone (fe80::1%eth0), which would mean another thing on another host.
Result<std::string> parse_address(std::string_view text);
bool is_loopback(std::string_view address);
bool is_wildcard(std::string_view address);

// The lowest rate a peer must keep while a frame is on its way, and how long it may stay silent.
struct MinimumRate {
  std::chrono::milliseconds idle_timeout{10000};
  std::uint64_t min_bytes_per_second = 64 * kKiB;  // over any window of idle_timeout
};

// Holds a peer to its MinimumRate, window by window. `restart` when a frame begins, so that time
// spent elsewhere (a full pool, a slow local store) is not held against the peer. One thread.
class MinimumRateMeter {
 public:
  explicit MinimumRateMeter(const MinimumRate& minimum_rate) : minimum_rate_(minimum_rate) {
    restart(Deadline::clock::now());
  }
  void restart(Deadline now) {
    window_start_ = now;
    window_bytes_ = 0;
  }
  void add(std::size_t bytes) { window_bytes_ += bytes; }
  // DEADLINE_EXCEEDED when a window is over and too little came in it.
  Status check(Deadline now);

 private:
  MinimumRate minimum_rate_;
  Deadline window_start_;
  std::uint64_t window_bytes_ = 0;
};

class Socket {
 public:
  Socket() = default;
  explicit Socket(int fd);  // takes ownership; sets non-inheritable, TCP_NODELAY
  Socket(Socket&& other) noexcept;
  Socket& operator=(Socket&& other) noexcept;
  ~Socket();

  // UNAVAILABLE, DEADLINE_EXCEEDED, INVALID_ARGUMENT (not a numeric address); ABORTED: somebody was
  // there and has reset it already. CANCELLED as soon as `wake_fd` is readable; -1: cannot be
  // woken.
  static Result<Socket> connect(const Endpoint& to, Deadline deadline, int wake_fd = -1);

  // All of it, in order, or an error: UNAVAILABLE (reset, closed), DEADLINE_EXCEEDED (also from
  // `meter`, which may be null), CANCELLED (shutdown from here). End of file before the first byte
  // of recv_all is OUT_OF_RANGE. At most kMaxSpans spans. Deadlines hold to within 100 ms.
  static constexpr std::size_t kMaxSpans = 3;
  // `more`: the rest of the frame follows at once, so a partial segment may wait for it.
  Status send_all(std::initializer_list<std::span<const std::byte>> parts, Deadline deadline,
                  MinimumRateMeter* meter = nullptr, bool more = false);
  Status recv_all(std::initializer_list<std::span<std::byte>> parts, Deadline deadline,
                  MinimumRateMeter* meter = nullptr);

  // How many bytes must have arrived before a sleeping recv_all is woken (SO_RCVLOWAT; 1 at first).
  // The caller must know that so many will follow, else recv_all returns up to 100 ms late.
  void wake_after(std::size_t bytes);

  // At most so many bytes wait here for the peer to take them (SO_SNDBUF; the kernel doubles it).
  void limit_unsent(std::size_t bytes);

  // From any thread, as long as nobody moves the socket meanwhile.
  void shutdown();
  // Not while another thread sends or receives. What the peer sent and nobody read makes it an
  // abortive close, so that a peer blocked in a send notices at once.
  void close();
  int fd() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  Result<Endpoint> local() const;
  Result<Endpoint> peer() const;
  std::uint64_t sent_bytes() const { return sent_.load(std::memory_order_relaxed); }
  std::uint64_t received_bytes() const { return received_.load(std::memory_order_relaxed); }

 private:
  Status interrupted(Deadline deadline, MinimumRateMeter* meter) const;

  Mutex close_mutex_;  // between shutdown and close alone: who uses fd_ keeps it open
  int fd_ = -1;
  std::size_t wake_after_bytes_ = 1;
  std::atomic<bool> shut_{false};
  std::atomic<std::uint64_t> sent_{0};
  std::atomic<std::uint64_t> received_{0};
};

}  // namespace siphon
