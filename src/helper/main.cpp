// helper/main.cpp - caisson-helper: containers, their consoles and their clients in one loop. Started by
// caisson::Helper::start, which gives it a socket and a request; see helper.hpp for what is promised.
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <exception>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>

#include <caisson/detail/helper_wire.hpp>
#include <caisson/error.hpp>

#include "guard.hpp"
#include "privileges.hpp"
#include "server.hpp"
#include "ward.hpp"

namespace caisson_helper {
namespace {

/// What the request names, which lies one beside the other.
std::vector<Fd> passed_on(const ContainerSpec& spec) {
    std::vector<int> named = spec.descriptors;
    for (const int fd : {spec.stdio.in, spec.stdio.out, spec.stdio.err}) named.push_back(fd);
    std::vector<Fd> passed;
    const int last = *std::max_element(named.begin(), named.end());
    for (int fd = detail::helper_stdio; fd <= last; ++fd) passed.emplace_back(fd);
    return passed;
}

void serve(Client& first) {
    become_independent();
    detail::StartRequest request;
    {
        const Fd file{detail::helper_request};
        const std::string bytes = detail::read_memory_file(file.get());
        detail::require_wire_version(bytes);
        request = detail::decode<detail::StartRequest>(bytes);
    }
    first.descriptors = passed_on(request.spec);
    if (request.outlive) return guard(std::move(request), first);
    std::optional<Server> server;
    try {
        server.emplace(request);
    } catch (const Error& e) {
        if (e.code().value() != EEXIST) throw;
        (void)detail::send_message(first.socket.get(), {.kind = Message::Kind::elsewhere});
        return;
    }
    server->start_first(std::move(request), first);
    server->run();
}

}  // namespace
}  // namespace caisson_helper

int main(int argc, char**) {
    using namespace caisson_helper;
    struct stat st {};
    if (argc != 2 || ::fstat(detail::helper_socket, &st) != 0 || !S_ISSOCK(st.st_mode)) {
        std::fputs("caisson-helper is started by programs that use libcaisson (caisson::Helper), not by hand.\n",
                   stderr);
        return 2;
    }
    Client first{.socket = Fd{detail::helper_socket}};
    try {
        serve(first);
        return 0;
    } catch (const std::exception& e) {
        if (first.socket) (void)detail::send_message(first.socket.get(), refusal(e));
        return 1;
    }
}
