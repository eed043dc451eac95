// The verbs that give a domain a device, running or not, and take it away.
#pragma once

#include <array>

#include "arguments.hpp"
#include "change.hpp"
#include "verbs.hpp"

namespace caissonctl {

inline constexpr Option to_persistent{"persistent", Option::Kind::flag, "make live change persistent"};
inline constexpr std::array device_options{Option{"domain", Option::Kind::positional, "domain name, id or uuid"},
                                           Option{"file", Option::Kind::positional, "XML file"},
                                           to_persistent,
                                           to_config,
                                           to_live,
                                           to_current};
inline constexpr std::array attach_disk_options{
    Option{"domain", Option::Kind::positional, "domain name, id or uuid"},
    Option{"source", Option::Kind::positional, "source of disk device"},
    Option{"target", Option::Kind::positional, "target of disk device"},
    Option{"mode", Option::Kind::named, "mode of device reading and writing"},
    to_persistent,
    to_config,
    to_live,
    to_current};
inline constexpr std::array detach_disk_options{Option{"domain", Option::Kind::positional, "domain name, id or uuid"},
                                                Option{"target", Option::Kind::positional, "target of disk device"},
                                                to_persistent,
                                                to_config,
                                                to_live,
                                                to_current};
inline constexpr std::array attach_interface_options{
    Option{"domain", Option::Kind::positional, "domain name, id or uuid"},
    Option{"type", Option::Kind::positional, "network interface type"},
    Option{"source", Option::Kind::positional, "source of network interface"},
    Option{"target", Option::Kind::named, "target network name"},
    Option{"mac", Option::Kind::named, "MAC address"},
    to_persistent,
    to_config,
    to_live,
    to_current};
inline constexpr std::array detach_interface_options{
    Option{"domain", Option::Kind::positional, "domain name, id or uuid"},
    Option{"type", Option::Kind::positional, "network interface type"},
    Option{"mac", Option::Kind::named, "MAC address"},
    to_persistent,
    to_config,
    to_live,
    to_current};

int attach_device(const Session& session, const Arguments& arguments);
int detach_device(const Session& session, const Arguments& arguments);
int update_device(const Session& session, const Arguments& arguments);
int attach_disk(const Session& session, const Arguments& arguments);
int detach_disk(const Session& session, const Arguments& arguments);
int attach_interface(const Session& session, const Arguments& arguments);
int detach_interface(const Session& session, const Arguments& arguments);

}  // namespace caissonctl
