// Times and their percentiles.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include <sys/resource.h>
#include <time.h>

namespace caisson_bench {

/// Microseconds of CLOCK_MONOTONIC.
inline double now() {
    timespec t{};
    (void)::clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_nsec) / 1e3;
}
inline void rest(long milliseconds) {
    const timespec t{milliseconds / 1000, milliseconds % 1000 * 1'000'000};
    (void)::nanosleep(&t, nullptr);
}
/// Microseconds of processor time of this process and of all that it has waited for.
inline double cpu() {
    double sum = 0;
    for (const auto who : {RUSAGE_SELF, RUSAGE_CHILDREN}) {
        rusage used{};
        (void)::getrusage(who, &used);
        for (const timeval& t : {used.ru_utime, used.ru_stime}) {
            sum += static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_usec);
        }
    }
    return sum;
}

class Samples {
public:
    void add(double value) { values_.push_back(value); }
    [[nodiscard]] bool empty() const { return values_.empty(); }
    [[nodiscard]] double percentile(double p) const {
        if (values_.empty()) return 0;
        std::vector<double> sorted = values_;
        std::sort(sorted.begin(), sorted.end());
        return sorted[std::min(sorted.size() - 1,
                               static_cast<std::size_t>(p / 100 * static_cast<double>(sorted.size())))];
    }

private:
    std::vector<double> values_;
};

}  // namespace caisson_bench
