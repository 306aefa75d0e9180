// What a certificate says, wherever it is shown. Verifies nothing: that is for the calls.
#pragma once

#include <chrono>
#include <string>

#include "plugin/base/status.h"
#include "plugin/cli/doctor/facts.h"

namespace siphon::cli::doctor {

// Of a PEM file, the first one in it. NOT_FOUND, INVALID_ARGUMENT.
Result<Certificate> certificate_in(const std::string& file);

// The one that is shown at HOST:PORT to whoever begins to speak TLS there. Blocks for `at_most`.
// UNAVAILABLE: nobody listens, or no TLS is spoken; DEADLINE_EXCEEDED.
Result<Certificate> certificate_at(const std::string& endpoint, std::chrono::milliseconds at_most);

}  // namespace siphon::cli::doctor
