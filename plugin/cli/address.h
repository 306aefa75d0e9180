// Where an extent, or a set of them, is: the arguments of the verbs.
//
//   POOL/EXTENT, POOL/NAMESPACE/EXTENT, POOL, POOL/NAMESPACE/   Ceph (also with a prefix ceph:)
//   HOST:PORT/EXTENT, HOST:PORT/                                a folder's daemon, control address;
//                                                               numeric, or localhost (127.0.0.1)
//   posix:DIR/EXTENT, posix:DIR, posix:DIR/                     a folder, opened by the CLI itself
// Where a verb changes something, POOL and posix:DIR are written without the slash.
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
// Either; a folder that is there is meant as a whole, with or without a slash behind it, as extents
// are files. Looks at the file system.
Result<Address> parse_extent_or_store(const std::string& text);

// Whether POOL/NAMESPACE/ stands for all of that namespace.
enum class NamespaceSlash { kIsTaken, kIsRefused };
// For every argument of a verb that changes something. "p1/$E" with E not set is "p1/": what means
// a whole store to who reads only must not mean it to who changes. INVALID_ARGUMENT for a pool, a
// folder and (kIsRefused) a namespace with nothing behind its slash, and how to write it when all
// of it is meant. HOST:PORT/ is taken: a folder's daemon is changed extent by extent.
Status check_names_something(const std::string& text, NamespaceSlash namespaces);

}  // namespace siphon::cli
