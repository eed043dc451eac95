#include "statistics.hpp"

#include <algorithm>
#include <array>
#include <cinttypes>
#include <cstdio>
#include <optional>
#include <string_view>
#include <utility>

#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <caisson/address.hpp>

#include "failure.hpp"

namespace caissonctl {
namespace {

using caisson::BlockUsage;
using caisson::NetworkUsage;
using caisson::Usage;
using caisson::UsagePart;

std::string seconds(const char* field, std::uint64_t nanoseconds) {
    std::array<char, 64> line;
    std::snprintf(line.data(), line.size(), "\t%-12s %9" PRIu64 ".%09" PRIu64 " seconds\n", field,
                  nanoseconds / 1'000'000'000, nanoseconds % 1'000'000'000);
    return line.data();
}

/// The CPUs that were asked for, one paragraph each.
std::string each_cpu(const Usage& usage, int start, std::optional<int> count) {
    const int cpus = static_cast<int>(usage.cpu_each.size());
    std::string text;
    if (count.value_or(0) > cpus) text = "Only " + std::to_string(cpus) + " CPUs available to show\n";
    if (start >= cpus) {
        throw Failure{"Start CPU " + std::to_string(start) +
                      " is out of range (min: 0, max: " + std::to_string(cpus - 1) + ")"};
    }
    const int end = std::min(count.value_or(cpus), cpus - start) + start;
    for (int cpu = start; cpu < end; ++cpu) {
        text.append("CPU").append(std::to_string(cpu)).append(":\n");
        text += seconds("cpu_time", usage.cpu_each[static_cast<std::size_t>(cpu)]);
    }
    return text;
}

std::string path_of(const BlockUsage& device) {
    return "/sys/dev/block/" + std::to_string(device.major) + ":" + std::to_string(device.minor);
}

struct KernelNames {
    std::string own;
    std::string disk;  ///< of a partition
};
KernelNames kernel_names(const BlockUsage& device) {
    // ".../block/sda/sda1"
    std::array<char, 4096> link;
    const ssize_t n = ::readlink(path_of(device).c_str(), link.data(), link.size());
    const std::string_view path{link.data(), n < 0 ? 0 : static_cast<std::size_t>(n)};
    const std::size_t last = path.rfind('/');
    if (last == std::string_view::npos) return {std::to_string(device.major) + ":" + std::to_string(device.minor), {}};
    const std::string_view above = path.substr(0, last);
    return {std::string{path.substr(last + 1)}, std::string{above.substr(above.rfind('/') + 1)}};
}

/// "8:0", a node's path or its name in /dev. Throws `Failure`.
BlockUsage find_device(const std::string& word, const std::string& outer) {
    BlockUsage device;
    int length = 0;
    struct stat st {};
    if (std::sscanf(word.c_str(), "%5" SCNu32 ":%8" SCNu32 "%n", &device.major, &device.minor, &length) == 2 &&
        word.size() == static_cast<std::size_t>(length)) {
        if (::stat(path_of(device).c_str(), &st) != 0) throw Failure{outer, "invalid argument: invalid path: " + word};
    } else {
        const std::string path = word.find('/') == std::string::npos ? "/dev/" + word : word;
        if (::stat(path.c_str(), &st) != 0 || !S_ISBLK(st.st_mode)) {
            throw Failure{outer, "invalid argument: invalid path: " + word};
        }
        device.major = major(st.st_rdev);
        device.minor = minor(st.st_rdev);
    }
    if (::stat((path_of(device) + "/partition").c_str(), &st) == 0) {
        throw Failure{outer, "invalid argument: " + quoted(word) + " is a partition: what is counted is its disk's, " +
                                 quoted(kernel_names(device).disk)};
    }
    return device;
}

/// Bytes in KiB, as virsh has them.
std::string kib(std::string_view field, std::uint64_t bytes) {
    return std::string{field}.append(" ").append(std::to_string(bytes / 1024)).append("\n");
}

/// The interface of this name outside or inside, or of this address in the description. Throws `Failure`.
const NetworkUsage& find_interface(const Usage& usage, const std::string& word, const Session& session, Entry& entry,
                                   const std::string& outer) {
    for (const auto name : {&NetworkUsage::host_name, &NetworkUsage::name}) {
        const auto found = std::ranges::find(usage.networks, word, name);
        if (found != usage.networks.end()) return *found;
    }
    if (const auto mac = caisson::MacAddress::parse(word)) {
        std::size_t unnamed = 0;
        for (const auto& interface : session.domains.current(entry).interfaces) {
            const caisson::NetworkSpec& network = interface.network;
            const std::string name = network.name.empty() ? "eth" + std::to_string(unnamed++) : network.name;
            const auto found = std::ranges::find(usage.networks, name, &NetworkUsage::name);
            if (network.mac == mac && found != usage.networks.end()) return *found;
        }
    }
    throw Failure{outer, "invalid argument: " + quoted(word) + " is not a known interface"};
}

}  // namespace

Usage usage_of(Entry& entry, caisson::UsageParts parts, const std::string& outer) {
    auto usage =
        because(outer, [&] { return entry.ask([&](caisson::Helper& helper) { return helper.usage(parts); }); });
    if (!usage) throw Failure{outer, "Requested operation is not valid: domain is not running"};
    return std::move(*usage);
}

std::string block_device_name(const BlockUsage& device) {
    return kernel_names(device).own;
}

int cpu_stats(const Session& session, const Arguments& arguments) {
    Entry entry = session.domains.find(arguments.get("domain"));
    const auto start = arguments.number("start");
    const auto count = arguments.number("count");
    if (start.value_or(0) < 0) throw Failure{"Invalid value for start CPU"};
    if (count.value_or(0) < 0) throw Failure{"Invalid value for number of CPUs to show"};
    const bool some = start || count;
    const bool total = arguments.has("total") || !some;
    const std::string outer = "Failed to retrieve CPU statistics for domain " + quoted(entry.name);
    const Usage usage = usage_of(entry, UsagePart::cpu | UsagePart::details, outer);
    if (some || !arguments.has("total")) {
        const std::string& why = usage.cpu_each_missing;
        if (!usage.cpu_each.empty()) {
            print(each_cpu(usage, start.value_or(0), count));
        } else if (some) {
            throw Failure{outer,
                          "Operation not supported: no per-CPU stats available" + (why.empty() ? why : ": " + why)};
        } else {
            std::fprintf(stderr, "warning: no per-CPU stats available%s%s\n", why.empty() ? "" : ": ", why.c_str());
        }
    }
    if (!total) return 0;
    if (!usage.cpu) throw Failure{outer, "Operation not supported: the domain's control group does not tell"};
    std::string text = "Total:\n" + seconds("cpu_time", *usage.cpu);
    if (usage.cpu_user) text += seconds("user_time", *usage.cpu_user);
    if (usage.cpu_system) text += seconds("system_time", *usage.cpu_system);
    print(text);
    return 0;
}

int dommemstat(const Session& session, const Arguments& arguments) {
    Entry entry = session.domains.find(arguments.get("domain"));
    const std::string outer = "Failed to get memory statistics for domain " + entry.name;
    const Usage usage = usage_of(entry, UsagePart::memory | UsagePart::details, outer);
    if (!usage.memory) throw Failure{outer, "Operation not supported: the domain's control group does not tell"};
    std::string text;
    if (const auto limit = usage.memory_limit) {
        text += kib("actual", *limit);
        text += kib("unused", *limit - std::min(*limit, *usage.memory));
        text += kib("available", *limit);
    }
    if (usage.memory_file) text += kib("disk_caches", *usage.memory_file);
    print(text + kib("rss", *usage.memory));
    return 0;
}

int domblkstat(const Session& session, const Arguments& arguments) {
    Entry entry = session.domains.find(arguments.get("domain"));
    const std::string word = arguments.get("device");
    const std::string outer = "Failed to get block stats " + entry.name + " " + word;
    const Usage usage = usage_of(entry, UsagePart::block, outer);
    BlockUsage sum;
    bool counted = false;
    if (!word.empty()) sum = find_device(word, outer);
    for (const BlockUsage& one : usage.block) {
        if (!word.empty() && (one.major != sum.major || one.minor != sum.minor)) continue;
        counted = true;
        sum.read_operations += one.read_operations;
        sum.read_bytes += one.read_bytes;
        sum.write_operations += one.write_operations;
        sum.write_bytes += one.write_bytes;
    }
    if (!counted) {
        std::fprintf(
            stderr,
            "warning: nothing was counted for %s: it was not used, or, on cgroup v1 from Linux 6.10 on, no group "
            "has a limit for it\n",
            word.empty() ? "any device" : quoted(word).c_str());
    }
    struct Field {
        const char* name;
        const char* meaning;
        std::uint64_t value;
    };
    const bool human = arguments.has("human");
    std::string text = human ? "Device: " + word + "\n" : "";
    for (const Field& field : {Field{"rd_req", "number of read operations:", sum.read_operations},
                               Field{"rd_bytes", "number of bytes read:", sum.read_bytes},
                               Field{"wr_req", "number of write operations:", sum.write_operations},
                               Field{"wr_bytes", "number of bytes written:", sum.write_bytes}}) {
        std::string label = human ? field.meaning : field.name;
        if (human) label.resize(31, ' ');
        text.append(human ? "" : word).append(" ").append(label).append(" ");
        text.append(std::to_string(field.value)).append("\n");
    }
    print(text);
    return 0;
}

int domifstat(const Session& session, const Arguments& arguments) {
    Entry entry = session.domains.find(arguments.get("domain"));
    const std::string word = arguments.get("interface");
    const std::string outer = "Failed to get interface stats " + entry.name + " " + word;
    const Usage usage = usage_of(entry, UsagePart::network, outer);
    const NetworkUsage& found = find_interface(usage, word, session, entry, outer);
    std::string text;
    for (const auto& [field, value] :
         {std::pair{"rx_bytes", found.received_bytes}, std::pair{"rx_packets", found.received_packets},
          std::pair{"rx_errs", found.received_errors}, std::pair{"rx_drop", found.received_dropped},
          std::pair{"tx_bytes", found.sent_bytes}, std::pair{"tx_packets", found.sent_packets},
          std::pair{"tx_errs", found.sent_errors}, std::pair{"tx_drop", found.sent_dropped}}) {
        text.append(word).append(" ").append(field).append(" ").append(std::to_string(value)).append("\n");
    }
    print(text);
    return 0;
}

}  // namespace caissonctl
