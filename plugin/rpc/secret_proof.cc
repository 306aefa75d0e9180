#include "plugin/rpc/secret_proof.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <system_error>

#include "plugin/exchange/le.h"

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

Sha256 secret_proof(const Secret& secret, const std::string& method,
                    std::span<const std::byte> nonce, std::int64_t issued_unix_ms,
                    const std::string& request) {
  const std::string label = "siphon.v1\n" + method + "\n";
  const Sha256 digest = sha256(std::as_bytes(std::span(request)));
  std::vector<std::byte> message(label.size() + nonce.size() + 8 + digest.size());
  LeWriter w(message);
  w.put_bytes(std::as_bytes(std::span(label)));
  w.put_bytes(nonce);
  w.put(issued_unix_ms);
  w.put_bytes(digest);
  return hmac_sha256(secret.reveal(), message);
}

Status ReplayGuard::check(std::span<const std::byte> nonce, std::int64_t issued_unix_ms) {
  const auto now = static_cast<std::int64_t>(now_unix_ms());
  const std::int64_t age_ms = now - issued_unix_ms;
  if (age_ms > kWindowMs || age_ms < -kWindowMs) {
    return fail(Code::kUnauthenticated, "the request's proof is too old or from the future",
                Side::kRequester, "compare the clocks of both hosts");
  }
  std::string key(reinterpret_cast<const char*>(nonce.data()), nonce.size());
  std::lock_guard lock(mutex_);
  while (!by_time_.empty() && by_time_.front().first < now - 2 * kWindowMs) {
    seen_.erase(by_time_.front().second);
    by_time_.pop_front();
  }
  if (seen_.size() >= kMaxRemembered) {
    return fail(Code::kResourceExhausted, "too many requests within five minutes", Side::kRequester,
                "try again in a few minutes");
  }
  if (!seen_.insert(key).second) {
    return fail(Code::kUnauthenticated, "the request's proof was used before", Side::kRequester);
  }
  by_time_.emplace_back(now, std::move(key));
  return {};
}

}  // namespace siphon::rpc
