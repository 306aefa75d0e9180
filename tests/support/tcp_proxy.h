// TcpProxy: sits between a source and a target on loopback and damages what passes, at exact
// bytes. Forwards every connection to `upstream`; the damage is done to what the connecting side
// sends, on the first connection only. Its threads end when it goes.
#pragma once

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <vector>

#include "plugin/stream/listener.h"
#include "plugin/stream/socket.h"

namespace siphon::test {

struct Damage {
  static constexpr std::uint64_t kNever = ~0ull;
  std::uint64_t flip_at_byte = kNever;  // bit 0 of this byte of the stream is inverted
  std::uint64_t cut_at_byte = kNever;   // both ends are closed before this byte passes
  int reset_connections = 0;            // so many connections are reset at once, then none
};

class TcpProxy {
 public:
  TcpProxy(Endpoint upstream, Damage damage) : upstream_(std::move(upstream)), damage_(damage) {
    listen_fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ::bind(listen_fd_, reinterpret_cast<sockaddr*>(&address), sizeof address);
    ::listen(listen_fd_, 16);
    socklen_t size = sizeof address;
    ::getsockname(listen_fd_, reinterpret_cast<sockaddr*>(&address), &size);
    endpoint_ = {"127.0.0.1", ntohs(address.sin_port)};
    acceptor_ = std::thread([this] { accept_all(); });
  }
  ~TcpProxy() {
    stop_ = true;
    ::shutdown(listen_fd_, SHUT_RDWR);
    acceptor_.join();
    for (auto& pump : pumps_) pump.join();
    ::close(listen_fd_);
  }
  const Endpoint& endpoint() const { return endpoint_; }
  // Bytes of the first connection that passed towards the target.
  std::uint64_t passed_bytes() const { return passed_; }

 private:
  void accept_all() {
    while (!stop_) {
      const int fd = ::accept4(listen_fd_, nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0) return;
      if (reset_ < damage_.reset_connections) {
        const linger reset{1, 0};
        ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        ::close(fd);
        ++reset_;
        continue;
      }
      const bool first = pumps_.empty();
      pumps_.emplace_back([this, fd, first] { pump(fd, first); });
    }
  }

  void pump(int client, bool damaged) {
    auto server = Socket::connect(upstream_, deadline_in(std::chrono::seconds(5)));
    if (server) copy(client, server->fd(), damaged);
    ::close(client);
  }

  void copy(int client, int server, bool damaged) {
    std::array<pollfd, 2> fds{{{client, POLLIN, 0}, {server, POLLIN, 0}}};
    std::vector<char> buffer(64 * 1024);
    std::uint64_t passed = 0;
    while (!stop_) {
      if (::poll(fds.data(), fds.size(), 20) <= 0) continue;
      if (fds[1].revents != 0) {
        const ssize_t n = ::recv(server, buffer.data(), buffer.size(), MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN)) return;
        if (n > 0) send_all(client, buffer.data(), static_cast<std::size_t>(n));
      }
      if (fds[0].revents == 0) continue;
      const ssize_t n = ::recv(client, buffer.data(), buffer.size(), MSG_DONTWAIT);
      if (n == 0) ::shutdown(server, SHUT_WR);
      if (n == 0 || (n < 0 && errno != EAGAIN)) fds[0].fd = -1;
      if (n <= 0) continue;
      auto size = static_cast<std::uint64_t>(n);
      if (damaged && damage_.flip_at_byte >= passed && damage_.flip_at_byte < passed + size) {
        buffer[damage_.flip_at_byte - passed] ^= 1;
      }
      const bool cut = damaged && damage_.cut_at_byte < passed + size;
      if (cut) size = damage_.cut_at_byte - passed;
      if (!send_all(server, buffer.data(), size)) return;
      passed += size;
      if (damaged) passed_ = passed;
      if (cut) return;
    }
  }

  bool send_all(int fd, const char* data, std::size_t size) {
    while (size > 0 && !stop_) {
      pollfd ready{fd, POLLOUT, 0};
      if (::poll(&ready, 1, 20) <= 0) continue;
      const ssize_t n = ::send(fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (n < 0 && errno != EAGAIN) return false;
      if (n <= 0) continue;
      data += n;
      size -= static_cast<std::size_t>(n);
    }
    return true;
  }

  const Endpoint upstream_;
  const Damage damage_;
  int listen_fd_ = -1;
  Endpoint endpoint_;
  int reset_ = 0;  // of the acceptor's thread
  std::atomic<bool> stop_{false};
  std::atomic<std::uint64_t> passed_{0};
  std::vector<std::thread> pumps_;  // touched by the acceptor's thread until it is joined
  std::thread acceptor_;
};

}  // namespace siphon::test
