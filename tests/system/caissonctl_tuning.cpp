// caissonctl's memtune, schedinfo, blkiotune, setmem and setmaxmem: as virsh prints and refuses, and in force.
#include "support/doctest.hpp"

#include <string>
#include <utility>
#include <vector>

#include <glob.h>
#include <unistd.h>

#include "support/cgroup.hpp"
#include "support/domains.hpp"
#include "support/machine.hpp"

using namespace caisson_test;

namespace {

void check_refused(const Outcome& outcome, const std::string& printed, const std::string& error) {
    CHECK(outcome.status == 1);
    CHECK(outcome.out == printed + "\n");
    CHECK(outcome.err == error);
}
std::string memory(const std::string& hard, const std::string& soft, const std::string& swap) {
    return "hard_limit     : " + hard + "\nsoft_limit     : " + soft + "\nswap_hard_limit: " + swap + "\n";
}
std::string scheduler(const std::string& shares, const std::string& period, const std::string& quota) {
    return "Scheduler      : posix\ncpu_shares     : " + shares + "\nvcpu_period    : " + period +
           "\nvcpu_quota     : " + quota + "\n";
}
/// Of a document: what stands between these two.
std::string part(const std::string& text, const std::string& from, const std::string& to) {
    const std::size_t at = text.find(from);
    return at == std::string::npos ? "none" : text.substr(at, text.find(to, at) - at);
}

constexpr const char* not_running = "error: Requested operation is not valid: domain is not running\n";

}  // namespace

TEST_CASE("wrong use of the tuning verbs is told in virsh's own words, and so is their help") {
    const LeavesNothing nothing;
    const Domains ctl;
    const std::pair<Words, std::string> cases[] = {
        {{"memtune"}, "command 'memtune' requires <domain> option"},
        {{"setmem"}, "command 'setmem' requires <domain> option\nerror: command 'setmem' requires --size option"},
        {{"setmem", "x"}, "command 'setmem' requires --size option"},
        {{"setmem", "x", "1", "2"}, "unexpected data '2'"},
        {{"memtune", "x", "1", "2", "3", "4", "5"}, "unexpected data '5'"},
        {{"memtune", "x", "--hard-limit"}, "expected syntax: --hard-limit <number>"},
        {{"memtune", "x", "1", "--hard-limit", "2"}, "option --hard-limit already seen"},
        {{"schedinfo", "x", "--set"}, "expected syntax: --set <string>"},
        {{"schedinfo", "x", "--bogus"}, "command 'schedinfo' doesn't support option --bogus"},
        {{"blkiotune", "x", "--live=1"}, "invalid '=' after option --live"},
        {{"memtune", "x"}, "failed to get domain 'x'"},
        {{"setmem", "x", "y"}, "failed to get domain 'x'"},
        {{"setmaxmem", "x", "1"}, "failed to get domain 'x'"},
        {{"schedinfo", "x", "a", "b", "--set", "c"}, "failed to get domain 'x'"},
        {{"blkiotune", "x"}, "failed to get domain 'x'"},
        {{"memtune", "x", "--live", "--current"}, "Options --current and --live are mutually exclusive"},
        {{"setmem", "x", "1", "--config", "--current"}, "Options --current and --config are mutually exclusive"},
        {{"setmaxmem", "x", "1", "--live", "--current"}, "Options --current and --live are mutually exclusive"},
        {{"blkiotune", "x", "--live", "--current"}, "Options --current and --live are mutually exclusive"},
        {{"schedinfo", "x", "--live", "--current"}, "Options --current and --live are mutually exclusive"},
    };
    const bool virsh = run({"virsh", "--version"}).status == 0;
    for (const auto& [words, error] : cases) {
        const Outcome ours = ctl(words);
        CHECK(ours.status == 1);
        CHECK(ours.err == "error: " + error + "\n");
        if (!virsh) continue;
        Words all{"virsh", "-c", "test:///default"};
        all.insert(all.end(), words.begin(), words.end());
        const Outcome theirs = run(all);
        CHECK(ours.status == theirs.status);
        CHECK(ours.out == theirs.out);
        CHECK(ours.err == theirs.err);
    }
    CHECK(has(ctl({"help", "memtune"}).out, "    memtune <domain> [--hard-limit <number>] [--soft-limit <number>] "));
    CHECK(has(ctl({"help", "schedinfo"}).out, " [--live] [[--set] <string>]...\n"));
    for (const char* verb : {"setmem", "setmaxmem", "schedinfo"}) {
        if (virsh) CHECK(ctl({"help", verb}).out == run({"virsh", "help", verb}).out);
    }
}

