// Door: the control port's listener. It hands every connection on to gRPC, and resets those of
// unproven peers: a connection whose caller has not shown any authority yet may stay for kPatience,
// say kMostBytes and make kMostRefusals calls, and there are kMostUnproven of them; one that was
// refused, else one that is silent, else any makes room for the next. So what unproven peers can
// make gRPC hold is bounded, whatever they say and however many come. A caller needs a few
// milliseconds and a kilobyte (with TLS: six) to become known. There are kMostKnown known ones, of
// which each key has its share; who comes on top of it stays an unproven peer.
//
// Threads of its own: several accept, because gRPC may keep whoever hands it a connection busy with
// what comes over it; one looks after unproven peers. Thread safe.
#pragma once

#include <sys/epoll.h>

#include <array>
#include <chrono>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>

#include "plugin/base/status.h"
#include "plugin/core/mutex.h"
#include "plugin/rpc/share.h"
#include "plugin/stream/listener.h"
#include "plugin/stream/socket.h"

namespace siphon::rpc {

class Door {
 public:
  static constexpr std::size_t kMostUnproven = 512;
  static constexpr std::size_t kMostKnown = 512;
  static constexpr std::uint64_t kMostBytes = 16 * kKiB;
  static constexpr int kMostRefusals = 8;
  static constexpr std::chrono::seconds kPatience{10};

  // RESOURCE_EXHAUSTED: no free port in the range. Listens; serves nobody before `serve`.
  static Result<std::unique_ptr<Door>> open(const std::string& address, PortRange ports);
  ~Door();
  Door(const Door&) = delete;
  Door& operator=(const Door&) = delete;

  const Endpoint& endpoint() const { return endpoint_; }
  // `hand_over` gets each connection's descriptor, to keep; none while `is_behind`: it then has
  // more to clear away of earlier ones than it should. Once.
  void serve(std::function<void(int fd)> hand_over, std::function<bool()> is_behind);
  // Takes no more connections. `hand_over` is not called any more.
  void close();

  // The caller at the other end has shown authority. False: the keys that he has shown have as many
  // connections as they may.
  bool now_known(const Endpoint& peer, const Payers& payers);
  // A call of his had none, or was a Challenge (whose proof may be overheard). Too many: he is hung
  // up.
  void was_refused(const Endpoint& peer);
  void was_challenged(const Endpoint& peer);
  std::size_t unproven() const;
  std::size_t known() const;

 private:
  struct Connection;
  using Connections = std::list<Connection>;  // in the order in which they came

  Door(int listener, int epoll, int wake, Endpoint endpoint);
  void accept(const std::stop_token& stop);
  bool accept_one();
  void watch(const std::stop_token& stop);
  void look_at_locked(const epoll_event& event) SIPHON_REQUIRES(mutex_);
  void make_room_locked() SIPHON_REQUIRES(mutex_);
  void count_locked(const Endpoint& peer, int Connection::*what) SIPHON_REQUIRES(mutex_);
  void forget_locked(Connections::iterator at, bool hang_up) SIPHON_REQUIRES(mutex_);

  const int listener_, epoll_, wake_;
  const Endpoint endpoint_;
  std::function<void(int fd)> hand_over_;
  std::function<bool()> is_behind_;
  Share places_{kMostKnown};
  mutable Mutex mutex_;
  std::uint64_t last_id_ SIPHON_GUARDED_BY(mutex_) = 0;
  Connections unproven_ SIPHON_GUARDED_BY(mutex_), known_ SIPHON_GUARDED_BY(mutex_);
  std::map<std::string, Connections::iterator> by_peer_ SIPHON_GUARDED_BY(mutex_);  // of both
  std::minstd_rand random_ SIPHON_GUARDED_BY(mutex_){std::random_device{}()};
  std::array<std::jthread, 3> acceptors_;  // these last: they use all else
  std::jthread watcher_;
};

}  // namespace siphon::rpc
