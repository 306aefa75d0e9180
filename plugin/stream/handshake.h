// The ticket and its proof: a mutual HMAC-SHA-256 over fresh nonces, before any payload byte.
//
//   source -> target   Hello      magic, version, lane, ticket id, source nonce            (64 B)
//   target -> source   Challenge  target nonce, HMAC(key, "target" | hello | target nonce) (64 B)
//   source -> target   Proof      HMAC(key, "source" | hello | target nonce)               (32 B)
//
// The ticket's key travels only inside the Stream call. `binding` is a digest of what the ticket
// is for (transfer, attempt, both devices, extents, lanes): it is mixed into the key on both ends,
// so that a ticket proves nothing else. An unproven peer learns nothing and costs at most 256
// bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "plugin/base/status.h"
#include "plugin/base/types.h"
#include "plugin/stream/socket.h"

namespace siphon {

struct Ticket {
  std::array<std::byte, 16> id{};  // public: names the ticket
  Secret key;                      // 32 bytes from the kernel
  Sha256 binding{};                // see above

  static Ticket make(const Sha256& binding);
  Ticket clone() const;
};

inline constexpr std::size_t kHelloBytes = 64;
inline constexpr std::size_t kChallengeBytes = 64;
inline constexpr std::size_t kProofBytes = 32;

// The source's side, blocking. UNAUTHENTICATED: the target does not know the ticket, or whoever
// answers is not the target. UNAVAILABLE: the connection was lost before anything was proven, as
// it is where the target has no room (listener.h): to be tried again.
Status prove_ticket(Socket& socket, const Ticket& ticket, std::uint16_t lane, Deadline deadline);

// The target's side as a machine without I/O, so that one thread can serve several unproven peers:
// feed it what arrived; it says what to send and how many bytes it wants next. Nothing is sent
// before a whole Hello with the right ticket id. Thread compatible; `ticket` must outlive it.
class TicketChecker {
 public:
  TicketChecker(const Ticket& ticket, std::uint16_t lane_count);
  enum class Step { kNeedMore, kSend, kAccepted, kRefused };
  // How many more bytes it wants; 0 once accepted or refused.
  std::size_t wanted_bytes() const;
  // `bytes`: what arrived, at most wanted_bytes() (more is refused).
  // kSend: send `reply()`, then read on. kRefused: close, count; `why()` is for the log.
  Step feed(std::span<const std::byte> bytes);
  std::span<const std::byte> reply() const { return reply_; }
  std::uint16_t lane() const { return lane_; }
  const char* why() const { return why_; }

 private:
  const Ticket& ticket_;
  std::uint16_t lane_count_;
  std::uint16_t lane_ = 0;
  enum class State { kHello, kProof, kDone };
  Step check_hello();
  Step check_proof();
  Step refuse(const char* why);

  State state_ = State::kHello;
  std::size_t got_ = 0;  // bytes of the current message
  std::array<std::byte, kHelloBytes> hello_{};
  std::array<std::byte, kProofBytes> proof_{};
  std::array<std::byte, kChallengeBytes> reply_{};
  const char* why_ = "";
};

}  // namespace siphon
