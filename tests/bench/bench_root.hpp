// A root directory with the stamp in it, and the spec that starts it.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <caisson/container.hpp>

namespace caisson_bench {

/// A new directory below $TMPDIR, removed at the end.
class BenchRoot {
public:
    BenchRoot() {
        std::string name = std::filesystem::temp_directory_path() / "caisson-bench.XXXXXX";
        if (::mkdtemp(name.data()) == nullptr) {
            std::perror("caisson-bench: temporary directory");
            std::exit(1);
        }
        path_ = name;
        (void)::chmod(path_.c_str(), 0755);
        for (const char* below : {"proc", "dev", "sys", "tmp"}) std::filesystem::create_directory(path_ / below);
        std::filesystem::copy_file(std::filesystem::read_symlink("/proc/self/exe").parent_path() / "stamp",
                                   path_ / "stamp");
    }
    BenchRoot(const BenchRoot&) = delete;
    BenchRoot& operator=(const BenchRoot&) = delete;
    ~BenchRoot() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    [[nodiscard]] std::string path() const { return path_.string(); }

    /// mount, pid, uts, ipc, net, user and cgroup namespaces, /proc, /dev, a group in every hierarchy.
    [[nodiscard]] caisson::ContainerSpec spec(std::string name = "bench") const {
        caisson::ContainerSpec spec;
        spec.name = std::move(name);
        spec.root = path();
        spec.command = {"/stamp"};
        spec.namespaces = spec.namespaces | caisson::NamespaceSet{caisson::NamespaceKind::net};
        spec.sys = false;
        spec.console.reset();
        return spec;
    }

private:
    std::filesystem::path path_;
};

/// At the beginning of each benchmark: ends it with an error if it takes longer than that.
inline void begin_as_root(unsigned most_seconds) {
    if (::geteuid() != 0) {
        std::fprintf(stderr, "caisson-bench: this needs root\n");
        std::exit(77);
    }
    (void)::signal(SIGALRM, [](int) {
        constexpr std::string_view words = "caisson-bench: given up, as it takes much longer than it should\n";
        (void)!::write(2, words.data(), words.size());
        ::_exit(1);
    });
    (void)::alarm(most_seconds);
}

}  // namespace caisson_bench
