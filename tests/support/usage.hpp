// support/usage.hpp - work in a control group of which it is known what it takes.
#pragma once

#include <caisson/cgroup.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <string>
#include <vector>

#include <linux/capability.h>
#include <linux/loop.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>

#include "support/cgroup.hpp"
#include "support/doctest.hpp"

namespace caisson_test {

inline constexpr std::uint64_t ms = 1'000'000;
inline constexpr std::uint64_t mib = 1 << 20;

/// A process that does `work` in the group, and then waits there until this object goes.
class Worker {
public:
    Worker(Cgroup& group, const std::function<void()>& work) {
        pid_ = spawn_in(group, [&] {
            work();
            done_.put();
            for (;;) ::pause();
            return 0;
        });
        REQUIRE(pid_ > 0);
        done_.take();
    }
    Worker(const Worker&) = delete;
    Worker& operator=(const Worker&) = delete;
    /// What it has taken so far, by its own clock.
    std::uint64_t cpu_time() const {
        clockid_t clock{};
        timespec t{};
        REQUIRE(::clock_getcpuclockid(pid_, &clock) == 0);
        REQUIRE(::clock_gettime(clock, &t) == 0);
        return static_cast<std::uint64_t>(t.tv_sec) * 1000 * ms + static_cast<std::uint64_t>(t.tv_nsec);
    }
    ~Worker() {
        (void)::kill(pid_, SIGKILL);
        (void)wait_for(pid_);
    }

private:
    Pipe done_;
    pid_t pid_ = -1;
};

inline std::uint64_t cpu_time() {
    timespec t{};
    (void)::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return static_cast<std::uint64_t>(t.tv_sec) * 1000 * ms + static_cast<std::uint64_t>(t.tv_nsec);
}
/// The last CPU on which this process may run.
inline int last_cpu() {
    cpu_set_t all;
    int last = 0;
    if (::sched_getaffinity(0, sizeof all, &all) != 0) return 0;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
        if (CPU_ISSET(cpu, &all)) last = cpu;
    }
    return last;
}
inline void burn_on(int cpu, std::uint64_t time) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    if (::sched_setaffinity(0, sizeof one, &one) != 0) ::_exit(97);
    while (cpu_time() < time) {
    }
}
inline void touch(std::size_t size, int flags = MAP_PRIVATE | MAP_ANONYMOUS) {
    void* const all = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (all == MAP_FAILED) ::_exit(98);
    std::memset(all, 1, size);
}

inline void check_near(std::uint64_t value, std::uint64_t wanted) {
    CAPTURE(value);
    CHECK(value >= wanted - wanted / 10);
    CHECK(value <= wanted + wanted / 10);
}
/// As much on one CPU and nothing on the others.
inline void check_all_on(int cpu, const std::vector<std::uint64_t>& each, std::uint64_t wanted) {
    REQUIRE(each.size() > static_cast<std::size_t>(cpu));
    for (std::size_t i = 0; i < each.size(); ++i) {
        CAPTURE(i);
        if (i == static_cast<std::size_t>(cpu)) check_near(each[i], wanted);
        else CHECK(each[i] <= 15 * ms);
    }
}

/// Since it was made.
class Elapsed {
public:
    [[nodiscard]] std::uint64_t ns() const {
        return static_cast<std::uint64_t>(
            std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - from_).count());
    }

private:
    std::chrono::steady_clock::time_point from_ = std::chrono::steady_clock::now();
};
/// What perf events count of one thread that had `wanted`: on a virtual machine also what the hypervisor took
/// meanwhile.
inline void check_clock(std::uint64_t value, std::uint64_t wanted, const Elapsed& elapsed) {
    CAPTURE(value);
    CHECK(value >= wanted - wanted / 10);
    CHECK(value <= elapsed.ns());
}
/// So on one CPU, and nothing on the others.
inline void check_clock_on(int cpu, const std::vector<std::uint64_t>& each, std::uint64_t wanted,
                           const Elapsed& elapsed) {
    REQUIRE(each.size() > static_cast<std::size_t>(cpu));
    for (std::size_t i = 0; i < each.size(); ++i) {
        CAPTURE(i);
        if (i == static_cast<std::size_t>(cpu)) check_clock(each[i], wanted, elapsed);
        else CHECK(each[i] <= 15 * ms);
    }
}

