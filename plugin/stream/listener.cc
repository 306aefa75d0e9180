#include "plugin/stream/listener.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <list>
#include <optional>
#include <utility>

#include "plugin/base/log.h"
#include "plugin/core/fd.h"
#include "plugin/stream/socket_address.h"

namespace siphon {
namespace {

// Of each kind (has shown the ticket's id, has not), beside one place for each lane that is still
// to come: lanes never push each other out.
constexpr std::size_t kPlacesForUnproven = 8;
constexpr std::chrono::seconds kUnprovenTimeout{2};  // for the ticket's id, then for the proof
// Room for a flood: who is not let in here at once knocks again only after a second (TCP's retry).
constexpr int kBacklog = 1024;
// Out of descriptors: the port is left alone for this long, so that the loop does not spin.
constexpr std::chrono::milliseconds kAcceptPause{50};

// A connection that has not proven the ticket yet.
struct Unproven {
  Fd fd;
  TicketChecker checker;
  Deadline deadline;
};

// Whether closing it is a reset. Who is turned away for want of room or time is told so: a source
// then tries again. The plain end is the answer to a wrong ticket, which stays wrong.
void reset_on_close(const Fd& fd, bool on) {
  const linger how{on ? 1 : 0, 0};
  ::setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &how, sizeof how);
}

}  // namespace

// One call of accept_lanes: a single thread, a poll loop, nothing that blocks elsewhere.
class Listener::Acceptor {
 public:
  Acceptor(int listen_fd, int wake_fd, const Ticket& ticket, std::uint16_t lane_count,
           Shared& shared)
      : listen_fd_(listen_fd),
        wake_fd_(wake_fd),
        ticket_(ticket),
        lanes_(lane_count),
        shared_(shared) {}

  Result<std::vector<Socket>> run(Deadline deadline);

 private:
  using Crowd = std::list<Unproven>;  // the longest there first
  std::size_t places() const { return kPlacesForUnproven + lanes_.size() - lanes_in_; }
  int next_timeout_ms(Deadline deadline, Deadline now) const;
  void accept_one(Deadline now);
  void make_room(Crowd& crowd);
  // What has come from one of them; he may then be elsewhere, or gone.
  void serve(Crowd& crowd, Crowd::iterator peer);
  enum class Next { kStay, kNowKnown, kGo };
  Next serve(Unproven& peer);
  bool admit(Unproven& peer);
  void turn_away(const char* why);
  Error timed_out() const;

  const int listen_fd_;
  const int wake_fd_;
  const Ticket& ticket_;
  std::vector<Socket> lanes_;
  std::size_t lanes_in_ = 0;
  Shared& shared_;
  Crowd unknown_;  // have not shown the ticket's id: they never push out those who have
  Crowd known_;    // have shown it, and have their challenge
  Deadline accept_again_{};
};

Result<std::vector<Socket>> Listener::Acceptor::run(Deadline deadline) {
  std::vector<pollfd> fds;
  while (lanes_in_ < lanes_.size()) {
    const auto now = Deadline::clock::now();
    deadline = std::min(deadline, shared_.expect_by.load());
    for (Crowd* crowd : {&known_, &unknown_}) {
      while (!crowd->empty() && crowd->front().deadline <= now) {
        turn_away("silent for 2 s");
        crowd->pop_front();
      }
    }
    if (now >= deadline) return fail(timed_out());

    fds.clear();
    fds.push_back({wake_fd_, POLLIN, 0});
    fds.push_back({now >= accept_again_ ? listen_fd_ : -1, POLLIN, 0});
    for (const Crowd* crowd : {&known_, &unknown_}) {
      for (const auto& peer : *crowd) fds.push_back({peer.fd.get(), POLLIN, 0});
    }
    const int ready = ::poll(fds.data(), fds.size(), next_timeout_ms(deadline, now));
    if (ready < 0 && errno != EINTR) return fail(error_from_errno(errno, "poll the data port"));
    if (ready <= 0) continue;
    if (fds[0].revents != 0) {
      if (shared_.cancelled) return fail(Code::kCancelled, "the data port was closed");
      std::uint64_t count = 0;
      [[maybe_unused]] const ssize_t n = ::read(wake_fd_, &count, sizeof count);
      continue;  // with another deadline
    }

    std::size_t i = 2;
    for (Crowd* crowd :
         {&known_, &unknown_}) {  // in this order: who becomes known is not looked at
      for (auto peer = crowd->begin(); peer != crowd->end(); ++i) {
        const auto next = std::next(peer);
        if (fds[i].revents != 0) serve(*crowd, peer);
        peer = next;
      }
    }
    if (fds[1].revents != 0 && lanes_in_ < lanes_.size()) accept_one(Deadline::clock::now());
  }
  for (std::size_t i = 0; i < known_.size() + unknown_.size(); ++i) turn_away("every lane is in");
  return std::move(lanes_);
}

