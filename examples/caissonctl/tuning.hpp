// The verbs that look at a domain's limits and change them, running or defined.
#pragma once

#include <array>

#include "arguments.hpp"
#include "change.hpp"
#include "verbs.hpp"

namespace caissonctl::tuning {

int memtune(const Session& session, const Arguments& arguments);
int setmem(const Session& session, const Arguments& arguments);
int setmaxmem(const Session& session, const Arguments& arguments);
int schedinfo(const Session& session, const Arguments& arguments);
int blkiotune(const Session& session, const Arguments& arguments);

using enum Option::Kind;
inline constexpr Option a_domain{"domain", positional, "domain name, id or uuid"};
inline constexpr std::array memtune_options{
    a_domain,
    Option{"hard-limit", optional, "Max memory, as scaled integer (default KiB)", "number"},
    Option{"soft-limit", optional, "Memory during contention, as scaled integer (default KiB)", "number"},
    Option{"swap-hard-limit", optional, "Max memory plus swap, as scaled integer (default KiB)", "number"},
    Option{"min-guarantee", optional, "Min guaranteed memory, as scaled integer (default KiB)", "number"},
    to_config,
    to_live,
    to_current};
inline constexpr std::array setmem_options{
    a_domain, Option{"size", positional, "new memory size, as scaled integer (default KiB)", "number"}, to_config,
    to_live, to_current};
inline constexpr std::array setmaxmem_options{
    a_domain, Option{"size", positional, "new maximum memory size, as scaled integer (default KiB)", "number"},
    to_config, to_live, to_current};
inline constexpr std::array schedinfo_options{a_domain,
                                              Option{"weight", named, "weight for XEN_CREDIT", "number"},
                                              Option{"cap", named, "cap for XEN_CREDIT", "number"},
                                              Option{"current", flag, "get/set current scheduler info"},
                                              Option{"config", flag, "get/set value to be used on next boot"},
                                              Option{"live", flag, "get/set value from running domain"},
                                              Option{"set", several, "parameter=value"}};
inline constexpr std::array blkiotune_options{
    a_domain,
    Option{"weight", optional, "IO Weight", "number"},
    Option{"device-weights", optional, "per-device IO Weights, in the form of /path/to/device,weight,..."},
    Option{"device-read-iops-sec", optional,
           "per-device read I/O limit per second, in the form of /path/to/device,read_iops_sec,..."},
    Option{"device-write-iops-sec", optional,
           "per-device write I/O limit per second, in the form of /path/to/device,write_iops_sec,..."},
    Option{"device-read-bytes-sec", optional,
           "per-device bytes read per second, in the form of /path/to/device,read_bytes_sec,..."},
    Option{"device-write-bytes-sec", optional,
           "per-device bytes wrote per second, in the form of /path/to/device,write_bytes_sec,..."},
    to_config,
    to_live,
    to_current};

}  // namespace caissonctl::tuning
