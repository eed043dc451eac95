// support/ordinary_home.hpp - an ordinary user with a root directory, and what his containers tell.
#pragma once

#include <caisson/container.hpp>

#include <string>
#include <string_view>
#include <utility>

#include <unistd.h>

#include "support/host.hpp"
#include "support/ordinary_user.hpp"

namespace caisson_test {

inline const char* why_no_user() {
    if (::geteuid() != 0) return "this needs root, to become an ordinary user";
    if (const char* reason = OrdinaryUser::cannot()) return reason;
    return TestRoot::missing();
}
inline const char* why_no_range() {
    return OrdinaryUser::has_tools() ? why_no_user() : "newuidmap is missing: install uidmap";
}

inline bool has(const std::string& text, std::string_view part) {
    return text.find(part) != std::string::npos;
}

/// What comes out of the console, and how it ended.
inline std::string told(const ContainerSpec& spec) {
    try {
        Container container = Container::start(spec);
        std::string all = output(container);
        const ExitStatus status = container.wait();
        return status.success() ? all : all + status.str();
    } catch (const Error& e) {
        return e.what();
    }
}

/// A root of the user's, and the user.
struct Home {
    TestRoot root;
    OrdinaryUser user;
    explicit Home(unsigned owner = OrdinaryUser::id) { OrdinaryUser::own(root.path(), owner); }
    /// What `body` returns when the ordinary user runs it. What it leaves is told.
    template <class Body>
    std::string as_user(bool with_range, Body&& body) const {
        return in_host([&]() -> std::string {
            if (!user.become(with_range)) return "cannot become an ordinary user";
            const int before = open_descriptors();
            std::string text = body();
            if (open_descriptors() != before) text += " LEFT: descriptors";
            const std::string children = children_left();
            return children.empty() ? text : text + " LEFT: " + children;
        });
    }
    std::string run(const ContainerSpec& spec, bool with_range = true) const {
        return as_user(with_range, [&] { return told(spec); });
    }
};

}  // namespace caisson_test
