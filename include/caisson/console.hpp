// caisson/console.hpp - what a container's terminals are to be, and what is known of one that runs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <caisson/pty.hpp>

namespace caisson::inline v0 {

/// What happens once nobody takes what comes out of a console, and all room is full.
enum class WhenFull : std::uint8_t {
    wait,         ///< the container waits: its writes block, and nothing is lost
    drop_oldest,  ///< what is oldest is thrown away, and counted
};

/// A terminal of a container. All but `size` is for a Controller that relays it.
struct ConsoleSpec {
    WindowSize size{};  ///< at first
    /// A file of the host that gets all that comes out, byte for byte; it can hold whatever a terminal acts on. Made
    /// with mode 0600; an existing one must be a regular file of the caller's that has no other name. No directory on
    /// the way may be a symbolic link. Empty: none. With a log the container never waits: what cannot be written to it
    /// is counted.
    std::string log{};
    bool log_append = true;  ///< false: begins the file anew at each start
    /// Bytes after which the file becomes `log` with ".1" at its end, in the place of an older one, and a new one is
    /// begun; where that is refused, as by a helper's lock-down, its content is copied there, or lost, and the file
    /// itself emptied. 0: no limit.
    std::uint64_t log_limit = 0;
    /// Bytes that are kept for who attaches later. They take memory once there are any.
    std::uint32_t scroll_back = 4096;
    WhenFull when_full = WhenFull::wait;
    friend bool operator==(const ConsoleSpec&, const ConsoleSpec&) = default;
};

/// Who reads and writes a container's console.
enum class ConsoleUse : std::uint8_t {
    /// The controller carries it to a terminal of the host, `Controller::console_path`, where a user can come and go.
    relay,
    /// The caller, by `Controller::console_fd`.
    raw,
    /// As well, and `console_data` tells that there is something to be read.
    told,
};

/// How a viewer looks at a console, see Controller::attach_console.
struct ViewerOptions {
    std::size_t console = 0;  ///< which: 0 is `ContainerSpec::console`, 1 the first of `more_consoles`
    bool read_only = false;   ///< what the viewer writes is not for the container
    /// For a viewer that is slower than others: it loses what is oldest, or everybody waits for it.
    WhenFull when_full = WhenFull::drop_oldest;
    friend bool operator==(const ViewerOptions&, const ViewerOptions&) = default;
};

/// One that is attached to a console.
struct ConsoleViewer {
    std::uint32_t number = 0;  ///< never used twice for one console; 0 is the terminal at `Controller::console_path`
    std::uint64_t lost = 0;    ///< bytes that it did not get since it came, as it was too slow
    friend bool operator==(const ConsoleViewer&, const ConsoleViewer&) = default;
};

/// What a relayed console has been up to.
struct ConsoleState {
    WindowSize size{};
    std::uint64_t written = 0;             ///< bytes that came out of the container
    std::uint64_t log_lost = 0;            ///< of these, what could not be written to the log
    std::string log_error{};               ///< why, the last time; empty: there was nothing
    std::vector<ConsoleViewer> viewers{};  ///< the terminal first
    friend bool operator==(const ConsoleState&, const ConsoleState&) = default;
};

}  // namespace caisson::inline v0
