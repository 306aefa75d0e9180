#include "plugin/rpc/door.h"

#include <fcntl.h>
#include <linux/tcp.h>  // glibc's tcp_info lacks the bytes
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "plugin/base/log.h"
#include "plugin/stream/socket_address.h"

namespace siphon::rpc {

namespace {

using Clock = std::chrono::steady_clock;

constexpr int kBacklog = 512;
// What the kernel keeps of what a caller says and gRPC has not read: it is read even after he has
// been hung up.
constexpr int kReceiveBuffer = 16 << 10;
// How often it is looked who has been here for too long.
constexpr std::chrono::milliseconds kLook{200};
// How often it is asked whether gRPC is still behind.
constexpr std::chrono::milliseconds kBehind{5};
// As often for one connection: whoever makes gRPC lag for good only slows the others.
constexpr int kMostBehind = 40;
// Out of descriptors: the port is left alone for this long, so that the loop does not spin.
constexpr std::chrono::milliseconds kAcceptPause{50};

// A listening socket, or -errno.
int listen_on(const SocketAddress& address) {
  const int fd = ::socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -errno;
  const int on = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  ::setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &kReceiveBuffer, sizeof kReceiveBuffer);
  if (::bind(fd, reinterpret_cast<const sockaddr*>(&address.storage), address.size) == 0 &&
      ::listen(fd, kBacklog) == 0) {
    return fd;
  }
  const int why = errno;
  ::close(fd);
  return -why;
}

Result<Endpoint> bound_to(int fd) {
  SocketAddress address;
  address.size = sizeof address.storage;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address.storage), &address.size) != 0) {
    return fail(error_from_errno(errno, "getsockname"));
  }
  return to_endpoint(address);
}

// Ends a connection for all who hold it, and drops what came and nobody has read. (After a shutdown
// the kernel would go on to take what the peer says, and gRPC to read it.)
void reset(int fd) {
  sockaddr none{};
  none.sa_family = AF_UNSPEC;
  ::connect(fd, &none, sizeof none);
}

std::uint64_t received_bytes(int fd) {
  tcp_info info{};
  socklen_t size = sizeof info;
  if (::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return 0;
  return info.tcpi_bytes_received;
}

}  // namespace

// `fd` is a second descriptor of the connection: gRPC has the first, and closes it when it likes.
struct Door::Connection {
  std::uint64_t id;  // never given twice, as a descriptor's number is
  int fd;
  std::string peer;
  Clock::time_point came_at;
  int refusals = 0;
  int challenges = 0;
  bool has_spoken = false;
  std::optional<Share::Part> place{};  // once he is known
};

Result<std::unique_ptr<Door>> Door::open(const std::string& address, PortRange ports) {
  int listener = -EADDRINUSE;
  for (std::uint32_t port = ports.first; listener == -EADDRINUSE && port <= ports.last; ++port) {
    auto where = to_socket_address(address, static_cast<std::uint16_t>(port));
    if (!where) return fail(std::move(where).error());
    listener = listen_on(*where);
  }
  const std::string range = std::to_string(ports.first) + "-" + std::to_string(ports.last);
  if (listener == -EADDRINUSE) {
    return fail(Code::kResourceExhausted, "no free control port on " + address + " in " + range,
                Side::kNone, "widen control.listen, or see with ss -ltnp who holds them");
  }
  if (listener < 0) {
    return fail(Code::kFailedPrecondition,
                "control port on " + address + " in " + range + ": " + std::strerror(-listener),
                Side::kNone, "check control.listen in the configuration");
  }
  const int epoll = ::epoll_create1(EPOLL_CLOEXEC);
  const int wake = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  auto endpoint = bound_to(listener);
  bool ready = epoll >= 0 && wake >= 0 && endpoint;
  epoll_event event{EPOLLIN, {.u64 = 0}};
  ready = ready && ::epoll_ctl(epoll, EPOLL_CTL_ADD, wake, &event) == 0;
  if (ready) return std::unique_ptr<Door>(new Door(listener, epoll, wake, *endpoint));
  const int why = errno;
  for (const int fd : {listener, epoll, wake}) {
    if (fd >= 0) ::close(fd);
  }
  return fail(error_from_errno(why, "control port"));
}

