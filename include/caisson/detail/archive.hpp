// caisson/detail/archive.hpp - values as bytes and back, for the socket between a program and its helper.
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <caisson/error.hpp>
#include <caisson/process.hpp>
#include <caisson/spec.hpp>
#include <caisson/usage.hpp>

namespace caisson::inline v0::detail {

template <class S, class T>
concept SameButConst = std::same_as<std::remove_const_t<S>, T>;

// One `fields` for each struct, for both directions. The structured bindings name every member, so that a member which
// is added to the struct and forgotten here does not compile.

template <class A, SameButConst<IdMap> S>
void fields(A& archive, S& s) {
    auto& [inside, outside, count] = s;
    archive(inside, outside, count);
}
template <class A, SameButConst<MountOptions> S>
void fields(A& archive, S& s) {
    auto& [read_only, no_suid, no_dev, no_exec, recursive, follow_links] = s;
    archive(read_only, no_suid, no_dev, no_exec, recursive, follow_links);
}
template <class A, SameButConst<MountSpec> S>
void fields(A& archive, S& s) {
    auto& [type, source, target, upper, work, data, options] = s;
    archive.enumerator(type, MountSpec::Type::bind_inside);
    archive(source, target, upper, work, data, options);
}
template <class A, SameButConst<MacAddress> S>
void fields(A& archive, S& s) {
    auto& [octets] = s;
    archive(octets);
}
template <class A, SameButConst<IpAddress> S>
void fields(A& archive, S& s) {
    auto& [octets, v6] = s;
    archive(octets, v6);
}
template <class A, SameButConst<IpPrefix> S>
void fields(A& archive, S& s) {
    auto& [address, length] = s;
    archive(address, length);
}
template <class A, SameButConst<RouteSpec> S>
void fields(A& archive, S& s) {
    auto& [destination, gateway, metric] = s;
    archive(destination, gateway, metric);
}
template <class A, SameButConst<NetworkSpec> S>
void fields(A& archive, S& s) {
    auto& [bridge, name, host_name, mac, addresses, routes, mtu, isolated] = s;
    archive(bridge, name, host_name, mac, addresses, routes, mtu, isolated);
}
template <class A, SameButConst<BlockLimit> S>
void fields(A& archive, S& s) {
    auto& [device, weight, read_bytes, write_bytes, read_operations, write_operations] = s;
    archive(device, weight, read_bytes, write_bytes, read_operations, write_operations);
}
template <class A, SameButConst<HugePageLimit> S>
void fields(A& archive, S& s) {
    auto& [page_size, bytes] = s;
    archive(page_size, bytes);
}
template <class A, SameButConst<LimitSpec> S>
void fields(A& archive, S& s) {
    auto& [memory, memory_soft, memory_and_swap, cpu_shares, cpu_quota, cpu_period, cpus, memory_nodes, pids,
           block_weight, block, huge_pages] = s;
    archive(memory, memory_soft, memory_and_swap, cpu_shares, cpu_quota, cpu_period, cpus, memory_nodes, pids,
            block_weight, block, huge_pages);
}
template <class A, SameButConst<StdioSpec> S>
void fields(A& archive, S& s) {
    auto& [in, out, err] = s;
    archive(in, out, err);
}
template <class A, SameButConst<WindowSize> S>
void fields(A& archive, S& s) {
    auto& [rows, columns] = s;
    archive(rows, columns);
}
template <class A, SameButConst<ConsoleSpec> S>
void fields(A& archive, S& s) {
    auto& [size, log, log_append, log_limit, scroll_back, when_full] = s;
    archive(size, log, log_append, log_limit, scroll_back);
    archive.enumerator(when_full, WhenFull::drop_oldest);
}
template <class A, SameButConst<ViewerOptions> S>
void fields(A& archive, S& s) {
    auto& [console, read_only, when_full] = s;
    archive(console, read_only);
    archive.enumerator(when_full, WhenFull::drop_oldest);
}
template <class A, SameButConst<ConsoleViewer> S>
void fields(A& archive, S& s) {
    auto& [number, lost] = s;
    archive(number, lost);
}
template <class A, SameButConst<ConsoleState> S>
void fields(A& archive, S& s) {
    auto& [size, written, log_lost, log_error, viewers] = s;
    archive(size, written, log_lost, log_error, viewers);
}
template <class A, SameButConst<RootOverlay> S>
void fields(A& archive, S& s) {
    auto& [lower, upper, work, bytes] = s;
    archive(lower, upper, work, bytes);
}
template <class A, SameButConst<ResourceLimit> S>
void fields(A& archive, S& s) {
    auto& [kind, soft, hard] = s;
    archive.enumerator(kind, ResourceLimit::Kind::rttime);
    archive(soft, hard);
}
template <class A, SameButConst<DeviceAccess> S>
void fields(A& archive, S& s) {
    auto& [read, write, make] = s;
    archive(read, write, make);
}
template <class A, SameButConst<DeviceRule> S>
void fields(A& archive, S& s) {
    auto& [type, major, minor, access] = s;
    archive.enumerator(type, DeviceRule::Type::block);
    archive(major, minor, access);
}
template <class A, SameButConst<DeviceSpec> S>
void fields(A& archive, S& s) {
    auto& [source, target, type, access, mode, uid, gid] = s;
    archive(source, target, access, mode, uid, gid);
    archive.enumerator(type, DeviceSpec::Type::block);
}
template <class A, SameButConst<CapabilitySpec> S>
void fields(A& archive, S& s) {
    auto& [bounding, permitted, effective, inheritable, ambient] = s;
    archive(bounding, permitted, effective, inheritable, ambient);
}
template <class A, SameButConst<SeccompArgument> S>
void fields(A& archive, S& s) {
    auto& [index, comparison, value, mask] = s;
    archive(index, value, mask);
    archive.enumerator(comparison, SeccompArgument::Operator::masked_equal);
}
template <class A, SameButConst<SeccompRule> S>
void fields(A& archive, S& s) {
    auto& [call, action, errnum, arguments] = s;
    archive(call, errnum, arguments);
    archive.enumerator(action, SeccompRule::Action::kill);
}
template <class A, SameButConst<SeccompSpec> S>
void fields(A& archive, S& s) {
    auto& [profile, rules, compat, audit] = s;
    archive.enumerator(profile, SeccompProfile::system);
    archive(rules, compat, audit);
}
template <class A, SameButConst<BackOff> S>
void fields(A& archive, S& s) {
    auto& [first_pause_ms, longest_pause_ms, forget_after_ms, most] = s;
    archive(first_pause_ms, longest_pause_ms, forget_after_ms, most);
}
template <class A, SameButConst<ContainerSpec> S>
void fields(A& archive, S& s) {
    auto& [name, root, root_read_only, root_overlay, command, environment, working_directory, hostname, namespaces,
           uid_map, gid_map, id_mapped_mounts, proc, sys, dev, cgroup_mount, mounts, masked_paths, read_only_paths,
           console, more_consoles, stdio, networks, limits, resource_limits, devices, device_rules, cgroup,
           cgroup_parent, count_cpus, capabilities, no_new_privileges, seccomp, security_label, uid, gid, groups, user,
           group, descriptors, sysctls, oom_score_adj, personality, umask, init, uuid, stage_path, id_map_tools,
           on_poweroff, on_reboot, on_crash, back_off, shutdown_signal, reboot_signal] = s;
    archive(name, root, root_read_only, root_overlay, command, environment, working_directory, hostname, namespaces,
            uid_map, gid_map, id_mapped_mounts, proc, sys, dev, mounts, masked_paths, read_only_paths, console,
            more_consoles, stdio, networks, limits, resource_limits, devices, device_rules, cgroup, cgroup_parent,
            count_cpus, capabilities, no_new_privileges, seccomp, security_label, uid, gid, groups, user, group,
            descriptors, sysctls, oom_score_adj, umask, init, uuid, stage_path, id_map_tools, back_off, shutdown_signal,
            reboot_signal);
    for (auto* action : {&on_poweroff, &on_reboot, &on_crash}) archive.enumerator(*action, EndAction::preserve);
    archive.enumerator(cgroup_mount, CgroupMount::read_write);
    archive.enumerator(personality, Personality::linux32);
}
template <class A, SameButConst<BlockUsage> S>
void fields(A& archive, S& s) {
    auto& [major, minor, read_bytes, write_bytes, read_operations, write_operations] = s;
    archive(major, minor, read_bytes, write_bytes, read_operations, write_operations);
}
template <class A, SameButConst<NetworkUsage> S>
void fields(A& archive, S& s) {
    auto& [name, host_name, received_bytes, received_packets, received_errors, received_dropped, sent_bytes,
           sent_packets, sent_errors, sent_dropped] = s;
    archive(name, host_name, received_bytes, received_packets, received_errors, received_dropped, sent_bytes,
            sent_packets, sent_errors, sent_dropped);
}
template <class A, SameButConst<Pressure> S>
void fields(A& archive, S& s) {
    auto& [some, full, some_10s, full_10s] = s;
    archive(some, full, some_10s, full_10s);
}
template <class A, SameButConst<Usage> S>
void fields(A& archive, S& s) {
    auto& [cpu, cpu_user, cpu_system, cpu_throttled, cpu_each, cpu_each_missing, memory, memory_peak, memory_limit,
           memory_anon, memory_file, swap, swap_limit, memory_limit_hits, pids, pids_limit, oom_kills, block, networks,
           cpu_pressure, memory_pressure, io_pressure] = s;
    archive(cpu, cpu_user, cpu_system, cpu_throttled, cpu_each, cpu_each_missing, memory, memory_peak, memory_limit,
            memory_anon, memory_file, swap, swap_limit, memory_limit_hits, pids, pids_limit, oom_kills, block, networks,
            cpu_pressure, memory_pressure, io_pressure);
}

/// Writes values; never fails but for memory.
class Encoder {
public:
    template <class... T>
    void operator()(const T&... values) {
        (put(values), ...);
    }
    template <class E>
    void enumerator(E value, E /*last*/) {
        put(static_cast<std::underlying_type_t<E>>(value));
    }
    [[nodiscard]] const std::string& bytes() const noexcept { return bytes_; }

private:
    template <std::integral T>
    void put(T value) {
        if constexpr (std::same_as<T, bool>) {
            bytes_ += value ? '\1' : '\0';
        } else {
            char raw[sizeof value];
            std::memcpy(raw, &value, sizeof value);
            bytes_.append(raw, sizeof raw);
        }
    }
    void put_size(std::size_t size) { put(static_cast<std::uint32_t>(size)); }
    void put(const std::string& text) {
        put_size(text.size());
        bytes_ += text;
    }
    template <class T>
    void put(const std::vector<T>& values) {
        put_size(values.size());
        for (const T& value : values) put(value);
    }
    template <class T>
    void put(const std::optional<T>& value) {
        put(value.has_value());
        if (value) put(*value);
    }
    template <class T, class U>
    void put(const std::pair<T, U>& pair) {
        put(pair.first);
        put(pair.second);
    }
    template <std::size_t n>
    void put(const std::array<std::uint8_t, n>& octets) {
        for (const std::uint8_t octet : octets) put(octet);
    }
    void put(NamespaceSet set) { put(set.bits()); }
    void put(CapabilitySet set) { put(set.bits()); }
    template <class T>
    requires std::is_class_v<T>
    void put(const T& value) { fields(*this, value); }

