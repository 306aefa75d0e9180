// Credentials for both ends, from three PEM files. Private to plugin/rpc.
#pragma once

#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>

#include <fstream>
#include <iterator>
#include <memory>
#include <string>

#include "plugin/base/status.h"

namespace siphon::rpc {

struct TlsFiles {
  std::string ca, cert, key;  // file names
  bool any() const { return !ca.empty() || !cert.empty() || !key.empty(); }
};
struct TlsContents {
  std::string ca, cert, key;  // PEM text
};

inline Result<TlsContents> read_tls(const TlsFiles& files) {
  TlsContents out;
  for (auto [file, text, what] :
       {std::tuple{&files.ca, &out.ca, "tls.ca"}, std::tuple{&files.cert, &out.cert, "tls.cert"},
        std::tuple{&files.key, &out.key, "tls.key"}}) {
    std::ifstream in(*file);
    text->assign(std::istreambuf_iterator<char>(in), {});
    if (file->empty() || !in || text->find("-----BEGIN") == std::string::npos) {
      return fail(Code::kFailedPrecondition,
                  std::string(what) + ": '" + *file + "' is not a readable PEM file", Side::kNone,
                  "name all three: CA, certificate and key");
    }
  }
  return out;
}

}  // namespace siphon::rpc