TEST_CASE("a definition's memory limits are shown and changed as virsh does it") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    Domains ctl;
    REQUIRE(ctl({"define", ctl.describe("web", "", 100000)}).status == 0);
    const auto inactive = [&] { return part(ctl({"dumpxml", "web"}).out, "  <memory ", "  <vcpu"); };

    check_said(ctl({"memtune", "web"}), memory("unlimited", "unlimited", "unlimited"));
    check_said(ctl({"memtune", "web", "--hard-limit", "90M", "--soft-limit", "1025b", "--swap-hard-limit", "200MB"}),
               "");
    check_said(ctl({"memtune", "web", "--config"}), memory("92160", "2", "195313"));
    CHECK(inactive() ==
          "  <memory unit='KiB'>100000</memory>\n  <currentMemory unit='KiB'>100000</currentMemory>\n  <memtune>\n"
          "    <hard_limit unit='KiB'>92160</hard_limit>\n    <soft_limit unit='KiB'>2</soft_limit>\n"
          "    <swap_hard_limit unit='KiB'>195313</swap_hard_limit>\n  </memtune>\n");
    const std::string unchanged = "error: Unable to change memory parameters\nerror: ";
    const std::pair<Words, std::string> wrong[] = {
        {{"--swap-hard-limit", "92159"},
         unchanged + "invalid argument: memory hard_limit tunable value must be lower than or equal to "
                     "swap_hard_limit: 92160 is more than 92159"},
        {{"--hard-limit", "195314"},
         unchanged + "invalid argument: memory hard_limit tunable value must be lower than or equal to "
                     "swap_hard_limit: 195314 is more than 195313"},
        {{"--hard-limit", "-1"},
         unchanged + "invalid argument: memory hard_limit tunable value must be lower than or equal to "
                     "swap_hard_limit: unlimited is more than 195313"},
        {{"--soft-limit", "92161"},
         unchanged + "invalid argument: memory soft_limit tunable value must be lower than or equal to hard_limit: "
                     "92161 is more than 92160"},
        {{"--hard-limit", "0"},
         unchanged + "invalid argument: hard_limit '0' must be at least 1 KiB, or -1 for no limit"},
        {{"--min-guarantee", "1"}, unchanged + "argument unsupported: parameter 'min_guarantee' not supported"},
        {{"--live", "--hard-limit", "5"}, unchanged + "Requested operation is not valid: domain is not running"},
        {{"--hard-limit", ""}, "error: Unable to parse integer parameter hard-limit"},
        {{"--hard-limit", "x"}, "error: Unable to parse integer parameter hard-limit"},
        {{"--hard-limit", "99999999999999999999"}, "error: Unable to parse integer parameter hard-limit"},
        {{"--soft-limit", "1.5"},
         "error: Unable to parse integer parameter soft-limit\nerror: invalid argument: unknown suffix '.5'"},
        {{"--swap-hard-limit", "99999999999999999"},
         "error: Unable to parse integer parameter swap-hard-limit\nerror: numerical overflow: value too large: "
         "99999999999999999"},
        {{"--live"},
         "error: Unable to get number of memory parameters\nerror: Requested operation is not valid: domain is not "
         "running"},
        {{"--live", "--config"},
         "error: Unable to get number of memory parameters\nerror: Flags 'VIR_DOMAIN_AFFECT_LIVE' and "
         "'VIR_DOMAIN_AFFECT_CONFIG' are mutually exclusive"},
    };
    for (const auto& [options, error] : wrong) {
        Words words{"memtune", "web"};
        words.insert(words.end(), options.begin(), options.end());
        check_error(ctl(words), error + "\n");
    }
    check_said(ctl({"memtune", "web"}), memory("92160", "2", "195313"));
    check_said(ctl({"memtune", "web", "-1", "-1", "9007199254740991", "--config"}), "");
    CHECK(inactive() == "  <memory unit='KiB'>100000</memory>\n  <currentMemory unit='KiB'>100000</currentMemory>\n");

    check_said(ctl({"setmem", "web", "--size", "50M", "--config"}), "");
    CHECK(has(inactive(), "<currentMemory unit='KiB'>51200<"));
    check_error(ctl({"setmem", "web", "5000", "--live"}), not_running);
    check_error(ctl({"setmem", "web", "100001"}),
                "error: invalid argument: Cannot set memory higher than max memory: 100001 KiB is more than 100000 "
                "KiB\n");
    check_error(ctl({"setmem", "web", "0"}), "error: memory in virDomainSetMemoryFlags must not be zero\n");
    check_error(ctl({"setmem", "web", "5foo"}),
                "error: Scaled numeric value '5foo' for <size> option is malformed or out of range\n"
                "error: invalid argument: unknown suffix 'foo'\n");
    check_error(ctl({"setmem", "web", "--", "-5"}),
                "error: Scaled numeric value '-5' for <size> option is malformed or out of range\n");
    check_said(ctl({"setmaxmem", "web", "40000"}), "");
    CHECK(inactive() == "  <memory unit='KiB'>40000</memory>\n  <currentMemory unit='KiB'>40000</currentMemory>\n");
    check_error(ctl({"setmaxmem", "web", "0"}),
                "error: Unable to change MaxMemorySize\nerror: memory in virDomainSetMemoryFlags must not be zero\n");
    check_error(ctl({"setmaxmem", "web", "5", "--live"}),
                "error: Unable to change MaxMemorySize\n" + std::string{not_running});
}

