// The commands in messages, such that they work when pasted: with the connection that the user
// named on the command line. What came from the environment is there for the next command, too.
//
// Set once, before anything else is said; then thread safe.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "plugin/base/text.h"  // shell_word, for those who write commands

namespace siphon::cli {

struct Options;
struct ClusterOptions;

// `verbs`: the words behind "siphon" that make a command of it.
void set_commands(const Options& options, std::vector<std::string> verbs);

// " --conf /etc/a.conf --secret-file s", or nothing: what the user named, for both of two clusters.
std::string connection_words(const Options& options);
// The same where a command is about `cluster` alone, which `options` gives to one of the two ends.
std::string connection_words(const Options& options, const ClusterOptions& cluster);

// Every "siphon VERB" in `text` becomes "siphon CONNECTION VERB", and a command of ceph's has the
// cluster that was named.
std::string pasteable(std::string_view text);

}  // namespace siphon::cli
