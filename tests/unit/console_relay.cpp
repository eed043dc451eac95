// One of a container's terminals on its way to a terminal of the host: what must not go wrong where the kernel or the
// allocator has nothing left.
#include "../../src/console_relay.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <optional>
#include <string>

#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "support/doctest.hpp"
#include "support/read_now.hpp"

namespace {
bool has_memory = true;
}

void* operator new(std::size_t size) {
    void* const place = has_memory ? std::malloc(size == 0 ? 1 : size) : nullptr;
    if (place == nullptr) throw std::bad_alloc{};
    return place;
}
void* operator new[](std::size_t size) {
    return operator new(size);
}
void operator delete(void* place) noexcept {
    std::free(place);
}
void operator delete(void* place, std::size_t) noexcept {
    std::free(place);
}
void operator delete[](void* place) noexcept {
    std::free(place);
}
void operator delete[](void* place, std::size_t) noexcept {
    std::free(place);
}

using namespace caisson;
using caisson_test::read_now;
using detail::Relay;
using detail::Ring;

namespace {

/// A terminal as a container has it, and the relay that reads it.
struct Carried {
    Carried() { inner.make_raw(); }
    /// Says what is ready, until nothing is.
    void serve() {
        epoll_event ready[8];
        for (int n = 0; (n = ::epoll_wait(set.get(), ready, 8, 100)) > 0;) {
            for (int i = 0; i < n; ++i) relay.serve(static_cast<unsigned>(ready[i].data.u64), ready[i].events);
        }
    }
    /// What is ready is served while there is none.
    bool is_refused_without_memory() {
        bool is_refused = false;
        has_memory = false;
        try {
            serve();
        } catch (const std::bad_alloc&) {
            is_refused = true;
        }
        has_memory = true;
        return is_refused;
    }
    Fd set{::epoll_create1(EPOLL_CLOEXEC)};
    Pty inner = Pty::open();
    Fd inside = inner.open_peer();
    Relay relay{0, inner, ConsoleSpec{}, std::nullopt, detail::Poller{set.get(), 0}};
};

bool write_all(const Fd& fd, const std::string& text) {
    return ::write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

}  // namespace

TEST_CASE("a ring keeps the latest bytes in their order, and no more memory than four times what they take") {
    Ring ring;
    std::string all;
    for (int i = 0; i < 2000; ++i) {
        const std::string part(static_cast<std::size_t>(i % 97), static_cast<char>('a' + i % 26));
        all += part;
        ring.append(part);
        ring.drop_before(ring.end() - std::min<std::uint64_t>(ring.end(), static_cast<std::uint64_t>(i % 1500)));
        std::string kept;
        for (std::uint64_t at = ring.begin(); at != ring.end(); at += ring.from(at).size()) kept += ring.from(at);
        REQUIRE(kept == all.substr(all.size() - ring.size()));
        REQUIRE(ring.memory() <= std::max<std::size_t>(4 * ring.size(), 256));
    }
    ring.drop_before(ring.end());
    CHECK(ring.memory() == 0);
}

TEST_CASE("what a container writes while there is no memory waits for some, and is not lost") {
    Carried carried;
    const Fd viewer = carried.relay.attach({});
    carried.serve();
    const std::string text(2000, 'x');
    REQUIRE(write_all(carried.inside, text));
    CHECK(carried.is_refused_without_memory());
    CHECK(read_now(viewer).empty());
    carried.serve();
    CHECK(read_now(viewer) == text);
}

TEST_CASE("what a viewer types while there is no memory waits for some, and is not lost") {
    Carried carried;
    const Fd viewer = carried.relay.attach({});
    carried.serve();
    const std::string text(2000, 'x');
    REQUIRE(write_all(viewer, text));
    CHECK(carried.is_refused_without_memory());
    carried.serve();
    CHECK(read_now(carried.inside) == text);
}

TEST_CASE("the next container's terminal has the size of the one before") {
    Carried carried;
    carried.relay.resize({33, 44});
    CHECK(carried.inner.size() == WindowSize{33, 44});
    carried.relay.end();
    carried.relay.leave();
    Pty next = Pty::open({24, 80});
    carried.relay.join(next);
    CHECK(next.size() == WindowSize{33, 44});
    carried.relay.leave();
}
