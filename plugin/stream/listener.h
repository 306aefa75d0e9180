// Listener: the short-lived data port of one transfer attempt.
//
// Binds the first free port of a configured range on a configured address (never a wildcard unless
// configured so), then accepts until every lane has proven the ticket, the deadline passes, or it
// is cancelled. Unproven peers are closed and counted and never use up a slot: at most 8 unproven
// sockets at once beside the lanes that are still to come, 256 bytes and 2 s each; when one more
// knocks the oldest of them goes. Who has shown the ticket's id (the first step of the handshake)
// has a place among as many others of his kind and another 2 s: no crowd of unproven peers pushes
// him out. Who goes for want of room or time is reset; who shows a wrong ticket sees a plain end.
// A lane number that is already in is refused (a ticket works once per lane).
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "plugin/base/status.h"
#include "plugin/stream/handshake.h"
#include "plugin/stream/socket.h"

namespace siphon {

struct PortRange {
  std::uint16_t first = 0;  // 0..0: any port (tests only)
  std::uint16_t last = 0;
};
Result<PortRange> parse_port_range(std::string_view text);  // "7500-7599", "7500"

class Listener {
 public:
  // RESOURCE_EXHAUSTED: no free port in the range. FAILED_PRECONDITION: the address is not ours.
  static Result<Listener> open(const std::string& address, PortRange ports);
  Listener(Listener&&) noexcept;
  ~Listener();

  const Endpoint& endpoint() const { return endpoint_; }
  // Blocks. Returns `lane_count` proven sockets, by lane number; the port is closed on return,
  // whatever the outcome. DEADLINE_EXCEEDED says how many lanes were in and how many unproven peers
  // were rejected; CANCELLED after cancel().
  Result<std::vector<Socket>> accept_lanes(const Ticket& ticket, std::uint16_t lane_count,
                                           Deadline deadline);
  // From any thread; also before accept_lanes.
  void cancel();
  // Brings accept_lanes' deadline forward. From any thread; also before it.
  void expect_by(Deadline deadline);
  // Connections rejected so far. From any thread.
  std::uint64_t rejected_connections() const;

 private:
  // What other threads reach.
  struct Shared {
    std::atomic<std::uint64_t> rejected_connections{0};
    std::atomic<bool> cancelled{false};
    std::atomic<Deadline> expect_by{Deadline::max()};
  };
  class Acceptor;

  Listener() : shared_(std::make_unique<Shared>()) {}
  void close_port();
  void wake();

  int fd_ = -1;
  int wake_fd_ = -1;  // eventfd
  Endpoint endpoint_;
  std::unique_ptr<Shared> shared_;
};

}  // namespace siphon
