#include "events.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <climits>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <caisson/detail/owner.hpp>
#include <caisson/detail/sys.hpp>
#include <caisson/fd.hpp>
#include <caisson/helper.hpp>

#include "failure.hpp"

namespace caissonctl {
namespace {

namespace xml = caisson::xml;
using caisson::Event;
using caisson::Fd;
using caisson::Helper;
using Clock = std::chrono::steady_clock;

constexpr std::array types{"lifecycle", "reboot", "metadata-change"};
constexpr std::chrono::milliseconds soon{2};      // until a helper that has just begun is asked for again
constexpr std::chrono::milliseconds later{1000};  // until one that refuses is
// Until one that does not answer is: for its answer everything else waits.
constexpr std::chrono::milliseconds late{60'000};

/// One line of output, without its time.
struct Message {
    std::string type;
    std::string domain;
    std::string what;  ///< behind the colon; empty: nothing
};

Message lifecycle(const std::string& domain, const char* what) {
    return {"lifecycle", domain, what};
}
Message metadata_change(const std::string& domain, const char* type, const std::string& uri = "<null>") {
    return {"metadata-change", domain, std::string{"type "} + type + ", uri " + uri};
}

/// What applications and people may say about a domain, as far as it has changed.
std::vector<Message> changes_of_metadata(const xml::Domain& before, const xml::Domain& after) {
    std::vector<Message> all;
    if (before.description != after.description) all.push_back(metadata_change(after.name, "description"));
    if (before.title != after.title) all.push_back(metadata_change(after.name, "title"));
    const auto differ = [&](const xml::Domain& a, const xml::Domain& b, bool both) {
        for (const xml::Metadata& kept : a.metadata) {
            const auto other = std::ranges::find(b.metadata, kept.uri, &xml::Metadata::uri);
            const bool there = other != b.metadata.end();
            if (there ? both && *other != kept : true) all.push_back(metadata_change(after.name, "element", kept.uri));
        }
    };
    differ(after, before, true);
    differ(before, after, false);
    return all;
}

std::vector<Message> changes_of_definition(const xml::Domain& before, xml::Domain after) {
    std::vector<Message> all = changes_of_metadata(before, after);
    after.title = before.title;
    after.description = before.description;
    after.metadata = before.metadata;
    if (after != before || all.empty()) return {lifecycle(after.name, "Defined Updated")};
    return all;
}

const char* end_of(caisson::ExitStatus status) {
    if (status.signal() == SIGKILL && !status.out_of_memory()) return "Stopped Destroyed";
    return caisson::end_kind(status) == caisson::EndKind::crash ? "Stopped Crashed" : "Stopped Shutdown";
}

/// All that happens to the definitions and to what runs, from the moment on when it is made.
class Watch {
public:
    explicit Watch(const Domains& domains) : domains_{domains} {
        // Who waits for the first domain finds no directory to watch.
        const std::string state = domains.store().directory();
        (void)domains.store().lock();
        (void)::mkdir(domains.run_directory().c_str(), 0700);
        if (!inotify_) caisson::detail::fail(caisson::Step::event_loop, "inotify");
        store_ = add(state, IN_MOVED_TO | IN_DELETE);
        // A directory that a killed helper has left is used again: its mode is then set.
        run_ = add(domains.run_directory(), IN_CREATE | IN_ATTRIB);
        for (const std::string& name : domains.store().names()) definitions_[name] = definition(name);
        for (const std::string& name : Helper::list(domains.run_directory())) meet(name);
        take_files(before_);
        // Whatever else happens to its directory, it is not its start.
        for (const auto& [name, one] : running_) one->is_told = !beginning_.contains(name);
    }

    /// What poll(2) is to wait for, and for how long at most.
    [[nodiscard]] std::vector<pollfd> descriptors() const {
        std::vector<pollfd> all{{inotify_.get(), POLLIN, 0}};
        for (const auto& [name, one] : running_) all.push_back({one->helper.fd(), POLLIN, 0});
        return all;
    }
    [[nodiscard]] int patience() const {
        if (beginning_.empty()) return -1;
        Clock::time_point next = Clock::time_point::max();
        for (const auto& [name, one] : beginning_) next = std::min(next, one.when);
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(next - Clock::now());
        return static_cast<int>(std::max(left, soon).count());
    }

    /// What has happened since the last call.
    [[nodiscard]] std::vector<Message> take() {
        std::vector<Message> all = std::exchange(before_, {});
        take_files(all);
        const auto take_running = [&] {
            std::erase_if(running_, [&](auto& entry) { return !take_events(entry.first, *entry.second, all); });
        };
        // Before one that has taken the same name.
        take_running();
        for (auto at = beginning_.begin(); at != beginning_.end();) {
            if (is_settled(at->first, at->second, all)) at = beginning_.erase(at);
            else ++at;
        }
        take_running();
        return all;
    }

private:
    /// A directory of RUN, and whose it is: another's once the name is taken again.
    struct Place {
        ino_t inode = 0;  // none: it is not there
        std::optional<caisson::detail::Owner> owner{};
        friend bool operator==(const Place&, const Place&) = default;
    };
    /// Whose helper has not answered yet.
    struct Beginning {
        Clock::time_point when{};  // it is asked next
        bool is_told = false;      // it was there before
    };
    struct Running {
        Helper helper;
        Place place;
        std::optional<xml::Domain> domain{};  // as its note says
        bool rebooting = false;               // the start that comes is no other event
        bool has_failed = false;              // to start again
        bool is_told = false;                 // its start, where it was not there before
    };

    [[nodiscard]] int add(const std::string& directory, std::uint32_t what) const {
        const int number = ::inotify_add_watch(inotify_.get(), directory.c_str(), what | IN_ONLYDIR);
        if (number < 0) caisson::detail::fail(caisson::Step::event_loop, "watch directory " + quoted(directory));
        return number;
    }
    [[nodiscard]] std::optional<xml::Domain> definition(const std::string& name) const {
        try {
            return domains_.defined(name);
        } catch (const std::exception&) {
            return std::nullopt;  // it is damaged, or has just gone
        }
    }
    static std::optional<xml::Domain> described(Helper& helper) {
        try {
            return xml::parse(helper.info().note, helper.name());
        } catch (const caisson::Error&) {
            return std::nullopt;
        }
    }
    [[nodiscard]] Place place(const std::string& name) const {
        const std::string path = domains_.run_directory() + "/" + name;
        const Fd directory = caisson::detail::sys::open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
        Place found;
        struct stat st {};
        if (directory && ::fstat(directory.get(), &st) == 0) {
            errno = 0;
            found = {st.st_ino, caisson::detail::Owner::recorded_in(directory.get(), "owner")};
        }
        // Who has no descriptor left to look with has seen nothing.
        if (!found.owner && caisson::detail::sys::is_shortage(errno)) {
            caisson::detail::fail(caisson::Step::helper, "directory " + quoted(path), "raise 'ulimit -n'");
        }
        return found;
    }
    /// Nothing for one that is not there (yet), or does not answer; `next` is when it is to be asked again.
    [[nodiscard]] std::optional<Helper> find(const std::string& name, const Place& there,
                                             Clock::time_point& next) const {
        try {
            auto helper = Helper::find(name, domains_.run_directory());
            if (!helper) return std::nullopt;
            helper->watch();
            // Else it may be another's, who has taken the name meanwhile.
            if (there.inode == 0 || place(name) != there) return std::nullopt;
            return helper;
        } catch (const caisson::Error& e) {
            const int code = e.code().value();
            if (caisson::detail::sys::is_shortage(code)) throw;
            // It hides nothing of the others'.
            if (code != ESRCH) next = Clock::now() + (code == ETIMEDOUT || code == EAGAIN ? late : later);
            return std::nullopt;
        }
    }
    bool meet(const std::string& name, Beginning& beginning) {
        const Place there = place(name);
        auto helper = find(name, there, beginning.when);
        if (!helper) return false;
        auto one = std::make_unique<Running>(Running{std::move(*helper), there});
        one->domain = described(one->helper);
        running_[name] = std::move(one);
        return true;
    }
    /// True once it runs, and that was told, or once it is known that it does not.
    bool is_settled(const std::string& name, Beginning& beginning, std::vector<Message>& all) {
        if (beginning.when > Clock::now()) return false;
        const Place now = place(name);
        const auto known = running_.find(name);
        if (known != running_.end() && known->second->place != now) return false;
        if (known != running_.end() || meet(name, beginning)) {
            const bool was_told = std::exchange(running_[name]->is_told, true) || beginning.is_told;
            if (!was_told) all.push_back(lifecycle(name, "Started Booted"));
            return true;
        }
        return now.inode == 0 || (now.owner && now.owner->is_dead());
    }
    /// From the start on.
    void meet(const std::string& name) {
        Beginning beginning{.is_told = true};
        if (!meet(name, beginning) && beginning.when != Clock::time_point{}) beginning_[name] = beginning;
    }

    void take_files(std::vector<Message>& all) {
        alignas(inotify_event) char buffer[8192];
        for (ssize_t size; (size = ::read(inotify_.get(), buffer, sizeof buffer)) > 0;) {
            for (ssize_t at = 0; at < size;) {
                inotify_event event;
                std::memcpy(&event, buffer + at, sizeof event);
                const char* const file = buffer + at + sizeof event;
                at += static_cast<ssize_t>(sizeof event + event.len);
                if (event.len == 0) continue;
                if (event.wd == run_ && caisson::is_valid_name(file)) beginning_[file] = {};
                if (event.wd == store_) take_definition(file, (event.mask & IN_DELETE) != 0, all);
            }
        }
    }
    void take_definition(std::string_view file, bool gone, std::vector<Message>& all) {
        if (!file.ends_with(".xml")) return;
        const std::string name{file.substr(0, file.size() - 4)};
        if (!caisson::is_valid_name(name)) return;
        if (gone) {
            if (definitions_.erase(name) == 0) return;
            all.push_back(lifecycle(name, renamed_.erase(name) > 0 ? "Undefined Renamed" : "Undefined Removed"));
            return;
        }
        auto now = definition(name);
        const auto [known, is_new] = definitions_.try_emplace(name);
        const auto before = std::exchange(known->second, now);
        if (!is_new) {
            auto changes =
                before && now ? changes_of_definition(*before, *now) : std::vector{lifecycle(name, "Defined Updated")};
            all.insert(all.end(), changes.begin(), changes.end());
            return;
        }
        const auto namesake = std::ranges::find_if(definitions_, [&](const auto& other) {
            return other.first != name && now && other.second && other.second->uuid == now->uuid;
        });
        if (namesake != definitions_.end()) renamed_.insert(namesake->first);
        all.push_back(lifecycle(name, namesake != definitions_.end() ? "Defined Renamed" : "Defined Added"));
    }

    /// False once it has ended.
    bool take_events(const std::string& name, Running& one, std::vector<Message>& all) {
        try {
            while (const auto event = one.helper.next_event()) take_event(name, one, *event, all);
            const auto status = one.helper.try_wait();
            if (!status) return true;
            all.push_back(lifecycle(name, one.has_failed ? "Stopped Failed" : end_of(*status)));
        } catch (const caisson::Error&) {
            // The helper has let this program go.
            if (watch_again(name, one)) return true;
            all.push_back(lifecycle(name, "Stopped Failed"));
        }
        return false;
    }
    /// False where it has ended since; whoever has its name then is met as one that begins.
    bool watch_again(const std::string& name, Running& one) {
        Beginning beginning;
        auto again = find(name, one.place, beginning.when);
        if (again) one.helper = std::move(*again);
        else beginning_[name] = beginning;
        return again.has_value();
    }
    static void take_event(const std::string& name, Running& one, const Event& event, std::vector<Message>& all) {
        switch (event.kind) {
            case Event::Kind::suspended: all.push_back(lifecycle(name, "Suspended Paused")); break;
            case Event::Kind::resumed: all.push_back(lifecycle(name, "Resumed Unpaused")); break;
            case Event::Kind::rebooted:
                one.rebooting = true;
                all.push_back({"reboot", name, ""});
                break;
            case Event::Kind::restarting:
                if (!one.rebooting) all.push_back(lifecycle(name, end_of(*event.status)));
                break;
            case Event::Kind::started:
                if (!std::exchange(one.rebooting, false)) all.push_back(lifecycle(name, "Started Booted"));
                break;
            case Event::Kind::failed: one.has_failed = true; break;
            case Event::Kind::noted: {
                auto now = described(one.helper);
                const auto before = std::exchange(one.domain, now);
                if (!before || !now) break;
                auto changes = changes_of_metadata(*before, *now);
                all.insert(all.end(), changes.begin(), changes.end());
                break;
            }
            default: break;  // what libvirt has no event of a container for
        }
    }

    const Domains& domains_;
    Fd inotify_{::inotify_init1(IN_CLOEXEC | IN_NONBLOCK)};
    int store_ = -1;
    int run_ = -1;
    std::map<std::string, std::optional<xml::Domain>> definitions_;
    std::set<std::string> renamed_;  // whose definition stands under another name, too
    std::map<std::string, Beginning> beginning_;
    std::vector<Message> before_;  // taken before the first was asked for
    std::map<std::string, std::unique_ptr<Running>> running_;
};

/// "2026-11-26 07:00:00.123+0000".
std::string timestamp() {
    timespec now{};
    (void)::clock_gettime(CLOCK_REALTIME, &now);
    tm parts{};
    (void)::gmtime_r(&now.tv_sec, &parts);
    std::array<char, 64> text;
    const std::size_t size = std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S", &parts);
    std::array<char, 16> rest;
    std::snprintf(rest.data(), rest.size(), ".%03d+0000", static_cast<int>(now.tv_nsec / 1'000'000));
    return std::string{text.data(), size} + rest.data();
}

void refuse_both(const Arguments& arguments, const char* a, const char* b) {
    if (!arguments.has(a) || !arguments.has(b)) return;
    throw Failure{std::string{"Options --"} + a + " and --" + b + " are mutually exclusive"};
}

/// A descriptor that is readable once somebody interrupts the program.
Fd interrupts() {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    (void)::sigprocmask(SIG_BLOCK, &set, nullptr);
    return Fd{::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK)};
}

}  // namespace

int event(const Session& session, const Arguments& arguments) {
    refuse_both(arguments, "all", "event");
    refuse_both(arguments, "list", "all");
    refuse_both(arguments, "list", "event");
    if (arguments.has("list")) {
        for (const char* const type : types) print(std::string{type} + "\n");
        return 0;
    }
    const std::string wanted = arguments.get("event");
    if (!wanted.empty() && std::ranges::find(types, wanted) == types.end()) {
        throw Failure{"unknown event type " + wanted};
    }
    if (wanted.empty() && !arguments.has("all")) {
        throw Failure{"one of --list, --all, or --event <type> is required"};
    }
    const std::optional<int> seconds = arguments.number("timeout");
    if (seconds && (*seconds <= 0 || *seconds > INT_MAX / 1000)) {
        throw Failure{"Numeric value '" + arguments.get("timeout") +
                      "' for <timeout> option is malformed or out of range"};
    }
    const std::string domain = arguments.has("domain") ? session.domains.find(arguments.get("domain")).name : "";
    const auto deadline = Clock::now() + std::chrono::seconds{seconds.value_or(0)};
    const Fd interrupted = interrupts();
    Watch watch{session.domains};
    int count = 0;
    const auto finish = [&](const char* why) {
        print(why + ("events received: " + std::to_string(count)) + "\n");
        // virsh's way to fail: without a word.
        if (count == 0) throw Silence{};
        return 0;
    };
    for (;;) {
        for (const Message& message : watch.take()) {
            if (!wanted.empty() && message.type != wanted) continue;
            if (!domain.empty() && message.domain != domain) continue;
            ++count;
            print((arguments.has("timestamp") ? timestamp() + ": " : std::string{}) + "event " + quoted(message.type) +
                  " for domain " + quoted(message.domain) + (message.what.empty() ? "" : ": ") + message.what + "\n");
            std::fflush(stdout);
            if (!arguments.has("loop")) return finish("");
        }
        std::vector<pollfd> descriptors = watch.descriptors();
        descriptors.push_back({interrupted.get(), POLLIN, 0});
        int wait = watch.patience();
        if (seconds) {
            const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
            if (left <= 0) return finish("event loop timed out\n");
            wait = wait < 0 ? static_cast<int>(left) : std::min(wait, static_cast<int>(left));
        }
        (void)::poll(descriptors.data(), descriptors.size(), wait);
        if (descriptors.back().revents != 0) return finish("event loop interrupted\n");
    }
}

}  // namespace caissonctl