Door::Door(int listener, int epoll, int wake, Endpoint endpoint)
    : listener_(listener), epoll_(epoll), wake_(wake), endpoint_(std::move(endpoint)) {}

Door::~Door() {
  close();
  for (const Connections* all : {&unproven_, &known_}) {
    for (const Connection& connection : *all) ::close(connection.fd);
  }
  for (const int fd : {listener_, epoll_, wake_}) ::close(fd);
}

void Door::serve(std::function<void(int fd)> hand_over, std::function<bool()> is_behind) {
  hand_over_ = std::move(hand_over);
  is_behind_ = std::move(is_behind);
  watcher_ = std::jthread([this](const std::stop_token& stop) { watch(stop); });
  for (std::jthread& acceptor : acceptors_)
    acceptor = std::jthread([this](const std::stop_token& stop) { accept(stop); });
}

void Door::close() {
  if (!watcher_.joinable()) return;
  for (std::jthread& acceptor : acceptors_) acceptor.request_stop();
  watcher_.request_stop();
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = ::write(wake_, &one, sizeof one);  // full: readable already
  for (std::jthread& acceptor : acceptors_) {
    if (acceptor.joinable()) acceptor.join();
  }
  watcher_.join();
}

bool Door::now_known(const Endpoint& peer, const Payers& payers) {
  const MutexLock lock(mutex_);
  const auto it = by_peer_.find(peer.to_string());
  if (it == by_peer_.end() || it->second->place) return true;
  Connection& connection = *it->second;
  if (auto place = places_.take(payers)) connection.place.emplace(std::move(*place));
  if (!connection.place) return false;
  known_.splice(known_.end(), unproven_, it->second);
  // What he says is his affair now; when he goes, the place is another's.
  epoll_event event{EPOLLRDHUP | EPOLLET, {.u64 = connection.id}};
  if (::epoll_ctl(epoll_, EPOLL_CTL_MOD, connection.fd, &event) != 0)
    forget_locked(it->second, /*hang_up=*/true);
  return true;
}

void Door::was_refused(const Endpoint& peer) {
  const MutexLock lock(mutex_);
  count_locked(peer, &Connection::refusals);
}

void Door::was_challenged(const Endpoint& peer) {
  const MutexLock lock(mutex_);
  count_locked(peer, &Connection::challenges);
}

void Door::count_locked(const Endpoint& peer, int Connection::*what) {
  const auto it = by_peer_.find(peer.to_string());
  if (it == by_peer_.end() || it->second->place) return;
  ++((*it->second).*what);
  if (it->second->refusals + it->second->challenges > kMostRefusals)
    forget_locked(it->second, /*hang_up=*/true);
}

std::size_t Door::unproven() const {
  const MutexLock lock(mutex_);
  return unproven_.size();
}

std::size_t Door::known() const {
  const MutexLock lock(mutex_);
  return known_.size();
}

void Door::accept(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    std::array<pollfd, 2> fds{{{listener_, POLLIN, 0}, {wake_, POLLIN, 0}}};
    ::poll(fds.data(), fds.size(), -1);
    do {
      for (int i = 0; i < kMostBehind && is_behind_() && !stop.stop_requested(); ++i)
        ::poll(&fds[1], 1, static_cast<int>(kBehind.count()));
    } while (!stop.stop_requested() && accept_one());
  }
}

void Door::watch(const std::stop_token& stop) {
  Clock::time_point looked_at{};
  while (!stop.stop_requested()) {
    std::array<epoll_event, 64> events;
    const int count =
        ::epoll_wait(epoll_, events.data(), events.size(), static_cast<int>(kLook.count()));
    const MutexLock lock(mutex_);
    for (int i = 0; i < count; ++i) look_at_locked(events[static_cast<std::size_t>(i)]);
    if (Clock::now() - looked_at < kLook) continue;
    looked_at = Clock::now();
    while (!unproven_.empty() && unproven_.front().came_at < looked_at - kPatience)
      forget_locked(unproven_.begin(), /*hang_up=*/true);
  }
}

