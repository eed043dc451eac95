// helper/server.hpp - the helper's loop: containers, their consoles and their clients.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <caisson/controller.hpp>
#include <caisson/detail/helper_wire.hpp>
#include <caisson/fd.hpp>

#include "run_directory.hpp"
#include "ward.hpp"

namespace caisson_helper {

/// A question that is being answered beside the loop.
struct Work {
    Message question;
    ContainerId id{};
    Answer found{};
    std::atomic<bool> done = false;
    std::thread thread{};
};

class Server {
public:
    /// Of the request's group, if it names one: throws `Step::helper` with EEXIST if that has a helper already.
    explicit Server(const detail::StartRequest& request);
    Server(const Server&) = delete;
    ~Server();

    /// Starts a container in the calling thread, once. How that went is told to `client`, which it takes over, by
    /// `run`. Throws, and takes nothing over, where it cannot begin.
    void start_first(detail::StartRequest request, Client& client);
    /// Takes over a container that another process has started and owns as well; then `first`, if it is one, is told as
    /// by `start_first`. Throws where that fails without a `first`.
    void take_over(const detail::StartRequest& request, RunDirectory place, Container container, Fd note,
                   Client& first);
    /// Returns once all containers have ended, and the users of their consoles have read what they wrote.
    void run();

private:
    /// A start that is under way. Its thread has the place and the spec until it is known by an event or has failed.
    struct Starting {
        std::unique_ptr<Ward> ward = std::make_unique<Ward>();
        ContainerSpec spec;
        Client client;
        bool opens_console = false;
        std::vector<Fd> borrowed{};
        std::atomic<bool> has_place = false;  ///< the name is its own
        std::optional<Error> error{};
        std::atomic<bool> failed = false;  ///< without an event, by `error`
        std::thread thread{};
    };

    [[nodiscard]] bool is_idle() const;
    void turn(int milliseconds);
    void take_events();
    /// Makes the ward, and what the start takes.
    Starting& prepare(detail::StartRequest request, Client& client);
    /// Throws where the name is taken.
    void take_place(Starting& starting) const;
    void begin(detail::StartRequest request, Client& client);
    /// One that has been made known by an event, or has failed without.
    void settle(std::unique_ptr<Starting> starting, const Event& event);
    [[nodiscard]] std::unique_ptr<Starting> take_starting(std::size_t index);
    [[nodiscard]] std::unique_ptr<Starting> take_starting(const std::string& name);
    void settle_failures();
    void handle(const Event& event);
    /// What is told of a container that has been started again, or is preserved.
    void renew(Ward& ward, const Event& event);
    /// Of one that has been started again. Throws with ESRCH where it has ended since.
    void catch_up(Ward& ward);
    /// As far as the question's answer goes by it.
    void catch_up(Ward& ward, const Message& question);
    /// To who has started it, after all others.
    void introduce(Ward& ward, const ContainerSpec& spec, Client& client, bool opens_console);
    void make_known(Ward& ward, const ContainerSpec& spec);
    /// What a ward's clients believe: as it is now, and for a helper that locks itself down, for good.
    void record(Ward& ward);
    /// What takes privileges that are given up next. Where the kernel refuses, each answer says so.
    void count_cpus();
    void forget_closed(Ward& ward);
    static void tell_watchers(Ward& ward, const Event& event);
    void serve_ward(Ward& ward, const std::vector<int>& ready);
    void serve_group(const std::vector<int>& ready);
    /// One question of a ward's client.
    void serve(Ward& ward, Client& client);
    /// In a thread of its own: the others' containers go on meanwhile.
    void answer_beside(const Ward& ward, Client& client, Message question);
    [[nodiscard]] std::vector<const Work*> finished() const;
    void settle(const std::vector<const Work*>& finished);
    /// A part of a start; true if that goes on with the client.
    bool serve_start(Client& client);
    void accept_clients(const Fd& listener, std::vector<Client>& into);
    void watch(int fd);
    void unwatch(int fd) noexcept;
    /// First the name is free, then everybody is told: who waits for the end may start the next one at once.
    void end(Ward& ward, ExitStatus status);

    std::string run_directory_;
    std::optional<RunDirectory> group_;
    Fd group_listener_;
    std::optional<ResourceLimit> descriptor_limit_;  // of the containers, where the helper's own is another
    std::vector<Client> group_clients_;              // before they have asked for a start
    Fd epoll_;                                       // listeners and clients
    Fd spare_;  // given up for a moment, to send a client away where no other is left
    std::vector<std::unique_ptr<Ward>> wards_;
    std::vector<std::unique_ptr<Starting>> starting_;
    std::vector<std::unique_ptr<Work>> work_;
    bool is_lowered_ = false;
    Controller controller_;  // destroyed first: no container outlives the lock
};

}  // namespace caisson_helper
