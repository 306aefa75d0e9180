// Where an extent, or a set of them, is: the arguments of the verbs.
//
//   POOL/EXTENT, POOL/NAMESPACE/EXTENT, POOL, POOL/NAMESPACE/   Ceph (also with a prefix ceph:)
//   HOST:PORT/EXTENT, HOST:PORT/                                a folder's daemon, control address;
//                                                               numeric, or localhost (127.0.0.1)
//   posix:DIR/EXTENT, posix:DIR, posix:DIR/                     a folder, opened by the CLI itself
//
// Values and functions; thread compatible.
#pragma once

#include <string>
#include <string_view>

#include "plugin/base/status.h"
#include "plugin/base/types.h"

namespace siphon::cli {

enum class Where { kCeph, kDaemon, kFolder };

struct Address {
  Where where = Where::kCeph;
  Location location;            // kCeph
  std::string device;           // kDaemon: "127.0.0.1:7411"
  std::string dir;              // kFolder
  std::string extent;           // empty: every extent of the store
  bool all_namespaces = false;  // of the pool, when it names no extent

  bool operator==(const Address&) const = default;
  std::string store() const;      // "pool/ns", "127.0.0.1:7411", "posix:/srv/a"
  std::string to_string() const;  // store() + "/" + extent
  Address with_extent(std::string_view name) const;
};

// What a verb's argument names: one extent; a store; or either, where a bare folder must end in
// '/' to mean all of it.
enum class Want { kExtent, kStore, kEither };

// INVALID_ARGUMENT says what is wrong and how to write it.
Result<Address> parse_address(std::string_view text, Want want);
// Either, for verbs that change nothing they are not told to: a folder that is there is meant as a
// whole, with or without a slash behind it, as extents are files. Looks at the file system.
Result<Address> parse_extent_or_store(const std::string& text);

}  // namespace siphon::cli