TEST_CASE("a definition's shares, period and quota are shown and changed as virsh does it") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    Domains ctl;
    REQUIRE(ctl({"define", ctl.describe("web")}).status == 0);
    check_said(ctl({"schedinfo", "web"}), scheduler("0", "0", "0"));
    check_said(ctl({"schedinfo", "web", "cpu_shares=300", "--set", "vcpu_quota=20000", "--config"}),
               scheduler("300", "0", "20000"));
    check_said(ctl({"schedinfo", "web", "--set", "vcpu_period=50000", "vcpu_quota=-7"}),
               scheduler("300", "50000", "-1"));
    CHECK(part(ctl({"dumpxml", "web"}).out, "  <cputune>", "  <os>") ==
          "  <cputune>\n    <shares>300</shares>\n    <period>50000</period>\n    <quota>-1</quota>\n  </cputune>\n");
    const std::pair<Words, std::string> wrong[] = {
        {{"cpu_shares=1"}, "invalid argument: cpu_shares '1' must be in range [2, 262144]"},
        {{"cpu_shares=262145"}, "invalid argument: cpu_shares '262145' must be in range [2, 262144]"},
        {{"cpu_shares=18446744073709551615"},
         "invalid argument: cpu_shares '18446744073709551615' must be in range [2, 262144]"},
        {{"vcpu_period=999"}, "invalid argument: vcpu_period '999' must be in range [1000, 1000000]"},
        {{"vcpu_quota=0"}, "invalid argument: vcpu_quota '0' must be -1 or in range [1000, 17592186044415]"},
        {{"vcpu_quota=17592186044416"},
         "invalid argument: vcpu_quota '17592186044416' must be -1 or in range [1000, 17592186044415]"},
        {{"vcpu_quota=18446744073709551615"},
         "invalid argument: vcpu_quota '18446744073709551615' must be -1 or in range [1000, 17592186044415]"},
        {{"vcpu_quota=x"}, "invalid argument: Invalid value for field 'vcpu_quota': expected long long"},
        {{"cpu_shares=-5"}, "invalid argument: Invalid value for field 'cpu_shares': expected unsigned long long"},
        {{"cpu_shares=5", "cpu_shares=6"}, "invalid argument: parameter 'cpu_shares' occurs multiple times"},
        {{"cpu_shares"}, "Invalid syntax for --set, expecting name=value"},
        {{"=5"}, "Invalid syntax for --set, expecting name=value"},
        {{"emulator_period=100000"}, "invalid scheduler option: emulator_period"},
        {{"--weight", "5"}, "invalid scheduler option: weight"},
        {{"--live"}, "Requested operation is not valid: domain is not running"},
        {{"--live", "--config"}, "cannot query both live and config at once"},
    };
    for (const auto& [options, error] : wrong) {
        Words words{"schedinfo", "web"};
        words.insert(words.end(), options.begin(), options.end());
        check_refused(ctl(words), "Scheduler      : posix\n", "error: " + error + "\n");
    }
    check_said(ctl({"schedinfo", "web"}), scheduler("300", "50000", "-1"));
}

