// What a start costs whoever does it: the system calls of a container's start and end, one after the other, without a
// keeper, a stage, a plan, error handling or anything else. Nobody could use it as it is; nobody can be faster.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace caisson_bench {

class Floor {
public:
    /// `root`: a directory with `stamp`, `proc` and `dev` in it.
    explicit Floor(std::string root);
    ~Floor();
    Floor(const Floor&) = delete;
    Floor& operator=(const Floor&) = delete;
    /// One container from nothing to gone.
    void run();

private:
    struct Hierarchy {
        std::string path;
        int parent = -1;
        bool v2 = false;
        bool cpuset = false;
        bool devices = false;
        int tasks = -1;
        int directory = -1;
    };
    static int child(void* self);
    void make_group();
    void make_devices();
    void write_maps(int pid);

    std::string root_;
    std::string name_;
    std::vector<Hierarchy> hierarchies_;
    std::string cpus_;
    std::string mems_;
    int tree_ = -1;
    int devices_ = -1;
    int terminals_ = -1;
    int go_[2] = {-1, -1};
    int null_ = -1;
    std::vector<std::uint64_t> filter_;
    const char* failed_ = nullptr;
    alignas(16) char stack_[16384]{};
};

}  // namespace caisson_bench
