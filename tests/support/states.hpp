// support/states.hpp - a table of what each function of a type does in each state of its objects.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include <caisson/error.hpp>

#include "support/doctest.hpp"

namespace caisson_test {

/// A function of `T`, and for each state what it does there: '+' it returns, 'E' it throws Error, 'L' it throws
/// std::logic_error, '-' it is not called, since it would wait for ever.
template <class T>
struct Row {
    std::string name;      ///< the function's
    std::string expected;  ///< one letter for each state
    std::function<void(T&)> call;
    bool changes = false;  ///< what comes next gets an object of its own
};

/// A state, and how an object gets there.
template <class T>
struct State {
    std::string name;
    std::function<std::unique_ptr<T>()> make;
    bool in_copy = false;  ///< the function is called in a fork(2)ed copy of the process
};

/// What a call did, as in Row; '!' for anything else that it throws, and its text.
template <class T>
char outcome(const Row<T>& row, T& object, std::string& said) {
    try {
        row.call(object);
        return '+';
    } catch (const caisson::Error& e) {
        said = e.what();
        return 'E';
    } catch (const std::logic_error& e) {
        said = e.what();
        return 'L';
    } catch (const std::exception& e) {
        said = e.what();
    } catch (...) {
        said = "no std::exception";
    }
    return '!';
}

/// The same in a copy of the process, which ends with it; 'X' where it crashed, or did not return within a while.
template <class T>
char outcome_in_copy(const Row<T>& row, T& object) {
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        (void)::alarm(20);
        std::string said;
        const char letter = outcome(row, object, said);
        ::_exit(letter);
    }
    int status = 0;
    (void)::waitpid(child, &status, 0);
    return WIFEXITED(status) ? static_cast<char>(WEXITSTATUS(status)) : 'X';
}

/// What is expected of a question about memory pressure: an error wherever nobody counts it.
inline std::string counted(std::string expected) {
    const bool is = ::access("/proc/pressure/memory", R_OK) == 0 ||
                    ::access("/sys/fs/cgroup/memory/memory.pressure_level", F_OK) == 0;
    if (!is) std::replace(expected.begin(), expected.end(), '+', 'E');
    return expected;
}

/// Calls everything everywhere.
template <class T>
void check_states(const std::vector<State<T>>& states, const std::vector<Row<T>>& rows) {
    for (std::size_t i = 0; i < states.size(); ++i) {
        const State<T>& state = states[i];
        std::unique_ptr<T> object;
        for (const Row<T>& row : rows) {
            REQUIRE(row.expected.size() == states.size());
            const char expected = row.expected[i];
            if (expected == '-') continue;
            if (!object) object = state.make();
            std::string said;
            const char letter = state.in_copy ? outcome_in_copy(row, *object) : outcome(row, *object, said);
            CHECK_MESSAGE(letter == expected, row.name << " of one that is " << state.name << ": " << letter
                                                       << " instead of " << expected << ": " << said);
            if (row.changes) object.reset();
        }
    }
}

}  // namespace caisson_test
