// The verbs that tell what domains use, in virsh's form.
#pragma once

#include <span>
#include <string>

#include "arguments.hpp"
#include "domains.hpp"
#include "verbs.hpp"

namespace caissonctl {

/// The parts of what a running domain has used. Throws `Failure{outer, ...}` if it does not run, or does not answer.
[[nodiscard]] caisson::Usage usage_of(Entry& entry, caisson::UsageParts parts, const std::string& outer);

/// The kernel's name of a block device: "sda"; "8:0" where it has gone.
[[nodiscard]] std::string block_device_name(const caisson::BlockUsage& device);

int cpu_stats(const Session& session, const Arguments& arguments);
int domblkstat(const Session& session, const Arguments& arguments);
int domifstat(const Session& session, const Arguments& arguments);
int dommemstat(const Session& session, const Arguments& arguments);
int domstats(const Session& session, const Arguments& arguments);

}  // namespace caissonctl
