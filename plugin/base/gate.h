// Gate: bounds what is under way at once, in units of its user's. First come, first served.
//
// What stays inside longer than the gate's patience no longer counts: an operation that hangs must
// not keep out those that would not. Thread safe.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <list>
#include <mutex>

namespace siphon {

class Gate {
  using Clock = std::chrono::steady_clock;
  struct Guest {
    std::uint64_t units;  // 0 once overdue
    Clock::time_point since;
  };
  using Guests = std::list<Guest>;

 public:
  // Inside until it is destroyed, which does not block. The gate must outlive it.
  class Pass {
   public:
    Pass(const Pass&) = delete;
    Pass& operator=(const Pass&) = delete;
    ~Pass() { gate_.leave(guest_); }

   private:
    friend class Gate;
    Pass(Gate& gate, Guests::iterator guest) : gate_(gate), guest_(guest) {}
    Gate& gate_;
    const Guests::iterator guest_;
  };

  Gate(std::uint64_t most_units, std::chrono::milliseconds patience)
      : most_units_(most_units), patience_(patience) {}
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;

  // Blocks until there is room for `units`, at most `patience` for everyone before it. Who needs
  // more than the gate has gets in when nobody else counts.
  Pass enter(std::uint64_t units);

 private:
  struct Waiting {
    const std::uint64_t units;
    std::condition_variable turn;
    bool admitted = false;
    Guests::iterator guest;
  };
  void leave(Guests::iterator guest);
  void admit_locked();

  const std::uint64_t most_units_;
  const std::chrono::milliseconds patience_;
  std::mutex mutex_;         // guards what follows
  std::uint64_t units_ = 0;  // of all guests
  Guests guests_;            // in the order of their entry
  std::deque<Waiting*> queue_;
};

}  // namespace siphon
