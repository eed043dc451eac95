// What control groups' files tell, as values.
#include <caisson/usage.hpp>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "../../src/usage_text.hpp"
#include "support/doctest.hpp"

using namespace caisson;
using namespace std::string_view_literals;

TEST_CASE("parts are asked for together, and what is no part is no part") {
    constexpr UsageParts parts = UsagePart::cpu | UsagePart::details;
    CHECK(parts.has(UsagePart::cpu));
    CHECK_FALSE(parts.has(UsagePart::memory));
    CHECK(UsageParts::of_bits(~0u) == UsageParts::all());
    CHECK(UsageParts{}.bits() == 0);
}

TEST_CASE("numbers and limits: max and what v1 writes for none are no limit") {
    CHECK(detail::parse_number("16777216\n") == 16777216);
    CHECK(detail::parse_number("18446744073709551615\n") == UINT64_MAX);
    for (const char* other : {"", "\n", "max\n", "-1\n", "1 2\n", "18446744073709551616\n", " 1\n", "0x10\n"}) {
        CAPTURE(other);
        CHECK_FALSE(detail::parse_number(other));
    }
    CHECK(detail::parse_memory_limit("16777216\n", 4096) == 16777216);
    CHECK_FALSE(detail::parse_memory_limit("max\n", 4096));
    CHECK_FALSE(detail::parse_memory_limit("9223372036854771712\n", 4096));
    CHECK(detail::parse_memory_limit("9223372036854767616\n", 4096) == 9223372036854767616u);
    CHECK_FALSE(detail::parse_memory_limit("9223372036854710272\n", 65536));
}

TEST_CASE("v1: the time on each CPU is in the order of the CPUs, and its sum is the whole") {
    Usage usage;
    detail::parse_cpu_each("1000 0 234 \n", usage);
    CHECK(usage.cpu == 1234);
    CHECK(usage.cpu_each == std::vector<std::uint64_t>{1000, 0, 234});
    Usage none;
    detail::parse_cpu_each("\n", none);
    CHECK(none == Usage{});
}

TEST_CASE("v1: user and system time are clock ticks, throttled time is nanoseconds") {
    Usage usage;
    detail::parse_cpu_ticks("user 12\nsystem 3\n", 10'000'000, usage);
    CHECK(usage.cpu_user == 120'000'000);
    CHECK(usage.cpu_system == 30'000'000);
    detail::parse_throttled("nr_periods 4\nnr_throttled 2\nthrottled_time 81234567\n", usage);
    CHECK(usage.cpu_throttled == 81234567);
    detail::parse_cpu_ticks("user 18446744073709551615\n", 10'000'000, usage);
    CHECK(usage.cpu_user == UINT64_MAX);
}

