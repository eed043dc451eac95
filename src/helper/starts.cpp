// helper/starts.cpp - how a container comes into the helper's care.
#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lock_down.hpp"
#include "privileges.hpp"
#include "server.hpp"

namespace caisson_helper {
namespace {

/// As if the helper had not raised its own.
void limit_descriptors(ContainerSpec& spec, const ResourceLimit& limit) {
    const auto is_given = [](const ResourceLimit& given) { return given.kind == ResourceLimit::Kind::nofile; };
    std::vector<ResourceLimit>& limits = spec.resource_limits;
    if (std::none_of(limits.begin(), limits.end(), is_given)) limits.push_back(limit);
}

}  // namespace

void take_descriptors(ContainerSpec& spec, const std::vector<Fd>& passed) {
    const auto take = [&](std::int32_t& fd) {
        if (fd < 0) return;
        const auto index = static_cast<std::size_t>(fd) - detail::helper_stdio;
        if (fd < detail::helper_stdio || index >= passed.size()) {
            throw Error{Step::helper, EBADMSG, "message of caisson: it names a descriptor that was not passed on"};
        }
        fd = passed[index].get();
    };
    for (std::int32_t* const fd : {&spec.stdio.in, &spec.stdio.out, &spec.stdio.err}) take(*fd);
    for (std::int32_t& fd : spec.descriptors) take(fd);
}

Server::Starting& Server::prepare(detail::StartRequest request, Client& client) {
    auto made = std::make_unique<Starting>();
    take_descriptors(request.spec, client.descriptors);
    made->ward->has_command_below = request.spec.init;
    made->ward->restarts_on_reboot = request.spec.on_reboot == EndAction::restart;
    made->ward->can_start_again = group_ || request.spec.may_restart();
    made->ward->info = {.name = request.spec.name, .note = std::move(request.note)};
    made->opens_console = request.open_console && request.spec.console;
    made->spec = std::move(request.spec);
    if (descriptor_limit_) limit_descriptors(made->spec, *descriptor_limit_);
    made->borrowed = std::move(client.descriptors);
    made->client = std::move(client);
    return *starting_.emplace_back(std::move(made));
}

void Server::take_place(Starting& starting) const {
    starting.ward->directory.emplace(RunDirectory::acquire(run_directory_, starting.spec.name));
    starting.ward->directory->record();
    starting.has_place = true;
}

void Server::start_first(detail::StartRequest request, Client& client) {
    Starting& starting = prepare(std::move(request), client);
    try {
        take_place(starting);
    } catch (...) {
        client = std::move(starting.client);
        throw;
    }
    (void)controller_.start(starting.spec);
    starting.borrowed.clear();
}

void Server::take_over(const detail::StartRequest& request, RunDirectory place, Container container, Fd note,
                       Client& first) {
    wards_.push_back(std::make_unique<Ward>());
    Ward& ward = *wards_.back();
    ward.directory.emplace(std::move(place));
    ward.has_command_below = request.spec.init;
    ward.restarts_on_reboot = request.spec.on_reboot == EndAction::restart;
    ward.can_start_again = false;
    ward.info = {.name = request.spec.name, .note = request.note};
    ward.kept_note = std::move(note);
    ward.id = controller_.adopt(std::move(container), ConsoleUse::relay, request.spec);
    if (first.socket) return introduce(ward, request.spec, first, request.open_console && request.spec.console);
    make_known(ward, request.spec);
}

void Server::begin(detail::StartRequest request, Client& client) {
    Starting& starting = prepare(std::move(request), client);
    // The others' consoles go on meanwhile.
    const auto fail = [this, &starting](const Error* why) noexcept {
        try {
            if (why != nullptr) starting.error = *why;
        } catch (...) {
            // Without memory, the reason is the general one.
        }
        starting.failed = true;
        controller_.stop();  // wakes the loop
    };
    try {
        starting.thread = start_thread([this, &starting, fail] {
            try {
                take_place(starting);
                (void)controller_.start(starting.spec);
            } catch (const Error& e) {
                fail(&e);
            } catch (...) {
                fail(nullptr);
            }
        });
    } catch (const Error& e) {
        // No thread is to be had: that start fails, and the others' containers go on.
        fail(&e);
    } catch (const std::exception&) {
        fail(nullptr);
    }
}

std::unique_ptr<Server::Starting> Server::take_starting(std::size_t index) {
    auto taken = std::move(starting_[index]);
    starting_.erase(starting_.begin() + static_cast<std::ptrdiff_t>(index));
    if (taken->thread.joinable()) taken->thread.join();
    return taken;
}

std::unique_ptr<Server::Starting> Server::take_starting(const std::string& name) {
    // Others of the same name may be about to be told that it is taken.
    const auto found = std::find_if(starting_.begin(), starting_.end(), [&](const auto& starting) {
        return starting->has_place && starting->ward->info.name == name;
    });
    return found == starting_.end() ? nullptr : take_starting(static_cast<std::size_t>(found - starting_.begin()));
}

void Server::settle_failures() {
    for (std::size_t i = 0; i < starting_.size();) {
        if (!starting_[i]->failed) {
            ++i;
            continue;
        }
        const auto taken = take_starting(i);
        if (taken->ward->directory) taken->ward->directory->release();
        tell(taken->client, refusal(taken->error.value_or(Error{Step::helper, ENOMEM, "helper: start the container"})));
    }
}

void Server::settle(std::unique_ptr<Starting> starting, const Event& event) {
    Ward& ward = *starting->ward;
    Client& client = starting->client;
    if (event.error) {
        ward.directory->release();
        return tell(client, refusal(*event.error));
    }
    ward.id = event.id;
    // From here on it has a place, from which its end will take it.
    wards_.push_back(std::move(starting->ward));
    introduce(ward, starting->spec, client, starting->opens_console);
}

void Server::introduce(Ward& ward, const ContainerSpec& spec, Client& client, bool opens_console) {
    try {
        make_known(ward, spec);
        const Fd console = opens_console ? controller_.open_console(ward.id) : Fd{};
        tell(client, {.kind = Message::Kind::done}, console ? console.get() : -1);
        if (!client.socket) return;
        watch(client.socket.get());
        ward.clients.push_back(std::move(client));
    } catch (const std::exception& e) {
        // It is told once nothing is left of the container.
        ward.refusal = refusal(e);
        ward.clients.push_back(std::move(client));
        (void)controller_.kill(ward.id);
    }
}

void Server::make_known(Ward& ward, const ContainerSpec& spec) {
    ward.info.init = controller_.init_pid(ward.id);
    ward.info.console_path = controller_.console_path(ward.id);
    for (std::size_t i = 1; !ward.info.console_path.empty(); ++i) {
        std::string path = controller_.console_path(ward.id, i);
        if (path.empty()) break;
        ward.info.more_console_paths.push_back(std::move(path));
    }
    ward.info_file = detail::to_memory_file(detail::encode(ward.info));
    record(ward);
    ward.listener = ward.directory->listen();
    watch(ward.listener.get());
    // Whoever may have to start one more keeps what that takes.
    if (ward.can_start_again || std::exchange(is_lowered_, true)) return;
    count_cpus();
    lower_privileges();
    lock_down(*ward.directory, spec);
}

void Server::record(Ward& ward) {
    std::optional<detail::ContainerRecord> container;
    try {
        container = {.defaults = controller_.exec_ticket(ward.id).defaults,
                     .has_command_below = ward.has_command_below,
                     .hotplug = controller_.hotplug_state(ward.id)};
    } catch (const Error& e) {
        if (e.code().value() != ESRCH) throw;
    }
    // Of one that has ended, the pid may be another's.
    const pid_t init = container ? ward.info.init : -1;
    ward.directory->record(init, std::move(container));
    ward.is_recorded = true;
}

void Server::count_cpus() {
    // Of all, which is one: so it is no answer of anybody's, which a preserved container would keep.
    std::vector<ContainerUsage> usage;
    controller_.usage(UsagePart::cpu, usage);
}

}  // namespace caisson_helper
