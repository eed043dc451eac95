#include "collect.hpp"

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <iterator>
#include <system_error>
#include <utility>
#include <vector>

#include <caisson/error.hpp>
#include <caisson/spec.hpp>

namespace top {
namespace {

using caisson::Usage;
using caisson::UsagePart;

constexpr std::chrono::seconds rest_of_the_silent{30};

void note(View& view, const std::string& text) {
    if (std::ranges::find(view.notes, text) == view.notes.end()) view.notes.push_back(text);
}

/// What a counter has grown by in a second; one that went back, as that of a device that was exchanged, has not.
double rate(std::uint64_t before, std::uint64_t now, double seconds) {
    return now > before ? static_cast<double>(now - before) / seconds : 0;
}

/// The sums of a member over all devices or interfaces.
template <class Each>
std::uint64_t sum(const std::vector<Each>& all, std::uint64_t Each::*member) {
    std::uint64_t total = 0;
    for (const Each& one : all) total += one.*member;
    return total;
}

Row row_of(const std::string& name, const Usage& now) {
    Row row;
    row.name = name;
    row.memory = now.memory;
    row.memory_limit = now.memory_limit;
    row.pids = now.pids;
    row.each.resize(now.cpu_each.size());
    return row;
}

void add_rates(Row& row, const Usage& before, const Usage& now, double seconds) {
    if (before.cpu && now.cpu) row.cpu = rate(*before.cpu, *now.cpu, seconds * 1e9);
    if (before.cpu_each.size() == now.cpu_each.size()) {
        for (std::size_t i = 0; i < row.each.size(); ++i) {
            row.each[i] = rate(before.cpu_each[i], now.cpu_each[i], seconds * 1e9);
        }
    }
    using caisson::BlockUsage, caisson::NetworkUsage;
    // Without any device, the kernel may count none.
    if (!now.block.empty()) {
        const auto block = [&](auto member) {
            return rate(sum(before.block, member), sum(now.block, member), seconds);
        };
        row.read = block(&BlockUsage::read_bytes);
        row.written = block(&BlockUsage::write_bytes);
    }
    if (now.networks.empty()) return;
    const auto network = [&](auto member) {
        return rate(sum(before.networks, member), sum(now.networks, member), seconds);
    };
    row.received = network(&NetworkUsage::received_bytes);
    row.sent = network(&NetworkUsage::sent_bytes);
}

}  // namespace

std::optional<Row> Collector::ask(Client& client, View& view) const {
    const std::string& name = client.helper.name();
    const auto quiet = [&] { note(view, "container '" + name + "' does not answer"); };
    if (Clock::now() < client.silent_until) {
        quiet();
        return Row{.name = name};
    }
    try {
        Usage now = client.helper.usage(UsagePart::cpu | UsagePart::memory | UsagePart::pids | UsagePart::block |
                                        UsagePart::network);
        const auto asked = Clock::now();
        Row row = row_of(name, now);
        row.suspended = client.helper.suspended();
        const double seconds = std::chrono::duration<double>(asked - client.asked).count();
        if (client.before && seconds > 0) add_rates(row, *client.before, now, seconds);
        if (now.cpu_each.empty() && !now.cpu_each_missing.empty())
            note(view, "no CPUs one by one: " + now.cpu_each_missing);
        client.before = std::move(now);
        client.asked = asked;
        return row;
    } catch (const caisson::Error& e) {
        switch (e.code().value()) {
            // ENODEV: of its control group, which goes a moment before.
            case ESRCH:
            case ENODEV: return std::nullopt;
            case ETIMEDOUT:
                client.silent_until = Clock::now() + rest_of_the_silent;
                quiet();
                return Row{.name = name};
            default: note(view, e.what()); return std::nullopt;
        }
    }
}

void Collector::find_new(View& view) {
    std::error_code error;
    unsigned others = 0;
    std::filesystem::directory_iterator entries{run_, error};
    for (; !error && entries != std::filesystem::directory_iterator{}; entries.increment(error)) {
        const std::string name = entries->path().filename();
        if (!caisson::is_valid_name(name) || clients_.contains(name)) continue;
        try {
            if (auto helper = caisson::Helper::find(name, run_)) clients_.emplace(name, Client{std::move(*helper)});
        } catch (const caisson::Error& e) {
            if (e.code().value() == EACCES || e.code().value() == EPERM) ++others;
            else note(view, e.what());
        }
    }
    if (error && error.value() != ENOENT) {
        throw caisson::Error{
            caisson::Step::helper, error.value(), "directory '" + run_ + "'",
            error.value() == EACCES ? "it is another user's: run as that user, or name another --run" : ""};
    }
    if (others > 0) {
        note(view, std::to_string(others) + (others == 1 ? " container" : " containers") + " of another user left out");
    }
}

View Collector::collect() {
    View view;
    view.where = run_;
    // First those that are known: one that ended and was started again is then found anew.
    std::map<std::string, Row> rows;
    const auto ask_all = [&] {
        for (auto known = clients_.begin(); known != clients_.end();) {
            auto row = rows.contains(known->first) ? std::nullopt : ask(known->second, view);
            if (row) rows.emplace(known->first, std::move(*row));
            known = rows.contains(known->first) ? std::next(known) : clients_.erase(known);
        }
    };
    ask_all();
    find_new(view);
    ask_all();
    for (auto& [name, row] : rows) view.rows.push_back(std::move(row));
    return view;
}

}  // namespace top
