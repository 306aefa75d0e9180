#include "plugin/rpc/secret_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <system_error>

namespace siphon::rpc {

Result<Secret> read_secret_file(const std::string& file) {
  // The advice never writes to a file that is there: it may be the one that others share.
  const std::string copy = "copy it from the daemon's host, with mode 0600";
  auto wrong = [&](const std::string& what, const std::string& next) {
    return fail(Code::kFailedPrecondition, "secret file " + file + ": " + what, Side::kNone, next);
  };
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) {
    const int why = errno;
    return wrong(std::generic_category().message(why),
                 why == ENOENT  ? copy
                 : why == ELOOP ? "name the file itself, not a symbolic link to it"
                                : "ls -l " + file);
  }
  struct stat st {};
  std::array<std::byte, 4097> buffer{};
  const bool known = ::fstat(fd, &st) == 0;
  const ssize_t got = known ? ::read(fd, buffer.data(), buffer.size()) : -1;
  ::close(fd);
  if (!known || !S_ISREG(st.st_mode)) return wrong("is not a regular file", "name the file itself");
  if ((st.st_mode & 077) != 0) {
    return wrong("is readable by others (its mode must be 0600)", "chmod 600 " + file);
  }
  if (st.st_uid != ::geteuid() && st.st_uid != 0) {
    return wrong("belongs to somebody else", "run this as its owner, or " + copy);
  }
  if (got < 16 || got > 4096) {
    return wrong("must hold 16 to 4096 bytes", "if it was cut short, " + copy);
  }
  Secret secret{std::span<const std::byte>(buffer.data(), static_cast<std::size_t>(got))};
  buffer.fill(std::byte{0});
  return secret;
}

void ReplayGuard::forget_old_locked(std::uint64_t now_ms) {
  while (!by_time_.empty() && by_time_.front().came_ms + kWindowMs < now_ms) {
    const Used& old = by_time_.front();
    nonces_.erase(old.nonce);
    const auto of_key = of_key_.find(old.key_id);
    if (of_key != of_key_.end() && --of_key->second == 0) of_key_.erase(of_key);
    by_time_.pop_front();
  }
}

Status ReplayGuard::check(const CallProof& proof, std::uint64_t now_ms) {
  if (proof.device.clock_ms > now_ms || now_ms - proof.device.clock_ms > kWindowMs) {
    return fail(Code::kUnauthenticated, "the call's proof is too old", Side::kRequester,
                "run the command again");
  }
  const MutexLock lock(mutex_);
  forget_old_locked(now_ms);
  if (nonces_.contains(proof.nonce)) {
    return fail(Code::kUnauthenticated, "the call's proof was used before", Side::kRequester);
  }
  // A secret is everybody's.
  const std::size_t most = proof.key_id == KeyId{} ? kMaxRemembered : kMaxOfOneKey;
  std::size_t& of_key = of_key_[proof.key_id];
  if (nonces_.size() >= kMaxRemembered || of_key >= most) {
    return fail_busy("too many calls within five minutes: busy", Side::kRequester,
                     "try again in a few minutes");
  }
  nonces_.insert(proof.nonce);
  by_time_.push_back({now_ms, proof.key_id, proof.nonce});
  ++of_key;
  return {};
}

}  // namespace siphon::rpc
