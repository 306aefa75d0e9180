// What a cephx key's OSD caps allow of what Siphon's verbs need. Written after Ceph's OSDCap.cc;
// what is not understood allows nothing here, and is named.
//
// Pure functions; thread compatible.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace siphon::cli::doctor {

// A pool, as far as caps go by it.
struct PoolState {
  std::int64_t id = 0;
  std::string name;
  std::map<std::string, std::map<std::string, std::string>> applications;  // tag, key, value
  bool tagged() const { return applications.contains("siphon"); }
};

// What a key may do in one pool, in its default namespace.
struct PoolRights {
  bool read = false, write = false;
  bool hello = false, grant_read = false, grant_write = false;
  bool lifecycle = false;  // every method of the class, with those that change an extent's head
  bool operator==(const PoolRights&) const = default;
};

// One "allow ...".
struct CapGrant {
  bool everything = false;  // "allow *"
  bool read = false, write = false, execute = false;
  std::string class_name, method;  // of a class cap; method empty: all of them
  // What it is limited to; empty: not.
  std::string pool, tag, tag_key, tag_value;
  bool narrower = false;  // to a namespace, a prefix of names or a network: not all of the pool
};

struct OsdCaps {
  std::vector<CapGrant> grants;
  std::vector<std::string> not_understood;
};
OsdCaps parse_osd_caps(std::string_view text);

PoolRights rights_in(const OsdCaps& caps, const PoolState& pool);
// Whether a mon cap lets its key follow the cluster's map.
bool mon_cap_reads(std::string_view text);

// What one end of a verb needs in its pool.
struct PoolNeeds {
  bool read = false, write = false;
  bool hello = false, grant_read = false, grant_write = false;
  bool any_grant = false;  // one of the two grants, whichever
  bool any() const { return read || write || hello || grant_read || grant_write || any_grant; }
};
struct VerbNeeds {
  std::string_view verb;
  PoolNeeds source;  // or the only end
  PoolNeeds target;  // nothing: the verb has but one end
};
// Null: no verb that needs a right. The table of README.md, "The least rights".
const VerbNeeds* needs_of(std::string_view verb);
std::vector<std::string> verb_names();  // all that needs_of knows

// The caps that are missing for it, as "allow class siphon grant_read pool=A"; empty: it may.
std::vector<std::string> missing_caps(const PoolNeeds& needs, const PoolRights& rights,
                                      const std::string& pool);

// The key's type, of what `ceph auth get` shows of a key (base64): 1 is AES-128. Nothing: no key.
std::optional<int> key_type(std::string_view base64_key);

}  // namespace siphon::cli::doctor