    std::string bytes_;
};

/// Reads what an Encoder wrote. Any other bytes make it throw `Step::helper` with EBADMSG, before it takes more memory
/// than a small multiple of the bytes themselves.
class Decoder {
public:
    explicit Decoder(std::string_view bytes) noexcept : rest_{bytes} {}
    template <class... T>
    void operator()(T&... values) {
        (take(values), ...);
    }
    template <class E>
    void enumerator(E& value, E last) {
        std::underlying_type_t<E> number{};
        take(number);
        if (number > static_cast<std::underlying_type_t<E>>(last)) refuse("an enumerator");
        value = static_cast<E>(number);
    }
    /// Throws if something is left over.
    void finish() const {
        if (!rest_.empty()) refuse("its end");
    }

private:
    [[noreturn]] static void refuse(const char* what) {
        throw Error{Step::helper, EBADMSG, std::string{"message of caisson: "} + what + " is not as expected"};
    }
    template <std::integral T>
    void take(T& value) {
        if (rest_.size() < sizeof value) refuse("its length");
        if constexpr (std::same_as<T, bool>) {
            const char c = rest_.front();
            if (c != '\0' && c != '\1') refuse("a truth value");
            value = c == '\1';
        } else {
            std::memcpy(&value, rest_.data(), sizeof value);
        }
        rest_.remove_prefix(sizeof value);
    }
    /// Each element takes at least one byte.
    std::size_t take_size() {
        std::uint32_t size = 0;
        take(size);
        if (size > rest_.size()) refuse("a length");
        return size;
    }
    void take(std::string& text) {
        const std::size_t size = take_size();
        text.assign(rest_.substr(0, size));
        rest_.remove_prefix(size);
    }
    template <class T>
    void take(std::vector<T>& values) {
        values.clear();
        for (std::size_t left = take_size(); left > 0; --left) take(values.emplace_back());
    }
    template <class T>
    void take(std::optional<T>& value) {
        bool there = false;
        take(there);
        value.reset();
        if (there) take(value.emplace());
    }
    template <class T, class U>
    void take(std::pair<T, U>& pair) {
        take(pair.first);
        take(pair.second);
    }
    template <std::size_t n>
    void take(std::array<std::uint8_t, n>& octets) {
        for (std::uint8_t& octet : octets) take(octet);
    }
    void take(NamespaceSet& set) {
        std::uint32_t bits = 0;
        take(bits);
        set = {};
        for (const NamespaceKind kind : all_namespace_kinds) {
            if ((bits & static_cast<std::uint32_t>(kind)) != 0) set = set | NamespaceSet{kind};
        }
        if (set.bits() != bits) refuse("a set of namespaces");
    }
    void take(CapabilitySet& set) {
        std::uint64_t bits = 0;
        take(bits);
        set = CapabilitySet{bits};
    }
    template <class T>
    requires std::is_class_v<T>
    void take(T& value) { fields(*this, value); }

