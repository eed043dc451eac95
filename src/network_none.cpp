// src/network_none.cpp - in the place of src/network.cpp in a library without libmnl.
#include <cerrno>

#include <caisson/detail/network.hpp>

namespace caisson::inline v0::detail {
namespace {
[[noreturn]] void refuse() {
    throw Error{Step::network, ENOTSUP, "this build of caisson has no networks", "rebuild it with -Dnetwork=enabled"};
}
}  // namespace

Fd open_netlink() {
    refuse();
}
unsigned make_bridge(int, const std::string&, const std::vector<IpPrefix>&, std::optional<std::uint32_t>) {
    refuse();
}
unsigned find_bridge(int, const std::string&) {
    refuse();
}
std::uint32_t link_mtu(int, unsigned) {
    refuse();
}
void disown_link(int, unsigned) {
    refuse();
}
void delete_link(int, unsigned) {
    refuse();
}
void delete_link(unsigned) {
    refuse();
}
std::vector<std::byte> delete_requests(const std::vector<unsigned>&) {
    return {};
}
bool delete_link_quietly(int, unsigned) noexcept {
    return false;
}
unsigned plug_link(int, unsigned, const NetworkSpec&, int, int) {
    refuse();
}
void check_network(const std::vector<NetworkSpec>& networks) {
    if (!networks.empty()) refuse();
}
std::string free_name(const NetworkSpec&, int, const std::vector<PluggedLink>&) {
    refuse();
}
unsigned find_plugged(int, const std::string&, const std::string&) {
    return 0;
}
PluggedLink plug_running(int, const NetworkSpec&, int, int, const std::string&, NameTeller) {
    refuse();
}
PluggedLink plug_container(int, const NetworkSpec&, unsigned, int, int) {
    refuse();
}
void read_network_usage(int, const std::vector<PluggedLink>&, std::vector<NetworkUsage>&) {}
std::vector<std::string> sweep_links() {
    return {};
}

}  // namespace caisson::inline v0::detail
