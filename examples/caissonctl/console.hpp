// The user's terminal, joined to a container's console.
#pragma once

#include <functional>

#include <caisson/fd.hpp>
#include <caisson/pty.hpp>

namespace caissonctl {

/// True if standard input is a terminal.
[[nodiscard]] bool has_terminal();

/// Makes the caller the console's only user until `console` is closed: what two read would be torn apart between them.
/// Throws `Failure` if it has one already; with `force`, that one is hung up first.
void claim_console(const caisson::Fd& console, bool force);

/// Whether Ctrl+] leaves.
enum class Escape : bool { none, leaves };

/// What is listened to while a terminal is joined: `hear` is called once `fd` is readable, until it returns false.
struct Beside {
    int fd = -1;
    std::function<bool()> hear{};
};

/// Joins the terminal on standard input and standard output to `console` until the user types Ctrl+] (see `typed`), the
/// container ends, the terminal goes away or a signal ends the program. `resize` is told the terminal's size at first
/// and whenever it changes. The terminal is given back as it was on every way out. Returns 0, or the number of the
/// signal that the caller is to die of; throws `Failure`.
[[nodiscard]] int join_console(const caisson::Fd& console, const std::function<void(caisson::WindowSize)>& resize,
                               Escape typed = Escape::leaves, Beside beside = {});

/// Ends the program as `signal` would have ended it.
void die_of(int signal);

}  // namespace caissonctl
