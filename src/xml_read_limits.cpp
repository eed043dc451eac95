// src/xml_read_limits.cpp - what a document says about memory, CPU time, CPUs, NUMA nodes and block devices.
#include <algorithm>
#include <limits>
#include <map>
#include <vector>

#include <range/v3/view/split.hpp>

#include "xml_read.hpp"
#include "xml_words.hpp"

namespace caisson::inline v0::xml::reading {
namespace {

constexpr std::uint64_t most_number = std::numeric_limits<std::uint64_t>::max();

/// Bytes; nothing for what libvirt takes for no limit.
std::optional<std::uint64_t> memory_limit(const Element& memtune, std::string_view name) {
    constexpr std::uint64_t unlimited_kib = std::numeric_limits<std::int64_t>::max() >> 10;
    const auto e = memtune.child(name);
    if (!e) return std::nullopt;
    const std::uint64_t kib = e->kib("", "unit");
    return kib < unlimited_kib ? std::optional{kib * 1024} : std::nullopt;
}

void read_memory(const Element& root, Domain& domain) {
    domain.memory_kib = root.needed_child("memory").kib("", "unit");
    domain.current_memory_kib = domain.memory_kib;
    if (const auto current = root.child("currentMemory")) {
        domain.current_memory_kib = current->kib("", "unit");
        if (domain.current_memory_kib > domain.memory_kib) {
            current->wrong("", current->text(),
                           "1 to " + std::to_string(domain.memory_kib) + " KiB, which is the <memory>");
        }
    }
    const auto memtune = root.child("memtune");
    if (!memtune) return;
    LimitSpec& limits = domain.limits;
    limits.memory = memory_limit(*memtune, "hard_limit");
    limits.memory_soft = memory_limit(*memtune, "soft_limit");
    limits.memory_and_swap = memory_limit(*memtune, "swap_hard_limit");
    const std::uint64_t memory_kib = limits.memory ? *limits.memory / 1024 : domain.memory_kib;
    const std::string bound =
        std::to_string(memory_kib) + " KiB, which is the " + (limits.memory ? "<hard_limit>" : "<memory>");
    if (limits.memory_soft && *limits.memory_soft / 1024 > memory_kib) {
        const Element soft = memtune->needed_child("soft_limit");
        soft.wrong("", soft.text(), "at most " + bound);
    }
    if (limits.memory_and_swap && *limits.memory_and_swap / 1024 < memory_kib) {
        const Element swap = memtune->needed_child("swap_hard_limit");
        swap.wrong("", swap.text(), "at least " + bound);
    }
}

/// The kernel's form, "0,2-3", of libvirt's: what stands behind '^' is taken out again. Empty if it is not of that
/// form or leaves nothing.
std::string number_list(std::string_view written, std::uint64_t most) {
    std::vector<bool> in(most + 1);
    for (auto&& part : written | ranges::views::split(',')) {
        std::string_view item{&*part.begin(), static_cast<std::size_t>(ranges::distance(part))};
        const bool out = item.starts_with('^');
        if (out) item.remove_prefix(1);
        const std::size_t dash = out ? std::string_view::npos : item.find('-');
        const auto first = caisson::detail::parse_decimal(item.substr(0, dash), most);
        const auto last =
            dash == std::string_view::npos ? first : caisson::detail::parse_decimal(item.substr(dash + 1), most);
        if (!first || !last || *last < *first) return {};
        for (std::uint64_t i = *first; i <= *last; ++i) in[i] = !out;
    }
    std::string text;
    for (std::uint64_t i = 0; i <= most; ++i) {
        if (!in[i]) continue;
        const std::uint64_t first = i;
        while (i < most && in[i + 1]) ++i;
        text.append(text.empty() ? "" : ",").append(std::to_string(first));
        if (i > first) text.append("-").append(std::to_string(i));
    }
    return text;
}

std::string read_numbers(const Element& e, std::string_view name, std::uint64_t most) {
    const std::string written = e.needed_attribute(name);
    // An empty part, as of "" or "0,,1", would not be seen as one.
    const bool gap =
        written.empty() || written.front() == ',' || written.back() == ',' || written.find(",,") != std::string::npos;
    std::string list = gap ? "" : number_list(written, most);
    // What is taken must have its place in a tag again.
    constexpr std::size_t longest = 4000;
    if (list.size() > longest) e.wrong(name, written, "a list of at most 4000 bytes when it is written without '^'");
    if (list.empty()) {
        e.wrong(name, written,
                "numbers from 0 to " + std::to_string(most) + " that leave one, in a list such as '0-3,^1,6'");
    }
    return list;
}

void read_cpu(const Element& root, LimitSpec& limits) {
    // The kernel's own limits: NR_CPUS of x86-64, and MAX_NUMNODES.
    constexpr std::uint64_t most_cpu = 8191;
    constexpr std::uint64_t most_node = 1023;
    if (const auto vcpu = root.child("vcpu"); vcpu && vcpu->attribute("cpuset")) {
        limits.cpus = read_numbers(*vcpu, "cpuset", most_cpu);
    }
    const auto numatune = root.child("numatune");
    if (const auto memory = numatune ? numatune->child("memory") : std::nullopt) {
        limits.memory_nodes = read_numbers(*memory, "nodeset", most_node);
    }
    const auto cputune = root.child("cputune");
    if (!cputune) return;
    if (const auto shares = cputune->child("shares")) limits.cpu_shares = shares->number("", 2, 262144);
    if (const auto period = cputune->child("period")) limits.cpu_period = period->number("", 1000, 1000000);
    if (const auto quota = cputune->child("quota")) {
        const std::string text = quota->text();
        const auto number = caisson::detail::parse_decimal(text, 17592186044415);
        if (text != "-1" && number.value_or(0) < 1000) {
            quota->wrong("", text, "-1, for no limit, or a decimal number from 1000 to 17592186044415");
        }
        limits.cpu_quota = number.value_or(LimitSpec::unlimited);
    }
}

/// 0 is libvirt's word for no limit.
std::optional<std::uint64_t> throttle(const Element& device, std::string_view name, std::uint64_t most) {
    const auto e = device.child(name);
    const std::uint64_t number = e ? e->number("", 0, most) : 0;
    return number != 0 ? std::optional{number} : std::nullopt;
}

std::uint32_t read_weight(const Element& e) {
    return static_cast<std::uint32_t>(e.number("", 100, 1000));
}

void read_block(const Element& blkiotune, LimitSpec& limits) {
    if (const auto weight = blkiotune.child("weight")) limits.block_weight = read_weight(*weight);
    constexpr std::uint64_t most_operations = std::numeric_limits<std::uint32_t>::max() - 1;
    std::map<std::string, int> lines;
    for (const Element& e : blkiotune.children("device")) {
        const Element path = e.needed_child("path");
        BlockLimit device;
        device.device = path.path("");
        if (device.device == "/") path.wrong("", path.text(), "the path of a device");
        const auto [first, is_new] = lines.try_emplace(device.device, e.line());
        if (!is_new) {
            e.fail("a second <device> of " + caisson::detail::quote(device.device) + ": the first is in line " +
                   std::to_string(first->second));
        }
        if (const auto weight = e.child("weight")) device.weight = read_weight(*weight);
        device.read_operations = throttle(e, "read_iops_sec", most_operations);
        device.write_operations = throttle(e, "write_iops_sec", most_operations);
        device.read_bytes = throttle(e, "read_bytes_sec", most_number);
        device.write_bytes = throttle(e, "write_bytes_sec", most_number);
        const std::string name = device.device;
        if (device != BlockLimit{.device = name}) limits.block.push_back(std::move(device));
    }
}

void read_partition(const Element& resource, Domain& domain) {
    const Element e = resource.needed_child("partition");
    domain.partition = e.path("");
    if (domain.partition == "/") e.wrong("", e.text(), "the path of a group below that");
}

}  // namespace

void limits(const Element& root, Domain& domain) {
    read_memory(root, domain);
    read_cpu(root, domain.limits);
    if (const auto blkiotune = root.child("blkiotune")) read_block(*blkiotune, domain.limits);
    const auto numatune = root.child("numatune");
    if (const auto memory = numatune ? numatune->child("memory") : std::nullopt) {
        domain.numa_mode = words::value<NumaMode>(memory->attribute("mode").value_or("strict"));
    }
    if (const auto resource = root.child("resource")) read_partition(*resource, domain);
}

}  // namespace caisson::inline v0::xml::reading
