// helper/plain_event.hpp - what happened to a container, as a helper tells it.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include <caisson/detail/archive.hpp>
#include <caisson/event.hpp>

namespace caisson::inline v0::detail {

/// An Event in a form that has fields; whose it is goes without saying.
struct PlainEvent {
    Event::Kind kind = Event::Kind::started;
    std::optional<PlainStatus> status{};
    std::optional<PlainError> error{};
    std::uint64_t count = 0;
    std::int64_t pause_ms = 0;
    bool preserved = false;
    MemoryPressure pressure = MemoryPressure::low;
    std::size_t console_number = 0;
    std::uint32_t viewer = 0;
    std::string device{};

    [[nodiscard]] static PlainEvent of(const Event& event) {
        const auto& [kind, id, name, status, error, count, pause, preserved, pressure, console, more_consoles, number,
                     viewer, device] = event;
        PlainEvent plain{.kind = kind,
                         .count = count,
                         .pause_ms = pause.count(),
                         .preserved = preserved,
                         .pressure = pressure,
                         .console_number = number,
                         .viewer = viewer,
                         .device = device};
        if (status) plain.status = PlainStatus::of(*status);
        if (error) plain.error = PlainError::of(*error);
        return plain;
    }
    [[nodiscard]] Event event(const std::string& name) const {
        Event made{.kind = kind,
                   .name = name,
                   .count = count,
                   .pause = std::chrono::milliseconds{pause_ms},
                   .preserved = preserved,
                   .pressure = pressure,
                   .console_number = console_number,
                   .viewer = viewer,
                   .device = device};
        if (status) made.status = status->status();
        if (error) made.error = error->error();
        return made;
    }
};
template <class A, SameButConst<PlainEvent> S>
void fields(A& archive, S& s) {
    auto& [kind, status, error, count, pause_ms, preserved, pressure, console_number, viewer, device] = s;
    archive.enumerator(kind, Event::Kind::stuck);
    archive(status, error, count, pause_ms, preserved, console_number, viewer, device);
    archive.enumerator(pressure, MemoryPressure::critical);
}

}  // namespace caisson::inline v0::detail
