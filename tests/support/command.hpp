// support/command.hpp - programs that a test runs: with their output in a string, or on a terminal of their own.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>
#include <termios.h>

#include <caisson/fd.hpp>
#include <caisson/pty.hpp>

namespace caisson_test {

using Words = std::vector<std::string>;

/// What a program said and how it ended.
struct Outcome {
    int status = -1;  ///< its exit status; 128 + N if signal N killed it; -1 if it had to be killed after a minute
    std::string out{};
    std::string err{};
};

/// Runs a program to its end, with /dev/null as its standard input. Its first word is a path, or a name for $PATH.
[[nodiscard]] Outcome run(const Words& words);

/// A program that runs meanwhile, in a process group of its own and with its output in a file of its own.
class Background {
public:
    explicit Background(const Words& words);
    Background(const Background&) = delete;
    Background& operator=(const Background&) = delete;
    ~Background();  ///< kills the group if it still runs
    [[nodiscard]] pid_t pid() const noexcept { return pid_; }
    /// Sends a signal to its group, as a terminal does for Ctrl+C.
    void signal_group(int number) const;
    /// Waits until its output has this text; false after a minute or once it has ended without.
    [[nodiscard]] bool says(std::string_view text);
    [[nodiscard]] Outcome wait();

private:
    void read_output();
    pid_t pid_ = -1;
    caisson::Fd output_;
    std::string text_;
};

/// A program whose standard input, output, error and controlling terminal are a terminal of its own.
class OnTerminal {
public:
    explicit OnTerminal(const Words& words, caisson::WindowSize size = {});
    OnTerminal(const OnTerminal&) = delete;
    OnTerminal& operator=(const OnTerminal&) = delete;
    ~OnTerminal();  ///< kills it if it still runs
    [[nodiscard]] pid_t pid() const noexcept { return pid_; }
    /// Types, as a person would.
    void type(std::string_view text) const;
    /// Waits until the terminal shows `text` behind what was found last; false after a minute or at its end.
    [[nodiscard]] bool shows(std::string_view text);
    /// Everything that was shown.
    [[nodiscard]] const std::string& screen() const noexcept { return screen_; }
    /// The terminal's modes at this moment, as "stty -g" would tell them.
    [[nodiscard]] std::string modes() const;
    void resize(caisson::WindowSize size) { pty_.resize(size); }
    /// Takes the terminal away, as closing its window does.
    void hang_up();
    /// Waits for the end of the program and reads the rest of what it showed; as `Outcome::status`.
    int wait();

private:
    /// Reads once more; false at the end or after a minute.
    bool read_more();
    caisson::Pty pty_;
    caisson::Fd kept_;  ///< the other end, so that modes can be asked for after the program's end
    pid_t pid_ = -1;
    int status_ = -1;
    std::string screen_;
    std::size_t found_ = 0;
};

}  // namespace caisson_test
