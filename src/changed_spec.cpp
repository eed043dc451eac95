// changed_spec.cpp - what a container that runs has been changed to, as a spec that it is started again from.
#include "changed_spec.hpp"

#include <algorithm>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

#include <caisson/detail/device_node.hpp>

#include "limit_words.hpp"

namespace caisson::inline v0::detail {
namespace {

template <class All, class IsIt>
void erase_last(All& all, const IsIt& is_it) {
    const auto found = std::find_if(all.rbegin(), all.rend(), is_it);
    if (found != all.rend()) all.erase(std::next(found).base());
}

/// Those that the start has counted keep their names when others come and go.
void give_names(std::vector<NetworkSpec>& networks) {
    unsigned unnamed = 0;
    for (NetworkSpec& network : networks) {
        if (network.name.empty()) network.name = "eth" + std::to_string(unnamed++);
    }
}

template <class T>
void take_over(const std::optional<T>& from, std::optional<T>& to) {
    if (from) to = from;
}
void take_over(const std::string& from, std::string& to) {
    if (!from.empty()) to = from;
}

/// Its name may be another: a node's, or a number.
bool is_same_disk(const std::string& a, const std::string& b) {
    if (a == b) return true;
    std::string why;
    const auto disk = limit_words::find_disk(a, why);
    const auto other = limit_words::find_disk(b, why);
    return disk && other && *disk == *other;
}

void apply(const BlockLimit& change, BlockLimit& limit) {
    take_over(change.weight, limit.weight);
    take_over(change.read_bytes, limit.read_bytes);
    take_over(change.write_bytes, limit.write_bytes);
    take_over(change.read_operations, limit.read_operations);
    take_over(change.write_operations, limit.write_operations);
}

/// As the kernel has them: a part of a page could make a start refuse what is in force.
void count_in_pages(LimitSpec& limits) {
    for (auto* bytes : {&limits.memory, &limits.memory_soft, &limits.memory_and_swap}) {
        if (*bytes) *bytes = limit_words::in_pages(**bytes);
    }
}

void apply_memory(const LimitSpec& change, LimitSpec& limits) {
    // Without a limit of its own there is none in the spec, and what nothing was said of goes along with `memory`.
    const bool goes_along =
        !limits.memory_and_swap || limits.memory_and_swap == limits.memory || *limits.memory_and_swap < *change.memory;
    limits.memory = change.memory;
    if (goes_along) limits.memory_and_swap.reset();
}

}  // namespace

void apply(const Change& change, ContainerSpec& spec) {
    switch (change.kind) {
        case Change::Kind::network:
            give_names(spec.networks);
            if (change.added) spec.networks.push_back(change.network_spec);
            else erase_last(spec.networks, [&](const NetworkSpec& n) { return n.name == change.link.name; });
            return;
        case Change::Kind::device:
            if (change.added) spec.devices.push_back(change.device_spec);
            else erase_last(spec.devices, [&](const DeviceSpec& d) { return path_below_dev(d) == change.device.path; });
            return;
        case Change::Kind::mount:
            if (change.added) spec.mounts.push_back(change.mount_spec);
            else erase_last(spec.mounts, [&](const MountSpec& m) { return m.target == change.mount.target; });
    }
}

void apply(const LimitSpec& asked, LimitSpec& limits) {
    LimitSpec change = asked;
    count_in_pages(change);
    count_in_pages(limits);
    if (change.memory) apply_memory(change, limits);
    take_over(change.memory_and_swap, limits.memory_and_swap);
    if (limits.memory_and_swap && !limits.memory) limits.memory = LimitSpec::unlimited;
    take_over(change.memory_soft, limits.memory_soft);
    // What no start takes, since it is without effect.
    if (limits.memory && limits.memory_soft && *limits.memory_soft > *limits.memory) limits.memory_soft.reset();
    take_over(change.cpu_shares, limits.cpu_shares);
    take_over(change.cpu_quota, limits.cpu_quota);
    take_over(change.cpu_period, limits.cpu_period);
    take_over(change.cpus, limits.cpus);
    take_over(change.memory_nodes, limits.memory_nodes);
    take_over(change.pids, limits.pids);
    take_over(change.block_weight, limits.block_weight);
    for (const BlockLimit& block : change.block) {
        const auto found = std::ranges::find_if(
            limits.block, [&](const BlockLimit& b) { return is_same_disk(b.device, block.device); });
        if (found == limits.block.end()) limits.block.push_back(block);
        else apply(block, *found);
    }
    for (const HugePageLimit& pages : change.huge_pages) {
        const auto found = std::ranges::find_if(limits.huge_pages,
                                                [&](const HugePageLimit& p) { return p.page_size == pages.page_size; });
        if (found == limits.huge_pages.end()) limits.huge_pages.push_back(pages);
        else found->bytes = pages.bytes;
    }
}

}  // namespace caisson::inline v0::detail
