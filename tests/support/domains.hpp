// support/domains.hpp - caissonctl as a test runs it: in directories of its own, with everything destroyed at the end.
#pragma once

#include <stdexcept>
#include <string>

#include <fcntl.h>

#include <caisson/detail/sys.hpp>

#include "support/command.hpp"
#include "support/doctest.hpp"
#include "support/rootfs.hpp"

namespace caisson_test {

[[nodiscard]] inline bool has(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}
/// Checks one call that succeeds.
inline void check_said(const Outcome& outcome, const std::string& text) {
    CHECK(outcome.status == 0);
    CHECK(outcome.out == text + "\n");
    CHECK(outcome.err == "");
}
/// Checks one call that fails.
inline void check_error(const Outcome& outcome, const std::string& error) {
    CHECK(outcome.status == 1);
    CHECK(outcome.out == "\n");
    CHECK(outcome.err == error);
}

class Domains {
public:
    Domains() = default;
    Domains(const Domains&) = delete;
    Domains& operator=(const Domains&) = delete;
    ~Domains() {
        for (std::size_t at = 0, end = 0; (end = names_.find('\n', at)) != std::string::npos; at = end + 1) {
            (void)(*this)({"--quiet", "destroy", names_.substr(at, end - at)});
        }
    }

    /// The words of a call, for programs that run it in their own way.
    [[nodiscard]] Words words(const Words& arguments) const {
        Words all{CAISSON_EXAMPLES "/caissonctl", "--state", state(), "--run", directory_ / "run"};
        all.insert(all.end(), arguments.begin(), arguments.end());
        return all;
    }
    [[nodiscard]] Outcome operator()(const Words& arguments) const { return run(words(arguments)); }
    [[nodiscard]] std::string state() const { return directory_ / "state"; }
    [[nodiscard]] std::string file(const std::string& name) const { return directory_ / name; }

    /// Writes a description and returns the file's path. `init` is what runs in the root; `more` are further devices.
    std::string describe(const std::string& name, const std::string& uuid = {}, int memory_kib = 50000,
                         const std::string& init = "/sbin/init", const std::string& more = {},
                         const std::string& idmap = {}) {
        names_ += name + "\n";
        // Once: a shell that has just started would find the script empty.
        if (described_ == 0)
            root_.write(std::string{"/sbin/init"}, "#!/bin/busybox sh\nexport PS1='inside> '\nexec sh\n", 0755);
        return write(name + std::to_string(++described_) + ".xml",
                     "<domain type='lxc'><name>" + name + "</name>" +
                         (uuid.empty() ? "" : "<uuid>" + uuid + "</uuid>") + "<memory>" + std::to_string(memory_kib) +
                         "</memory><os><type>exe</type><init>" + init + "</init></os>" + idmap +
                         "<devices><filesystem><source dir='" + root_.path() + "'/><target dir='/'/></filesystem>" +
                         more + "<console type='pty'/></devices></domain>\n");
    }
    /// Writes any file and returns its path.
    std::string write(const std::string& name, const std::string& text) const;
    [[nodiscard]] const TestRoot& root() const noexcept { return root_; }

private:
    TestRoot root_;
    TestDirectory directory_;
    std::string names_;
    int described_ = 0;
};

inline std::string Domains::write(const std::string& name, const std::string& text) const {
    const std::string path = file(name);
    const caisson::Fd out{::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)};
    if (!out || !caisson::detail::sys::write_all(out.get(), text)) throw std::runtime_error{path};
    return path;
}

}  // namespace caisson_test