TEST_CASE("a definition's block devices are shown and changed as virsh does it") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    Domains ctl;
    REQUIRE(ctl({"define", ctl.describe("web")}).status == 0);
    const auto shown = [](const std::string& weight, const std::string& weights, const std::string& writes,
                          const std::string& bytes) {
        return "weight         : " + weight + "\ndevice_weight  : " + weights +
               "\ndevice_read_iops_sec: \ndevice_write_iops_sec: " + writes + "\ndevice_read_bytes_sec: " + bytes +
               "\ndevice_write_bytes_sec: \n";
    };
    check_said(ctl({"blkiotune", "web"}), shown("0", "", "", ""));
    check_said(ctl({"blkiotune", "web", "250", "--device-weights", "/dev/vda,500,/dev/vdb,300"}), "");
    check_said(
        ctl({"blkiotune", "web", "--device-read-bytes-sec", "/dev/vda,1000", "--device-write-iops-sec", "/dev/vdc,7"}),
        "");
    check_said(ctl({"blkiotune", "web"}), shown("250", "/dev/vda,500,/dev/vdb,300", "/dev/vdc,7", "/dev/vda,1000"));
    check_said(ctl({"blkiotune", "web", "--device-weights", "/dev/vda,0,/dev/vdb,0", "--config"}), "");
    CHECK(part(ctl({"dumpxml", "web"}).out, "  <blkiotune>", "  <vcpu") ==
          "  <blkiotune>\n    <weight>250</weight>\n    <device>\n      <path>/dev/vda</path>\n"
          "      <read_bytes_sec>1000</read_bytes_sec>\n    </device>\n    <device>\n      <path>/dev/vdc</path>\n"
          "      <write_iops_sec>7</write_iops_sec>\n    </device>\n  </blkiotune>\n");
    const std::string unchanged = "error: Unable to change blkio parameters\nerror: ";
    const std::pair<Words, std::string> wrong[] = {
        {{"--weight", "0"}, "error: Invalid value of 0 for I/O weight"},
        {{"--weight", "-1"}, "error: Invalid value of -1 for I/O weight"},
        {{"--weight", "x"}, "error: Numeric value 'x' for <weight> option is malformed or out of range"},
        {{"--weight", "99"}, unchanged + "invalid argument: weight '99' must be in range [100, 1000]"},
        {{"--device-weights", ""}, "error: Unable to parse string parameter"},
        {{"--device-weights", "/dev/vda"},
         unchanged + "invalid argument: unable to parse blkio device 'device_weight' '/dev/vda'"},
        {{"--device-weights", "/dev/vda,500,"},
         unchanged + "invalid argument: unable to parse blkio device 'device_weight' '/dev/vda,500,'"},
        {{"--device-weights", "vda,500"},
         unchanged + "invalid argument: unable to parse blkio device 'device_weight' 'vda,500': 'vda' is not the "
                     "absolute path of a device"},
        {{"--device-weights", "/dev/vda,-5"},
         unchanged + "invalid argument: invalid value '-5' for parameter 'device_weight' of device '/dev/vda'"},
        {{"--device-weights", "/dev/vda,1001"},
         unchanged + "invalid argument: device_weight '1001' of device '/dev/vda' must be in range [100, 1000]"},
        {{"--device-read-iops-sec", "/dev/vda,4294967296"},
         unchanged + "invalid argument: invalid value '4294967296' for parameter 'device_read_iops_sec' of device "
                     "'/dev/vda'"},
        {{"--live"},
         "error: Unable to get number of blkio parameters\nerror: Requested operation is not valid: domain is not "
         "running"},
    };
    for (const auto& [options, error] : wrong) {
        Words words{"blkiotune", "web"};
        words.insert(words.end(), options.begin(), options.end());
        check_error(ctl(words), error + "\n");
    }
}