    std::string_view rest_;
};

template <class T>
[[nodiscard]] std::string encode(const T& value) {
    Encoder encoder;
    encoder(value);
    return encoder.bytes();
}
template <class T>
[[nodiscard]] T decode(std::string_view bytes) {
    T value;
    Decoder decoder{bytes};
    decoder(value);
    decoder.finish();
    return value;
}

/// An ExitStatus in a form that has fields.
struct PlainStatus {
    std::int32_t value = 0;
    bool by_signal = false;
    bool out_of_memory = false;
    bool core_dumped = false;
    ExitStatus::Request request = ExitStatus::Request::none;

    [[nodiscard]] static PlainStatus of(ExitStatus status) noexcept {
        const bool by_signal = status.signal().has_value();
        return {by_signal ? *status.signal() : *status.code(), by_signal, status.out_of_memory(), status.core_dumped(),
                status.request()};
    }
    [[nodiscard]] ExitStatus status() const noexcept {
        const ExitStatus plain = by_signal ? ExitStatus::killed(value) : ExitStatus::exited(value);
        return plain.with(request).with_out_of_memory(out_of_memory).with_core_dumped(core_dumped);
    }
};
template <class A, SameButConst<PlainStatus> S>
void fields(A& archive, S& s) {
    auto& [value, by_signal, out_of_memory, core_dumped, request] = s;
    archive(value, by_signal, out_of_memory, core_dumped);
    archive.enumerator(request, ExitStatus::Request::poweroff);
}

/// An Error in a form that has fields.
struct PlainError {
    Step step = Step::helper;
    std::int32_t errnum = 0;
    std::string context{};
    std::string remedy{};

    [[nodiscard]] static PlainError of(const Error& e) {
        return {e.step(), e.code().value(), std::string{e.context()}, std::string{e.remedy()}};
    }
    [[nodiscard]] Error error() const { return {step, errnum, context, remedy}; }
};
template <class A, SameButConst<PlainError> S>
void fields(A& archive, S& s) {
    auto& [step, errnum, context, remedy] = s;
    archive.enumerator(step, Step::copy);
    archive(errnum, context, remedy);
}

}  // namespace caisson::inline v0::detail