TEST_CASE("v2: one file has all times, in microseconds") {
    const auto text =
        "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nnice_usec 0\nnr_periods 3\nnr_throttled 1\n"
        "throttled_usec 77\nnr_bursts 0\nburst_usec 0\n"sv;
    Usage usage;
    detail::parse_cpu_stat(text, false, usage);
    CHECK(usage.cpu == 1'500'000);
    CHECK_FALSE(usage.cpu_user);
    detail::parse_cpu_stat(text, true, usage);
    CHECK(usage.cpu_user == 1'000'000);
    CHECK(usage.cpu_system == 500'000);
    CHECK(usage.cpu_throttled == 77'000);
    Usage other;
    detail::parse_throttled(text, other);
    CHECK(other.cpu_throttled == 77'000);
}

TEST_CASE("memory: v1 is read with what is below the group, v2 tells that alone") {
    Usage v1;
    const bool limited = detail::parse_memory_stat(
        "cache 1\nrss 2\nswap 3\nhierarchical_memory_limit 8192\ntotal_cache 4096\ntotal_rss 8192\ntotal_swap 12288\n"
        "total_inactive_anon 5\n",
        4096, v1);
    CHECK(limited);
    CHECK(v1.memory_file == 4096);
    CHECK(v1.memory_anon == 8192);
    CHECK(v1.swap == 12288);
    Usage v2;
    CHECK(detail::parse_memory_stat("anon 8192\nfile 4096\nkernel 7\nfile_mapped 1\nanon_thp 2\n", 4096, v2));
    CHECK_FALSE(detail::parse_memory_stat("hierarchical_memory_limit 9223372036854771712\n", 4096, v2));
    CHECK(v2.memory_file == 4096);
    CHECK(v2.memory_anon == 8192);
    CHECK_FALSE(v2.swap);
}

TEST_CASE("memory: what the out-of-memory killer has done is told by v1 and v2, the hits of the limit by v2") {
    Usage v1;
    detail::parse_memory_events("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", v1);
    CHECK(v1.oom_kills == 3);
    CHECK_FALSE(v1.memory_limit_hits);
    Usage v2;
    detail::parse_memory_events("low 0\nhigh 1\nmax 40\noom 4\noom_kill 18446744073709551615\noom_group_kill 0\n", v2);
    CHECK(v2.oom_kills == UINT64_MAX);
    CHECK(v2.memory_limit_hits == 40);
    Usage other;
    detail::parse_memory_events("oom_kill_disable 0\nx oom_kill 3\n", other);
    CHECK(other == Usage{});
}

TEST_CASE("block devices: v1's two files come together by device, v2 has one line for each") {
    std::vector<BlockUsage> v1;
    detail::parse_block_v1(
        "8:0 Read 4096\n8:0 Write 8192\n8:0 Sync 1\n8:0 Async 2\n8:0 Discard 0\n8:0 Total 12288\n7:3 Read 512\n"
        "7:3 Write 0\n7:3 Total 512\nTotal 12800\n",
        &BlockUsage::read_bytes, &BlockUsage::write_bytes, v1);
    detail::parse_block_v1("7:3 Read 1\n7:3 Write 0\n8:0 Read 2\n8:0 Write 3\nTotal 6\n", &BlockUsage::read_operations,
                           &BlockUsage::write_operations, v1);
    CHECK(v1 == std::vector<BlockUsage>{{8, 0, 4096, 8192, 2, 3}, {7, 3, 512, 0, 1, 0}});
    std::vector<BlockUsage> v2;
    detail::parse_block_v2(
        "8:0 rbytes=4096 wbytes=8192 rios=2 wios=3 dbytes=0 dios=0\n259:1 \n"
        "7:3 rbytes=512 wbytes=0 rios=1 wios=0 dbytes=0 dios=0 cost.usage=7\n",
        v2);
    CHECK(v2 == v1);
    std::vector<BlockUsage> none;
    detail::parse_block_v1("Total 0\n", &BlockUsage::read_bytes, &BlockUsage::write_bytes, none);
    CHECK(none.empty());
}

TEST_CASE("pressure: microseconds, and shares in hundredths of a percent") {
    const auto pressure = detail::parse_pressure(
        "some avg10=1.53 avg60=0.80 avg300=0.10 total=58761459\nfull avg10=100.00 avg60=0.13 avg300=0.96 total=7\n");
    CHECK(pressure == Pressure{58761459, 7, 153, 10000});
    CHECK(detail::parse_pressure("some avg10=0.07 avg60=0.00 avg300=0.00 total=12\n") == Pressure{12, 0, 7, 0});
    CHECK_FALSE(detail::parse_pressure(""));
    CHECK_FALSE(detail::parse_pressure("nonsense\n"));
    CHECK(detail::parse_pressure("some avg10=1.5 total=x\nfull avg10=x.yz total=-1") == Pressure{});
}

TEST_CASE("texts that are cut off or mangled give no more figures than they have words") {
    const std::string_view texts[] = {
        "1000 0 234 \n"sv,
        "usage_usec 1500\nuser_usec 1000\nthrottled_usec 77\n"sv,
        "total_cache 4096\ntotal_rss 8192\noom_kill 3\nmax 2\n"sv,
        "8:0 Read 4096\n8:0 Write 8192\nTotal 12288\n"sv,
        "8:0 rbytes=4096 wbytes=8192 rios=2 wios=3\n"sv,
        "some avg10=1.53 avg60=0.80 avg300=0.10 total=58761459\n"sv,
    };
    for (const std::string_view text : texts) {
        for (std::size_t at = 0; at < text.size(); ++at) {
            for (const char byte : {'\0', '\n', ' ', ':', '=', '.', '9', '-', '\xff'}) {
                std::string mangled{text};
                mangled[at] = byte;
                for (const std::string& one : {mangled, mangled.substr(0, at), mangled.substr(at)}) {
                    Usage usage;
                    (void)detail::parse_number(one);
                    (void)detail::parse_memory_limit(one, 4096);
                    detail::parse_cpu_each(one, usage);
                    detail::parse_cpu_ticks(one, 10'000'000, usage);
                    detail::parse_cpu_stat(one, true, usage);
                    detail::parse_throttled(one, usage);
                    (void)detail::parse_memory_stat(one, 4096, usage);
                    detail::parse_memory_events(one, usage);
                    detail::parse_block_v1(one, &BlockUsage::read_bytes, &BlockUsage::write_bytes, usage.block);
                    detail::parse_block_v2(one, usage.block);
                    (void)detail::parse_pressure(one);
                    REQUIRE(usage.cpu_each.size() <= one.size() / 2 + 1);
                    REQUIRE(usage.block.size() <= 3);
                }
            }
        }
    }
}

TEST_CASE("a number is found by its key, and by the whole of it") {
    const std::string_view text = "oom 2\noom_kill 17\noom_group_kill 3\n";
    CHECK(detail::find_number(text, "oom_kill") == 17);
    CHECK(detail::find_number(text, "oom_group_kill") == 3);
    CHECK_FALSE(detail::find_number(text, "oom_"));
    CHECK_FALSE(detail::find_number("oom_kill many\n", "oom_kill"));
    CHECK_FALSE(detail::find_number("", "oom_kill"));
}
