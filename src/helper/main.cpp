// helper/main.cpp - caisson-helper: a container, its console and its clients in one loop. Started by
// caisson::Helper::start, which gives it a socket and a request; see helper.hpp for what is promised.
#include <cstdio>
#include <exception>
#include <string>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>

#include <caisson/detail/helper_wire.hpp>
#include <caisson/error.hpp>

#include "privileges.hpp"
#include "server.hpp"
#include "ward.hpp"

int main(int argc, char**) {
    using namespace caisson_helper;
    struct stat st {};
    if (argc != 2 || ::fstat(detail::helper_socket, &st) != 0 || !S_ISSOCK(st.st_mode)) {
        std::fputs("caisson-helper is started by programs that use libcaisson (caisson::Helper), not by hand.\n",
                   stderr);
        return 2;
    }
    Fd first{detail::helper_socket};
    const int answer_to = first.get();
    Message answer;
    try {
        become_independent();
        const Fd file{detail::helper_request};
        const std::string bytes = detail::read_memory_file(file.get());
        detail::require_wire_version(bytes);
        // A copy: the start's own refusal must find it open.
        Fd client{::fcntl(answer_to, F_DUPFD_CLOEXEC, 3)};
        Server server{detail::decode<detail::StartRequest>(bytes), std::move(client)};
        first.reset();
        server.run();
        return 0;
    } catch (const Error& e) {
        answer = refusal(e);
    } catch (const std::exception& e) {
        answer = refusal({Step::helper, 0, std::string{"helper: "} + e.what()});
    }
    if (first) (void)detail::send_message(first.get(), answer);
    return 1;
}
