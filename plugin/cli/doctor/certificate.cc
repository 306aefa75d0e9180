#include "plugin/cli/doctor/certificate.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>

#include <algorithm>
#include <ctime>
#include <memory>

#include "plugin/base/types.h"
#include "plugin/stream/socket.h"

namespace siphon::cli::doctor {
namespace {

template <auto Free>
struct Freed {
  template <typename T>
  void operator()(T* object) const {
    Free(object);
  }
};
using X509Ptr = std::unique_ptr<X509, Freed<X509_free>>;
using ContextPtr = std::unique_ptr<SSL_CTX, Freed<SSL_CTX_free>>;
using SslPtr = std::unique_ptr<SSL, Freed<SSL_free>>;
using NamesPtr = std::unique_ptr<GENERAL_NAMES, Freed<GENERAL_NAMES_free>>;
struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

std::int64_t unix_seconds(const ASN1_TIME* time) {
  std::tm parts{};
  if (time == nullptr || ASN1_TIME_to_tm(time, &parts) != 1) return 0;
  return ::timegm(&parts);
}

std::string text_of(const ASN1_STRING* text) {
  return {reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)),
          static_cast<std::size_t>(ASN1_STRING_length(text))};
}

Certificate read(X509* x509) {
  Certificate out;
  out.not_before_unix_s = unix_seconds(X509_get0_notBefore(x509));
  out.not_after_unix_s = unix_seconds(X509_get0_notAfter(x509));
  const NamesPtr names(
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(x509, NID_subject_alt_name, nullptr, nullptr)));
  for (int i = 0; names && i < sk_GENERAL_NAME_num(names.get()); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names.get(), i);
    if (name->type == GEN_DNS) out.names.push_back(text_of(name->d.dNSName));
    if (name->type != GEN_IPADD) continue;
    const std::string bytes = text_of(name->d.iPAddress);
    char text[INET6_ADDRSTRLEN] = "";
    if (bytes.size() != 4 && bytes.size() != 16) continue;
    ::inet_ntop(bytes.size() == 4 ? AF_INET : AF_INET6, bytes.data(), text, sizeof text);
    out.names.emplace_back(text);
  }
  return out;
}

// False: `until` is over.
bool wait_for(int fd, short what, Deadline until) {
  for (;;) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(until - Deadline::clock::now());
    if (left.count() <= 0) return false;
    pollfd poll{fd, what, 0};
    const int result = ::poll(&poll, 1, static_cast<int>(std::min<long>(left.count(), 1000)));
    if (result > 0) return true;
    if (result < 0 && errno != EINTR) return false;
  }
}

}  // namespace

Result<Certificate> certificate_in(const std::string& file) {
  const std::unique_ptr<std::FILE, CloseFile> in(std::fopen(file.c_str(), "re"));
  if (!in) return fail(error_from_errno(errno, "open " + file, Side::kRequester));
  const X509Ptr x509(PEM_read_X509(in.get(), nullptr, nullptr, nullptr));
  if (!x509) return fail(Code::kInvalidArgument, file + " holds no certificate in PEM");
  return read(x509.get());
}

Result<Certificate> certificate_at(const std::string& endpoint, std::chrono::milliseconds at_most) {
  const Deadline until = deadline_in(at_most);
  auto to = parse_endpoint(endpoint);
  if (!to) return fail(std::move(to).error());
  auto socket = Socket::connect(*to, until);
  if (!socket) return fail(std::move(socket).error());
  const ContextPtr context(SSL_CTX_new(TLS_client_method()));
  const SslPtr ssl(context ? SSL_new(context.get()) : nullptr);
  if (!ssl) return fail(Code::kInternal, "OpenSSL has no memory left");
  SSL_set_verify(ssl.get(), SSL_VERIFY_NONE, nullptr);
  static constexpr unsigned char kHttp2[] = {2, 'h', '2'};
  SSL_set_alpn_protos(ssl.get(), kHttp2, sizeof kHttp2);
  const int fd = socket->fd();
  ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
  SSL_set_fd(ssl.get(), fd);
  for (;;) {
    const int result = SSL_connect(ssl.get());
    // Who wants ours as well may end it here; what is wanted has been shown by then.
    if (const X509Ptr shown{SSL_get1_peer_certificate(ssl.get())}; shown) return read(shown.get());
    const int why = SSL_get_error(ssl.get(), result);
    const bool reads = why == SSL_ERROR_WANT_READ;
    if (!reads && why != SSL_ERROR_WANT_WRITE) break;
    if (!wait_for(fd, reads ? POLLIN : POLLOUT, until)) {
      return fail(Code::kDeadlineExceeded, endpoint + " shows no certificate in time");
    }
  }
  return fail(Code::kUnavailable, endpoint + " shows no certificate");
}

}  // namespace siphon::cli::doctor
