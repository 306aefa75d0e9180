#include "plugin/cli/address.h"

#include <sys/stat.h>

#include <algorithm>
#include <cctype>

namespace siphon::cli {
namespace {

constexpr std::string_view kFolderPrefix = "posix:";
constexpr std::string_view kCephPrefix = "ceph:";

// "HOST:DIGITS", "[::1]:DIGITS".
bool is_host_port(std::string_view text) {
  const auto colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return false;
  const std::string_view port = text.substr(colon + 1);
  return !port.empty() &&
         std::all_of(port.begin(), port.end(), [](unsigned char c) { return std::isdigit(c); });
}

bool is_port(std::string_view text) {
  if (text.size() > 5) return false;
  const int number = std::stoi(std::string(text));
  return number >= 1 && number <= 65535;
}

// The one name that needs nobody to resolve it.
std::string numeric_host(std::string_view host_port) {
  constexpr std::string_view kLocal = "localhost:";
  if (!host_port.starts_with(kLocal)) return std::string(host_port);
  return "127.0.0.1:" + std::string(host_port.substr(kLocal.size()));
}

tl::unexpected<Error> bad(std::string_view text, const std::string& why) {
  return fail(Code::kInvalidArgument, "'" + std::string(text) + "' " + why, Side::kRequester,
              "write POOL/EXTENT, HOST:PORT/EXTENT or posix:DIR/EXTENT");
}

Status check_wanted(const Address& address, std::string_view text, Want want) {
  if (!address.extent.empty()) {
    if (auto ok = check_extent_name(address.extent); !ok) {
      return fail(std::move(ok).error().with_context("'" + std::string(text) + "'"));
    }
  }
  if (want == Want::kExtent && address.extent.empty()) return bad(text, "names no extent");
  if (want == Want::kStore && !address.extent.empty()) {
    return bad(text, "names an extent where a whole store is wanted");
  }
  return {};
}

Result<Address> parse_folder(std::string_view text, Want want) {
  std::string_view path = text.substr(kFolderPrefix.size());
  if (path.empty()) return bad(text, "names no folder");
  Address address;
  address.where = Where::kFolder;
  const auto slash = path.rfind('/');
  const bool whole = want == Want::kStore || (want == Want::kEither && path.back() == '/');
  if (!whole) {
    if (slash == std::string_view::npos) return bad(text, "names no folder before the extent");
    address.extent = path.substr(slash + 1);
    path = slash == 0 ? "/" : path.substr(0, slash);
  }
  while (path.size() > 1 && path.back() == '/') path.remove_suffix(1);
  address.dir = path;
  return address;
}

Result<Address> parse_ceph(std::string_view text, Want want) {
  std::string_view rest = text;
  if (rest.starts_with(kCephPrefix)) rest.remove_prefix(kCephPrefix.size());
  auto path = parse_extent_path(rest);
  if (!path) {
    return fail(std::move(path).error().with_context("'" + std::string(text) + "'"));
  }
  Address address;
  address.location = path->location;
  address.extent = path->extent;
  if (address.location.pool.empty()) return bad(text, "names no pool");
  // Where only a store makes sense, POOL/NAMESPACE needs no slash behind it.
  if (want == Want::kStore && address.location.nspace.empty()) {
    address.location.nspace = std::exchange(address.extent, {});
  }
  return address;
}

}  // namespace

std::string Address::store() const {
  switch (where) {
    case Where::kCeph:
      return location.to_string();
    case Where::kDaemon:
      return device;
    case Where::kFolder:
      return std::string(kFolderPrefix) + dir;
  }
  return {};
}

std::string Address::to_string() const {
  const std::string base = store();
  if (extent.empty()) return base;
  return base.ends_with('/') ? base + extent : base + "/" + extent;
}

Address Address::with_extent(std::string_view name) const {
  Address other = *this;
  other.extent = name;
  return other;
}

Result<Address> parse_address(std::string_view text, Want want) {
  Result<Address> address;
  const std::string_view head = text.substr(0, text.find('/'));
  if (text.starts_with(kFolderPrefix)) {
    address = parse_folder(text, want);
  } else if (!text.starts_with(kCephPrefix) && is_host_port(head)) {
    const std::string_view port = head.substr(head.rfind(':') + 1);
    if (!is_port(port)) {
      return bad(text, "has no port from 1 to 65535 (a pool of such a name is ceph:" +
                           std::string(head) + ")");
    }
    Address daemon;
    daemon.where = Where::kDaemon;
    daemon.device = numeric_host(head);
    if (head.size() < text.size()) daemon.extent = text.substr(head.size() + 1);
    address = std::move(daemon);
  } else {
    address = parse_ceph(text, want);
  }
  if (!address) return address;
  SIPHON_TRY(check_wanted(*address, text, want));
  return address;
}

Result<Address> parse_extent_or_store(const std::string& text) {
  struct stat there {};
  const bool folder = text.starts_with(kFolderPrefix) &&
                      ::stat(text.c_str() + kFolderPrefix.size(), &there) == 0 &&
                      S_ISDIR(there.st_mode);
  return parse_address(text, folder ? Want::kStore : Want::kEither);
}

Status check_names_something(const std::string& text, NamespaceSlash namespaces) {
  if (!text.ends_with('/')) return {};
  const auto address = parse_address(text, Want::kEither);
  if (!address || !address->extent.empty() || address->where == Where::kDaemon) return {};
  const bool is_namespace = address->where == Where::kCeph && !address->location.nspace.empty();
  if (is_namespace && namespaces == NamespaceSlash::kIsTaken) return {};
  std::string whole = text.substr(0, text.find_last_not_of('/') + 1);
  if (is_namespace) {
    whole = "--namespace " + address->location.nspace + " " + whole.substr(0, whole.rfind('/'));
  }
  return fail(Code::kInvalidArgument, "'" + text + "' names nothing after the slash",
              Side::kRequester, "name what is meant, or all of it: " + whole);
}

}  // namespace siphon::cli
