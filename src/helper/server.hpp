// helper/server.hpp - the helper's loop: containers, their consoles and their clients.
#pragma once

#include <optional>
#include <vector>

#include <caisson/controller.hpp>
#include <caisson/detail/helper_wire.hpp>
#include <caisson/fd.hpp>

#include "ward.hpp"

namespace caisson_helper {

class Server {
public:
    /// Starts the container; `first` is told of it. Throws what the start throws.
    Server(detail::StartRequest request, Fd first);
    /// Returns once the container has ended, and its console's user has read what it wrote.
    void run();

private:
    void start(const ContainerSpec& spec);
    /// What takes privileges that are given up next. Where the kernel refuses, each answer says so.
    void count_cpus();
    void accept_clients();
    /// One question.
    void serve(Fd& client);
    /// First the name is free, then everybody is told: who waits for the end may start the next one at once.
    void end(ExitStatus status);

    Ward ward_;
    Controller controller_;  // destroyed first: no container outlives the lock
    std::optional<ExitStatus> status_;
};

}  // namespace caisson_helper