/// Over the mount points of v1's hierarchy of `controller`, in a mount namespace of the test program's own, so that it
/// looks as if the host had it not.
class Covered {
public:
    explicit Covered(const char* controller) {
        if (::unshare(CLONE_NEWNS) != 0 || ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return;
        for (const auto& h : detail::cgroup_hierarchies()) {
            if (!detail::list_has(h.controllers, controller)) continue;
            for (const auto& place : h.places) {
                if (::mount("none", place.mount_point.c_str(), "tmpfs", 0, nullptr) == 0)
                    covered_.push_back(place.mount_point);
            }
        }
    }
    Covered(const Covered&) = delete;
    Covered& operator=(const Covered&) = delete;
    ~Covered() {
        for (const std::string& place : covered_) (void)::umount(place.c_str());
    }

private:
    std::vector<std::string> covered_;
};

/// Without these capabilities from here on.
inline bool drop(std::initializer_list<int> capabilities) {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct data[2]{};
    if (::syscall(SYS_capget, &header, data) != 0) return false;
    for (const int c : capabilities) {
        auto& half = data[c / 32];
        half.permitted &= ~(1u << c % 32);
        half.effective = half.permitted;
        half.inheritable &= ~(1u << c % 32);
    }
    return ::syscall(SYS_capset, &header, data) == 0;
}

/// Four MiB of a block device: a loop device, or where there is none, a file in /tmp on v2, where nothing has to be set
/// on the machine's own disk.
struct Disk {
    std::string path{};  ///< empty: there is none
    unsigned major = 0, minor = 0;

    Disk() {
        const std::string file = "/tmp/caisson-test-disk." + std::to_string(::getpid());
        backing_ = detail::sys::open(file, O_RDWR | O_CREAT | O_EXCL, 0600);
        struct stat st {};
        const bool made = backing_ && ::ftruncate(backing_.get(), 4 << 20) == 0 && ::fstat(backing_.get(), &st) == 0;
        if (made && take_loop()) (void)::fstat(loop_.get(), &st), set(st.st_rdev);
        else if (made && gnu_dev_major(st.st_dev) != 0 && !has_v1("blkio")) path = file, set(st.st_dev);
        if (path != file) (void)::unlink(file.c_str());
    }
    Disk(const Disk&) = delete;
    Disk& operator=(const Disk&) = delete;
    ~Disk() {
        if (!loop_ && !path.empty()) (void)::unlink(path.c_str());
    }
    explicit operator bool() const { return !path.empty(); }

private:
    static bool has_v1(const char* controller) {
        const auto all = detail::cgroup_hierarchies();
        return std::any_of(all.begin(), all.end(),
                           [&](const auto& h) { return detail::list_has(h.controllers, controller); });
    }
    void set(dev_t device) {
        major = gnu_dev_major(device);
        minor = gnu_dev_minor(device);
    }
    bool take_loop() {
        const Fd control = detail::sys::open("/dev/loop-control", O_RDWR);
        const int number = control ? ::ioctl(control.get(), LOOP_CTL_GET_FREE) : -1;
        if (number < 0) return false;
        path = "/dev/loop" + std::to_string(number);
        loop_ = detail::sys::open(path, O_RDWR);
        loop_config config{};
        config.fd = static_cast<__u32>(backing_.get());
        config.block_size = 512;
        config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
        if (loop_ && ::ioctl(loop_.get(), LOOP_CONFIGURE, &config) == 0) return true;
        path.clear();
        loop_.reset();
        return false;
    }
    Fd backing_, loop_;
};

inline bool has_v2() {
    const auto all = detail::cgroup_hierarchies();
    return std::any_of(all.begin(), all.end(), [](const auto& h) { return h.v2() && !h.places.empty(); });
}

}  // namespace caisson_test