TEST_CASE("a running domain's limits are changed, read from the kernel, and shown by its own document alone") {
    if (::geteuid() != 0) CAISSON_SKIP("this needs root");
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    Domains ctl;
    const std::string limits =
        "<memtune><soft_limit>40000</soft_limit></memtune><cputune><shares>512</shares></cputune>";
    REQUIRE(ctl({"define", ctl.describe("web", "", 65536, "/sbin/init", "", limits)}).status == 0);
    REQUIRE(ctl({"start", "web"}).status == 0);
    const std::string before = ctl({"dumpxml", "--inactive", "web"}).out;
    const auto live = [&] { return ctl({"dumpxml", "web"}).out; };

    CHECK(has(ctl({"memtune", "web"}).out, "hard_limit     : 65536\nsoft_limit     : 40000\n"));
    check_said(ctl({"memtune", "web", "--hard-limit", "50M", "--soft-limit", "-1"}), "");
    CHECK(has(ctl({"memtune", "web"}).out, "hard_limit     : 51200\nsoft_limit     : unlimited\n"));
    CHECK(part(live(), "  <memtune>", "  <vcpu") ==
          "  <memtune>\n    <hard_limit unit='KiB'>51200</hard_limit>\n  </memtune>\n");
    check_said(ctl({"memtune", "web", "--config"}), memory("unlimited", "40000", "unlimited"));

    check_said(ctl({"setmem", "web", "49152"}), "");
    CHECK(has(ctl({"memtune", "web"}).out, "hard_limit     : 49152\n"));
    CHECK(has(live(), "<currentMemory unit='KiB'>49152<"));
    check_error(ctl({"setmem", "web", "51201"}),
                "error: invalid argument: Cannot set memory higher than hard_limit: 51201 KiB is more than 51200 "
                "KiB\n");
    check_error(ctl({"setmaxmem", "web", "51200"}),
                "error: Unable to change MaxMemorySize\nerror: Requested operation is not valid: Cannot resize the "
                "max memory on an active domain\n");
    CHECK(ctl({"dumpxml", "--inactive", "web"}).out == before);

    check_said(ctl({"schedinfo", "web"}), scheduler("512", "100000", "-1"));
    check_said(ctl({"schedinfo", "web", "vcpu_quota=20000", "cpu_shares=2048", "--live", "--config"}),
               scheduler("2048", "100000", "20000"));
    check_said(ctl({"schedinfo", "web", "--config"}), scheduler("2048", "0", "20000"));
    CHECK(part(live(), "  <cputune>", "  <os>") ==
          "  <cputune>\n    <shares>2048</shares>\n    <quota>20000</quota>\n  </cputune>\n");
    check_said(ctl({"schedinfo", "web", "vcpu_quota=-1"}), scheduler("2048", "100000", "-1"));

    // What the kernel refuses changes no document, the definition's neither.
    const std::string document = live();
    const Outcome refused = ctl({"blkiotune", "web", "--live", "--config", "--device-read-bytes-sec", "/dev/none,1"});
    CHECK(refused.status == 1);
    CHECK(refused.err.starts_with("error: Unable to change blkio parameters\nerror: container 'web': "));
    CHECK(has(refused.err, "'/dev/none'"));
    CHECK(live() == document);
    CHECK_FALSE(has(ctl({"dumpxml", "--inactive", "web"}).out, "blkiotune"));
    check_said(ctl({"blkiotune", "web"}),
               "weight         : 0\ndevice_weight  : \ndevice_read_iops_sec: \ndevice_write_iops_sec: \n"
               "device_read_bytes_sec: \ndevice_write_bytes_sec: \n");

    CHECK(ctl({"undefine", "web"}).status == 0);
    check_error(ctl({"memtune", "web", "--config"}),
                "error: Unable to get number of memory parameters\nerror: Requested operation is not valid: transient "
                "domains do not have any persistent config\n");
    REQUIRE(ctl({"destroy", "web"}).status == 0);
}

TEST_CASE("a domain's partition holds its control groups, and is the administrator's to make") {
    if (::geteuid() != 0) CAISSON_SKIP("this needs root");
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    Domains ctl;
    const auto describe = [&](const std::string& partition) {
        return ctl.describe("web", "", 50000, "/sbin/init", "",
                            "<resource><partition>" + partition + "</partition></resource>");
    };
    const std::string partition = "/caisson-test-parent-" + std::to_string(::getpid());
    const Outcome missing = ctl({"create", describe(partition)});
    CHECK(missing.status == 1);
    CHECK(has(missing.err, partition + ".partition' does not exist: make it first\n"));
    {
        const OwnParent parent{".partition"};
        REQUIRE(ctl({"create", describe(partition)}).status == 0);
        for (const std::string& path : parent.paths) {
            glob_t found{};
            CHECK(::glob((path + "/caisson.web.*").c_str(), 0, nullptr, &found) == 0);
            ::globfree(&found);
        }
        CHECK(has(ctl({"dumpxml", "web"}).out, "<partition>" + partition + "</partition>"));
        CHECK(ctl({"destroy", "web"}).status == 0);
    }
    REQUIRE(ctl({"create", describe("/machine")}).status == 0);
    CHECK(ctl({"destroy", "web"}).status == 0);
}
