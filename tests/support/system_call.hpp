// support/system_call.hpp - containers whose payload is tests/programs/system_call.cpp.
#pragma once

#include <cerrno>
#include <map>
#include <sstream>
#include <string>

#include <caisson/container.hpp>

#include "support/container.hpp"

namespace caisson_test {

/// A root with the program in it.
class SystemCallRoot : public TestRoot {
public:
    SystemCallRoot() { copy(program("system_call"), "/bin/system_call"); }
};

/// A container that makes calls: no console, whose terminal is a way for what hangs it up.
inline caisson::ContainerSpec caller(const SystemCallRoot& root, caisson::SeccompProfile profile) {
    caisson::ContainerSpec spec =
        profile == caisson::SeccompProfile::system ? caisson::ContainerSpec::system() : caisson::ContainerSpec{};
    spec.name = "test";
    spec.root = root.path();
    spec.seccomp.profile = profile;
    return spec;
}

/// What came of each of the calls that `arguments` tell of.
inline std::map<int, std::string> calls(caisson::ContainerSpec spec, const std::string& arguments = "") {
    spec.command = {"/bin/system_call"};
    std::istringstream words{arguments};
    for (std::string word; words >> word;) spec.command.push_back(word);
    std::istringstream lines{run(spec)};
    std::map<int, std::string> results;
    for (std::string line; std::getline(lines, line);) {
        const std::size_t space = line.find(' ');
        if (space != std::string::npos) results[std::stoi(line)] = line.substr(space + 1);
    }
    return results;
}
/// What came of the one call that `arguments` tell of: "ok", an errno, or "signal N".
inline std::string call(const caisson::ContainerSpec& spec, const std::string& arguments) {
    const auto results = calls(spec, arguments);
    return results.size() == 1 ? results.begin()->second : "nothing";
}
/// False where the kernel has no 32-bit calls, or takes them for its own, which have other numbers.
inline bool runs_i386(const caisson::ContainerSpec& unfiltered) {
    return call(unfiltered, "i386 224") == "ok";  // gettid; else a timer's, which is not there
}
inline const std::string refused = std::to_string(EPERM);

}  // namespace caisson_test