// He has said something, or he or gRPC has hung up.
void Door::look_at_locked(const epoll_event& event) {
  const bool has_gone = (event.events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
  if (const auto at = std::ranges::find(known_, event.data.u64, &Connection::id);
      at != known_.end()) {
    // gRPC still reads what he said before he went.
    if (has_gone) forget_locked(at, /*hang_up=*/false);
    return;
  }
  const auto at = std::ranges::find(unproven_, event.data.u64, &Connection::id);
  if (at == unproven_.end()) return;
  if (has_gone) {
    forget_locked(at, /*hang_up=*/true);  // what he said before he went is not read any more
  } else if (received_bytes(at->fd) > kMostBytes) {
    log::debug("{} has shown no authority: closed", at->peer);
    forget_locked(at, /*hang_up=*/true);
  } else {
    at->has_spoken = true;
  }
}

// One of those who were refused; else the oldest of those who have said nothing; else any: of a
// crowd it is then most probably not he who is about to show his authority.
void Door::make_room_locked() {
  if (unproven_.size() < kMostUnproven) return;
  auto victim = std::ranges::find_if(unproven_, [](const auto& s) { return s.refusals > 0; });
  if (victim == unproven_.end())
    victim = std::ranges::find(unproven_, false, &Connection::has_spoken);
  if (victim == unproven_.end()) {
    std::uniform_int_distribution<std::ptrdiff_t> any(0, kMostUnproven - 1);
    victim = std::next(unproven_.begin(), any(random_));
  }
  forget_locked(victim, /*hang_up=*/true);
}

// False: nobody waits.
bool Door::accept_one() {
  SocketAddress peer;
  peer.size = sizeof peer.storage;
  const int fd = ::accept4(listener_, reinterpret_cast<sockaddr*>(&peer.storage), &peer.size,
                           SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd < 0) {
    const int why = errno;
    if (why == EMFILE || why == ENFILE || why == ENOBUFS || why == ENOMEM) {
      {
        const MutexLock lock(mutex_);
        if (!unproven_.empty()) forget_locked(unproven_.begin(), /*hang_up=*/true);
      }
      std::this_thread::sleep_for(kAcceptPause);
    }
    return why == EINTR || why == ECONNABORTED;
  }
  const int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  const int second = ::fcntl(fd, F_DUPFD_CLOEXEC, 0);
  auto endpoint = to_endpoint(peer);
  if (second < 0 || !endpoint) {
    if (second >= 0) ::close(second);
    ::close(fd);
    return true;
  }
  {
    const MutexLock lock(mutex_);
    make_room_locked();
    // An earlier connection of this address is gone, or the kernel would not give it again.
    if (auto it = by_peer_.find(endpoint->to_string()); it != by_peer_.end()) {
      forget_locked(it->second, /*hang_up=*/false);
    }
    unproven_.push_back({++last_id_, second, endpoint->to_string(), Clock::now()});
    by_peer_[unproven_.back().peer] = std::prev(unproven_.end());
    epoll_event event{EPOLLIN | EPOLLRDHUP | EPOLLET, {.u64 = unproven_.back().id}};
    if (::epoll_ctl(epoll_, EPOLL_CTL_ADD, second, &event) != 0) {
      forget_locked(std::prev(unproven_.end()), /*hang_up=*/true);
    }
  }
  hand_over_(fd);
  return true;
}

void Door::forget_locked(Connections::iterator at, bool hang_up) {
  if (hang_up) reset(at->fd);
  ::epoll_ctl(epoll_, EPOLL_CTL_DEL, at->fd, nullptr);  // gRPC's descriptor keeps the connection
  ::close(at->fd);
  by_peer_.erase(at->peer);
  (at->place ? known_ : unproven_).erase(at);
}

}  // namespace siphon::rpc