int Listener::Acceptor::next_timeout_ms(Deadline deadline, Deadline now) const {
  Deadline next = deadline;
  for (const Crowd* crowd : {&known_, &unknown_}) {
    if (!crowd->empty()) next = std::min(next, crowd->front().deadline);
  }
  if (accept_again_ > now) next = std::min(next, accept_again_);
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(next - now).count();
  return static_cast<int>(std::clamp<std::int64_t>(left, 0, 60'000));
}

void Listener::Acceptor::accept_one(Deadline now) {
  const int fd = ::accept4(listen_fd_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd < 0) {
    const bool exhausted =
        errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM;
    if (exhausted) accept_again_ = now + kAcceptPause;
    return;
  }
  make_room(unknown_);
  const auto lane_count = static_cast<std::uint16_t>(lanes_.size());
  unknown_.push_back({Fd(fd), TicketChecker(ticket_, lane_count), now + kUnprovenTimeout});
  reset_on_close(unknown_.back().fd, true);
  // At once: who has stood in a long line has said his word by now, and need not fear the next one.
  serve(unknown_, std::prev(unknown_.end()));
}

void Listener::Acceptor::make_room(Crowd& crowd) {
  if (crowd.size() < places()) return;
  turn_away("too many at once, the oldest goes");
  crowd.pop_front();
}

void Listener::Acceptor::serve(Crowd& crowd, Crowd::iterator peer) {
  switch (serve(*peer)) {
    case Next::kStay:
      return;
    case Next::kGo:
      crowd.erase(peer);
      return;
    case Next::kNowKnown:
      peer->deadline = Deadline::clock::now() + kUnprovenTimeout;
      make_room(known_);
      known_.splice(known_.end(), crowd, peer);
      return;
  }
}

Listener::Acceptor::Next Listener::Acceptor::serve(Unproven& peer) {
  std::array<std::byte, std::max(kHelloBytes, kProofBytes)> bytes;
  const ssize_t n = ::recv(peer.fd.get(), bytes.data(), peer.checker.wanted_bytes(), MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return Next::kStay;
  if (n <= 0) {
    turn_away("it went away");
    return Next::kGo;
  }
  switch (peer.checker.feed(std::span(bytes).first(static_cast<std::size_t>(n)))) {
    case TicketChecker::Step::kNeedMore:
      return Next::kStay;
    case TicketChecker::Step::kSend: {
      // An empty socket buffer takes 64 bytes whole; a peer for whom it does not is dropped.
      const auto reply = peer.checker.reply();
      const ssize_t sent =
          ::send(peer.fd.get(), reply.data(), reply.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent == static_cast<ssize_t>(reply.size())) return Next::kNowKnown;
      turn_away("it does not take the challenge");
      return Next::kGo;
    }
    case TicketChecker::Step::kAccepted:
      reset_on_close(peer.fd, false);
      if (!admit(peer)) turn_away("its lane is in already");
      return Next::kGo;
    case TicketChecker::Step::kRefused:
      reset_on_close(peer.fd, false);
      turn_away(peer.checker.why());
      return Next::kGo;
  }
  return Next::kGo;
}

bool Listener::Acceptor::admit(Unproven& peer) {
  Socket& lane = lanes_[peer.checker.lane()];
  if (lane.valid()) return false;
  lane = Socket(peer.fd.release());
  ++lanes_in_;
  return true;
}

void Listener::Acceptor::turn_away(const char* why) {
  shared_.rejected_connections.fetch_add(1, std::memory_order_relaxed);
  log::debug("data port: a connection is rejected: {}", why);
}

Error Listener::Acceptor::timed_out() const {
  return Error{
      Code::kDeadlineExceeded,
      "the source did not open its lanes in time: " + std::to_string(lanes_in_) + " of " +
          std::to_string(lanes_.size()) + " came, " +
          std::to_string(shared_.rejected_connections.load()) + " connections were rejected",
      Side::kSource, "check that the source can reach the target's data address and port range"};
}

namespace {

// A bound and listening socket, or the errno.
Result<int> listen_on(const SocketAddress& address, const std::string& text) {
  Fd fd(::socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (fd.get() < 0) return fail(error_from_errno(errno, "socket", Side::kTarget));
  const int on = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address.storage), address.size) != 0 ||
      ::listen(fd.get(), kBacklog) != 0) {
    const int error = errno;
    const Code code = error == EADDRINUSE ? Code::kAlreadyExists : Code::kFailedPrecondition;
    return fail(code, "data port " + text + ": " + std::strerror(error), Side::kTarget,
                "check the data address and ports in the configuration");
  }
  return fd.release();
}

}  // namespace

Result<PortRange> parse_port_range(std::string_view text) {
  const auto bad = [&] {
    return fail(Code::kInvalidArgument,
                "'" + std::string(text) + "' is not a port or a range like 7500-7599");
  };
  const auto parse = [](std::string_view part, std::uint16_t& port) {
    const char* end = part.data() + part.size();
    const auto [stop, ec] = std::from_chars(part.data(), end, port);
    return ec == std::errc() && stop == end;
  };
  const auto dash = text.find('-');
  PortRange range;
  if (!parse(text.substr(0, dash), range.first)) return bad();
  range.last = range.first;
  if (dash != std::string_view::npos && !parse(text.substr(dash + 1), range.last)) return bad();
  const bool any = range.first == 0 && range.last == 0;
  if (range.last < range.first || (range.first == 0 && !any)) return bad();
  return range;
}

Result<Listener> Listener::open(const std::string& address, PortRange ports) {
  Listener listener;
  listener.wake_fd_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (listener.wake_fd_ < 0) return fail(error_from_errno(errno, "eventfd", Side::kTarget));
  for (std::uint32_t port = ports.first; port <= ports.last; ++port) {
    auto where = to_socket_address(address, static_cast<std::uint16_t>(port));
    if (!where) return fail(std::move(where).error());
    auto fd = listen_on(*where, Endpoint{address, static_cast<std::uint16_t>(port)}.to_string());
    if (!fd && fd.error().code == Code::kAlreadyExists) continue;
    if (!fd) return fail(std::move(fd).error());
    listener.fd_ = *fd;
    SocketAddress bound;
    bound.size = sizeof bound.storage;
    if (::getsockname(*fd, reinterpret_cast<sockaddr*>(&bound.storage), &bound.size) != 0) {
      return fail(error_from_errno(errno, "getsockname", Side::kTarget));
    }
    auto endpoint = to_endpoint(bound);
    if (!endpoint) return fail(std::move(endpoint).error());
    listener.endpoint_ = *endpoint;
    return listener;
  }
  return fail(Code::kResourceExhausted,
              "no free data port in " + std::to_string(ports.first) + "-" +
                  std::to_string(ports.last) + " on " + address,
              Side::kTarget, "widen the port range or lower the number of transfers at once");
}

Listener::Listener(Listener&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      wake_fd_(std::exchange(other.wake_fd_, -1)),
      endpoint_(std::move(other.endpoint_)),
      shared_(std::move(other.shared_)) {}

Listener::~Listener() {
  close_port();
  if (wake_fd_ >= 0) ::close(wake_fd_);
}

void Listener::close_port() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

Result<std::vector<Socket>> Listener::accept_lanes(const Ticket& ticket, std::uint16_t lane_count,
                                                   Deadline deadline) {
  if (fd_ < 0 || lane_count == 0) {
    return fail(Code::kFailedPrecondition, "the data port is closed, or no lane was asked for");
  }
  auto lanes = Acceptor(fd_, wake_fd_, ticket, lane_count, *shared_).run(deadline);
  close_port();
  return lanes;
}

void Listener::cancel() {
  shared_->cancelled = true;
  wake();
}

void Listener::expect_by(Deadline deadline) {
  shared_->expect_by = deadline;
  wake();
}

void Listener::wake() {
  const std::uint64_t one = 1;
  // Fails only when the counter is full, and then it is readable already.
  [[maybe_unused]] const ssize_t n = ::write(wake_fd_, &one, sizeof one);
}

std::uint64_t Listener::rejected_connections() const {
  return shared_->rejected_connections.load(std::memory_order_relaxed);
}

}  // namespace siphon
