// glib_loop - containers in a program that runs on GLib: the controller is one source of its main loop.
#include <cstdio>
#include <exception>
#include <string>
#include <string_view>

#include <glib-unix.h>
#include <glib.h>

#include <caisson/caisson.hpp>

#include "busybox_root.hpp"

namespace {

/// No exception may pass through GLib's own functions.
struct Containers {
    caisson::Controller controller;
    GMainLoop* loop = g_main_loop_new(nullptr, FALSE);
    int running = 0;
    bool all_well = true;

    Containers() = default;
    Containers(const Containers&) = delete;
    Containers& operator=(const Containers&) = delete;
    ~Containers() { g_main_loop_unref(loop); }

    void tell(const caisson::Event& event) {
        if (event.is_last()) --running;
        if (event.kind == caisson::Event::Kind::started) std::printf("%s started\n", event.name.c_str());
        if (event.kind == caisson::Event::Kind::exited) {
            std::printf("%s %s\n", event.name.c_str(), event.status->str().c_str());
        }
        if (event.kind != caisson::Event::Kind::failed) return;
        std::printf("%s failed: %s\n", event.name.c_str(), event.error->what());
        all_well = false;
    }
    static gboolean ready(gint, GIOCondition, gpointer self) {
        auto& all = *static_cast<Containers*>(self);
        try {
            while (const auto event = all.controller.next()) all.tell(*event);
        } catch (const std::exception& e) {
            std::printf("the controller's loop: %s\n", e.what());
            all.all_well = false;
            all.running = 0;
        }
        if (all.running == 0) g_main_loop_quit(all.loop);
        return G_SOURCE_CONTINUE;
    }
    static gboolean tick(gpointer) {
        std::puts("tick");
        return G_SOURCE_REMOVE;
    }
};

}  // namespace

int main(int argc, char** argv) try {
    const bool help = argc == 2 && std::string_view{argv[1]} == "--help";
    if (argc > 2 || (argc == 2 && argv[1][0] == '-')) {
        std::fputs(
            "usage: glib_loop [ROOT]\n"
            "Runs three containers on ROOT (default: a busybox of its own) from GLib's main loop.\n",
            help ? stdout : stderr);
        return help ? 0 : 2;
    }
    const BusyboxRoot root{argv[1]};
    Containers containers;
    const guint source = g_unix_fd_add(containers.controller.fd(), G_IO_IN, &Containers::ready, &containers);
    g_timeout_add(200, &Containers::tick, nullptr);
    for (const int number : {3, 1, 2}) {
        caisson::ContainerSpec spec;
        spec.name = "sleeper" + std::to_string(number);
        spec.root = root.path();
        spec.command = {"/bin/sh", "-c", "sleep 0." + std::to_string(number) + "; exit " + std::to_string(number)};
        spec.console = std::nullopt;
        containers.controller.start(spec);
        ++containers.running;
    }
    g_main_loop_run(containers.loop);
    g_source_remove(source);
    return containers.all_well ? 0 : 1;
} catch (const std::exception& e) {
    std::fprintf(stderr, "glib_loop: %s\n", e.what());
    return 1;
}
