// The verbs that tell what domains use, in virsh's form.
#pragma once

#include <array>
#include <string>

#include "arguments.hpp"
#include "domains.hpp"
#include "verbs.hpp"

namespace caissonctl {

/// The parts of what a running domain has used. Throws `Failure{outer, ...}` if it does not run, or does not answer.
[[nodiscard]] caisson::Usage usage_of(Entry& entry, caisson::UsageParts parts, const std::string& outer);

/// The kernel's name of a block device: "sda"; "8:0" where it has gone.
[[nodiscard]] std::string block_device_name(const caisson::BlockUsage& device);

/// What domstats may be asked for.
inline constexpr std::array domstats_options{
    Option{"state", Option::Kind::flag, "report domain state"},
    Option{"cpu-total", Option::Kind::flag, "report domain physical cpu usage"},
    Option{"balloon", Option::Kind::flag, "report domain balloon statistics"},
    Option{"vcpu", Option::Kind::flag, "report domain virtual cpu information"},
    Option{"interface", Option::Kind::flag, "report domain network interface information"},
    Option{"block", Option::Kind::flag, "report domain block device statistics"},
    Option{"list-active", Option::Kind::flag, "list only active domains"},
    Option{"list-inactive", Option::Kind::flag, "list only inactive domains"},
    Option{"list-persistent", Option::Kind::flag, "list only persistent domains"},
    Option{"list-transient", Option::Kind::flag, "list only transient domains"},
    Option{"list-running", Option::Kind::flag, "list only running domains"},
    Option{"list-paused", Option::Kind::flag, "list only paused domains"},
    Option{"list-shutoff", Option::Kind::flag, "list only shutoff domains"},
    Option{"raw", Option::Kind::flag, "do not pretty-print the fields"},
    Option{"domain", Option::Kind::several, "list of domains to get stats for", ""}};

int cpu_stats(const Session& session, const Arguments& arguments);
int domblkstat(const Session& session, const Arguments& arguments);
int domifstat(const Session& session, const Arguments& arguments);
int dommemstat(const Session& session, const Arguments& arguments);
int domstats(const Session& session, const Arguments& arguments);

}  // namespace caissonctl
