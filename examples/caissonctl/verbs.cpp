#include "verbs.hpp"

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>

#include "console.hpp"
#include "devices.hpp"
#include "ending.hpp"
#include "events.hpp"
#include "exec.hpp"
#include "failure.hpp"
#include "listing.hpp"
#include "names.hpp"
#include "statistics.hpp"
#include "tuning.hpp"

namespace caissonctl {
namespace {

namespace xml = caisson::xml;

/// Which console is to be joined, and how.
struct Joining {
    std::size_t number = 0;
    bool force = false;
    bool shared = false;
};

/// The number of a console by libvirt's name: "console2".
std::size_t console_number(caisson::Helper& helper, const std::string& name) {
    constexpr std::string_view prefix = "console";
    const std::size_t count = 1 + helper.info().more_console_paths.size();
    for (std::size_t i = 0; i < count; ++i) {
        if (name == std::string{prefix} + std::to_string(i)) return i;
    }
    throw Failure{"cannot find console device " + quoted(name)};
}

/// What a session at a console is not shown, where the container does not wait for it.
class Missed {
public:
    Missed(caisson::Helper& helper, const Joining& joining) : helper_{helper}, console_{joining.number} {
        try {
            helper.watch();
            const auto viewers = helper.console_state(console_).viewers;
            viewer_ = joining.shared ? viewers.back() : viewers.front();
        } catch (const caisson::Error&) {
            // It has ended: its last words are there.
        }
    }
    /// Takes what has been told. False once nothing more comes.
    bool hear() {
        try {
            while (const auto event = helper_.next_event()) {
                if (event->kind == caisson::Event::Kind::console_lost && event->console_number == console_ &&
                    event->viewer == viewer_.number) {
                    told_ += event->count;
                }
            }
            return !helper_.try_wait();
        } catch (const caisson::Error&) {
            return false;
        }
    }
    [[nodiscard]] std::uint64_t bytes() {
        try {
            for (const caisson::ConsoleViewer& viewer : helper_.console_state(console_).viewers) {
                if (viewer.number == viewer_.number && viewer.lost >= viewer_.lost) return viewer.lost - viewer_.lost;
            }
        } catch (const caisson::Error&) {
            // It has ended, and has told before.
        }
        (void)hear();
        return told_;
    }

private:
    caisson::Helper& helper_;
    std::size_t console_;
    caisson::ConsoleViewer viewer_{};
    std::uint64_t told_ = 0;
};

int attach(const Session& session, Entry& entry, const Joining& joining = {}) {
    if (!has_terminal()) throw Failure{"Cannot run interactive console without a controlling TTY"};
    caisson::Helper& helper = *entry.running;
    const caisson::Fd console =
        joining.shared ? helper.attach_console({.console = joining.number}) : helper.open_console(joining.number);
    if (!joining.shared) claim_console(console, joining.force);
    if (joining.force) helper.detach_viewers(joining.number);
    session.say("Connected to domain " + quoted(entry.name) + "\nEscape character is ^] (Ctrl + ])\n");
    std::fflush(stdout);
    Missed missed{helper, joining};
    const auto resize = [&](caisson::WindowSize size) {
        try {
            helper.resize(size, joining.number);
        } catch (const caisson::Error&) {
            // It has ended: its last words are still to be shown.
        }
    };
    const int signal =
        join_console(console, resize, Escape::leaves, {helper.fd(), [&missed] { return missed.hear(); }});
    const std::uint64_t bytes = signal == 0 ? missed.bytes() : 0;
    if (bytes > 0) {
        std::fprintf(stderr, "warning: the console was faster than this terminal: %llu bytes were not shown\n",
                     static_cast<unsigned long long>(bytes));
    }
    return signal;
}

/// What a start goes on with: its console, where that is wanted, and the end that comes with the program's own.
int stay_with(const Session& session, const Arguments& arguments, Entry& entry) {
    const int result = arguments.has("console") ? attach(session, entry) : 0;
    if (arguments.has("autodestroy")) (void)entry.running->kill();
    return result;
}

/// True if the console is wanted and can be joined.
bool joins(const Arguments& arguments) {
    return arguments.has("console") && has_terminal();
}

int console(const Session& session, const Arguments& arguments) {
    Entry entry = session.domains.find(arguments.get("domain"));
    if (!entry.running) throw Failure{"The domain is not running"};
    if (arguments.has("shared") && arguments.has("force")) {
        throw Failure{"Options --shared and --force are mutually exclusive"};
    }
    Joining joining{.force = arguments.has("force"), .shared = arguments.has("shared")};
    if (arguments.has("devname")) joining.number = console_number(*entry.running, arguments.get("devname"));
    return attach(session, entry, joining);
}

/// Throws where ids cannot be given to the domain.
void refuse_id_map(const xml::Domain& domain, const std::string& outer) {
    if (!domain.uid_map.empty()) {
        throw Failure{outer, "the document has an <idmap>: take it out, or leave --idmap auto out"};
    }
    if (std::ranges::none_of(domain.filesystems,
                             [](const xml::Filesystem& fs) { return fs.target == "/" && fs.source != "/"; })) {
        throw Failure{outer,
                      "the domain has the host's root, which cannot be id-mapped: add a <filesystem> with "
                      "<target dir='/'/>"};
    }
}

void say_id_map(const Session& session, const caisson::IdMap& map) {
    const auto range = [&](std::uint32_t begin) {
        return std::to_string(begin) + "-" + std::to_string(begin + map.count - 1);
    };
    session.say("Users and groups " + range(map.inside) + " inside are " + range(map.outside) + " outside\n");
}

void warn_of_root(const xml::Domain& domain) {
    std::fflush(stdout);
    const std::string text =
        "warning: domain " + quoted(domain.name) +
        " has no <idmap>: root inside is root outside; 'define --idmap auto' gives it ids of its own\n";
    std::fputs(text.c_str(), stderr);
}

int define(const Session& session, const Arguments& arguments) {
    const std::string file = arguments.get("file");
    const std::string outer = "Failed to define domain from " + file;
    const std::string idmap = arguments.get("idmap");
    if (!idmap.empty() && idmap != "auto") throw Failure{"Unsupported id map " + quoted(idmap) + ": it must be 'auto'"};
    because(outer, [&] {
        xml::Domain domain = read_document(file);
        if (!idmap.empty()) refuse_id_map(domain, outer);
        const Store::Lock lock = session.domains.store().lock();
        session.domains.refuse_conflict(domain, outer);
        if (!idmap.empty()) domain.uid_map = domain.gid_map = {session.domains.free_id_map(domain.name)};
        session.domains.store().save(lock, domain.name, xml::dump(domain));
        session.say("Domain " + quoted(domain.name) + " defined from " + file + "\n");
        if (!idmap.empty()) say_id_map(session, domain.uid_map.front());
        else if (domain.uid_map.empty()) warn_of_root(domain);
    });
    return 0;
}

int start(const Session& session, const Arguments& arguments) {
    const std::string name = session.domains.find(arguments.get("domain"), By{.id = false}).name;
    Entry entry = because("Failed to start domain " + quoted(name), [&] {
        const Store::Lock lock = session.domains.store().lock();
        const auto now = session.domains.by_name(name);
        if (!now) throw Failure{"failed to get domain " + quoted(name)};
        if (now->running) throw Failure{"Domain is already active"};
        return session.domains.start(session.domains.defined(name), true, joins(arguments));
    });
    session.say("Domain " + quoted(name) + " started\n");
    return stay_with(session, arguments, entry);
}

int create(const Session& session, const Arguments& arguments) {
    const std::string file = arguments.get("file");
    const std::string outer = "Failed to create domain from " + file;
    Entry entry = because(outer, [&] {
        const xml::Domain domain = read_document(file);
        const Store::Lock lock = session.domains.store().lock();
        session.domains.refuse_conflict(domain, outer);
        const auto now = session.domains.by_name(domain.name);
        if (now && now->running) {
            throw Failure{outer,
                          "Requested operation is not valid: domain is already active as " + quoted(domain.name)};
        }
        return session.domains.start(domain, now && now->persistent, joins(arguments));
    });
    session.say("Domain " + quoted(entry.name) + " created from " + file + "\n");
    return stay_with(session, arguments, entry);
}

int suspend(const Session& session, const Arguments& arguments) {
    Entry entry = session.domains.find(arguments.get("domain"));
    const std::string outer = "Failed to suspend domain " + quoted(entry.name);
    const bool was_running = because(
        outer, [&] { return entry.ask([](caisson::Helper& helper) { return helper.suspend(), true; }).has_value(); });
    if (!was_running) throw Failure{outer, "Requested operation is not valid: domain is not running"};
    session.say("Domain " + quoted(entry.name) + " suspended\n");
    return 0;
}

int resume(const Session& session, const Arguments& arguments) {
    Entry entry = session.domains.find(arguments.get("domain"));
    const std::string outer = "Failed to resume domain " + quoted(entry.name);
    because(outer, [&] {
        const bool paused = entry.paused();
        if (!entry.running) throw Failure{outer, "Requested operation is not valid: domain is not running"};
        if (!paused) throw Failure{outer, "Requested operation is not valid: domain is already running"};
        entry.running->resume();
    });
    session.say("Domain " + quoted(entry.name) + " resumed\n");
    return 0;
}

int security(const Session& session, const Arguments& arguments) {
    Entry entry = session.domains.find(arguments.get("domain"));
    const std::string outer = "Failed to get the security report of domain " + quoted(entry.name);
    const auto report = because(outer, [&] { return entry.ask(&caisson::Helper::security_report); });
    if (!report) throw Failure{outer, "Requested operation is not valid: domain is not running"};
    print(report->str());
    return 0;
}

int dumpxml(const Session& session, const Arguments& arguments) {
    Entry entry = session.domains.find(arguments.get("domain"));
    const auto info = arguments.has("inactive") ? std::nullopt : entry.ask(&caisson::Helper::info);
    if (!info) {
        print(xml::dump(entry.persistent ? session.domains.defined(entry.name) : session.domains.current(entry)));
        return 0;
    }
    xml::Live live;
    live.id = entry.running->pid();
    live.console_paths = {info->console_path};
    live.console_paths.insert(live.console_paths.end(), info->more_console_paths.begin(),
                              info->more_console_paths.end());
    print(xml::dump(xml::parse(info->note, entry.name), live));
    return 0;
}

int help(const Session&, const Arguments& arguments) {
    const std::string name = arguments.get("command");
    if (name.empty() || name == "domain") {
        std::string text = name.empty() ? "Grouped commands:\n\n" : "";
        text += " Domain Management (help keyword 'domain'):\n";
        for (const Verb& verb : verbs()) {
            std::string column{verb.name};
            column.resize(30, ' ');
            text.append("    ").append(column).append(" ").append(verb.summary).append("\n");
        }
        print(text);
    } else if (const Verb* verb = find_verb(name)) {
        print(help_of(*verb));
    } else {
        throw Failure{"command or command group '" + name + "' doesn't exist"};
    }
    return 0;
}

using enum Option::Kind;
constexpr Option a_domain{"domain", positional, "domain name, id or uuid"};
constexpr Option a_file{"file", positional, "file containing an XML domain description"};
constexpr Option to_console{"console", flag, "attach to console after creation"};
constexpr std::array domain_only{a_domain};
constexpr std::array console_options{
    a_domain, Option{"devname", named, "character device name: console0, console1, ..."},
    Option{"force", flag, "force console connection (disconnect already connected sessions)"},
    Option{"safe", flag, "only connect if safe console handling is supported"},
    Option{"shared", flag, "connect beside other sessions, which see the same"}};
constexpr std::array define_options{
    a_file, Option{"idmap", named, "'auto': ids of its own for the domain, so that root inside is nobody outside"}};
constexpr Option with_session{"autodestroy", flag, "automatically destroy the guest when caissonctl ends"};
constexpr std::array file_console{a_file, to_console, with_session};
constexpr std::array start_options{Option{"domain", positional, "name of the inactive domain"}, to_console,
                                   with_session};
constexpr std::array dumpxml_options{a_domain, Option{"inactive", flag, "show inactive defined XML"}};
constexpr std::array help_options{Option{"command", optional, "name of a command or of a group of commands"}};
constexpr std::array cpu_options{a_domain, Option{"total", flag, "Show total statistics only"},
                                 Option{"start", optional, "Show statistics from this CPU", "number"},
                                 Option{"count", optional, "Number of shown CPUs at most", "number"}};
constexpr std::array block_options{a_domain, Option{"device", optional, "block device"},
                                   Option{"human", flag, "print a more human readable output"}};
constexpr std::array interface_options{
    a_domain, Option{"interface", positional, "interface device specified by name or MAC Address"}};
constexpr std::array all_verbs{
    Verb{"attach-device", "attach device from an XML file", "Attach device from an XML <file>.", device_options,
         attach_device},
    Verb{"attach-disk", "attach disk device", "Attach new disk device.", attach_disk_options, attach_disk},
    Verb{"attach-interface", "attach network interface", "Attach new network interface.", attach_interface_options,
         attach_interface},
    Verb{"autostart", "autostart a domain", "Configure a domain to be automatically started at boot.",
         autostart_options, autostart},
    Verb{"autostart-all",
         "start the domains that are marked as autostarted",
         "Start each inactive domain that is marked as autostarted, and go on where one of them fails.",
         {},
         autostart_all},
    Verb{"blkiotune", "Get or set blkio parameters", "Get or set the current blkio parameters for a guest domain.",
         tuning::blkiotune_options, tuning::blkiotune},
    Verb{"console", "connect to the guest console", "Connect the virtual serial console for the guest", console_options,
         console},
    Verb{"cp", "copy files into or out of a running domain",
         "Copies a file, a link or a directory between the host and a running domain: one of the two is DOMAIN:PATH.",
         copy_options, copy},
    Verb{"cpu-stats", "show domain cpu statistics", "Display per-CPU and total statistics about the domain's CPUs",
         cpu_options, cpu_stats},
    Verb{"create", "create a domain from an XML file", "Create a domain.", file_console, create},
    Verb{"define", "define (but don't start) a domain from an XML file",
         "Define a domain. Without an <idmap>, root inside is root outside.", define_options, define},
    Verb{"desc", "show or set domain's description or title",
         "Allows setting or modifying the description or title of a domain.", desc_options, desc},
    Verb{"destroy", "destroy (stop) a domain", "Forcefully stop a given domain, but leave its resources intact.",
         destroy_options, destroy},
    Verb{"detach-device", "detach device from an XML file", "Detach device from an XML <file>", device_options,
         detach_device},
    Verb{"detach-disk", "detach disk device", "Detach disk device.", detach_disk_options, detach_disk},
    Verb{"detach-interface", "detach network interface", "Detach network interface.", detach_interface_options,
         detach_interface},
    Verb{"domblkstat", "get device block stats for a domain",
         "Get device block stats for a running domain. See man page or use --human for explanation of fields",
         block_options, domblkstat},
    Verb{"domid", "convert a domain name or UUID to domain id", "", id_options, domid},
    Verb{"domifstat", "get network interface stats for a domain", "Get network interface stats for a running domain.",
         interface_options, domifstat},
    Verb{"dominfo", "domain information", "Returns basic information about the domain.", domain_only, dominfo},
    Verb{"dommemstat", "get memory statistics for a domain", "Get memory statistics for a running domain.", domain_only,
         dommemstat},
    Verb{"domname", "convert a domain id or UUID to domain name", "", name_options, domname},
    Verb{"domrename", "rename a domain", "Rename an inactive domain.", rename_options, domrename},
    Verb{"domstate", "domain state", "Returns state about a domain.", state_options, domstate},
    Verb{"domstats", "get statistics about one or multiple domains",
         "Gets statistics about one or more (or all) domains", domstats_options, domstats},
    Verb{"domuuid", "convert a domain name or id to domain UUID", "", uuid_options, domuuid},
    Verb{"dumpxml", "domain information in XML", "Output the domain information as an XML dump to stdout.",
         dumpxml_options, dumpxml},
    Verb{"event", "Domain Events", "List event types, or wait for domain events to occur", event_options, event},
    Verb{"exec", "run a command in a running domain",
         "Runs a command, given behind '--', as one more process of the domain's, and ends as it ends. With a terminal "
         "on standard input it gets one of the domain's own.",
         exec_options, exec},
    Verb{"help", "print help", "Prints global help, or command specific help.", help_options, help},
    Verb{"list", "list domains", "Returns list of domains.", list_options, list},
    Verb{"lxc-enter-namespace", "LXC Guest Enter Namespace",
         "Run an arbitrary command in a lxc guest namespace: as root with all that the domain can give it, without a "
         "filter and a terminal.",
         enter_options, enter_namespace},
    Verb{"memtune", "Get or set memory parameters", "Get or set the current memory parameters for a guest domain.",
         tuning::memtune_options, tuning::memtune},
    Verb{"metadata", "show or set domain's custom XML metadata", "Shows or modifies the XML metadata of a domain.",
         metadata_options, metadata},
    Verb{"reboot", "reboot a domain", "Run a reboot command in the target domain.", shutdown_options, reboot},
    Verb{"resume", "resume a domain", "Resume a previously suspended domain.", domain_only, resume},
    Verb{"schedinfo", "show/set scheduler parameters", "Show/Set scheduler parameters.", tuning::schedinfo_options,
         tuning::schedinfo},
    Verb{
        "security", "what holds a running domain",
        "Tells what the kernel holds a running domain by, and where that is weaker or stricter than caisson's default.",
        domain_only, security},
    Verb{"setmaxmem", "change maximum memory limit", "Change the maximum memory allocation limit in the guest domain.",
         tuning::setmaxmem_options, tuning::setmaxmem},
    Verb{"setmem", "change memory allocation", "Change the current memory allocation in the guest domain.",
         tuning::setmem_options, tuning::setmem},
    Verb{"shutdown", "gracefully shutdown a domain", "Run shutdown in the target domain.", shutdown_options, shutdown},
    Verb{"start", "start a (previously defined) inactive domain", "Start a domain.", start_options, start},
    Verb{"suspend", "suspend a domain", "Suspend a running domain.", domain_only, suspend},
    Verb{"undefine", "undefine a domain", "Undefine an inactive domain, or convert persistent to transient.",
         domain_only, undefine},
    Verb{"update-device", "update device from an XML file",
         "Update device from an XML <file>. Of a definition, that is: a running domain's is detached and attached.",
         device_options, update_device},
};

}  // namespace

void print(const std::string& text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
}

void Session::say(const std::string& text) const {
    if (!quiet) print(text);
}

std::span<const Verb> verbs() {
    return all_verbs;
}

const Verb* find_verb(std::string_view name) {
    const auto found = std::ranges::find(all_verbs, name, &Verb::name);
    return found == all_verbs.end() ? nullptr : &*found;
}

std::string help_of(const Verb& verb) {
    std::string text = "  NAME\n    ";
    text.append(verb.name).append(" - ").append(verb.summary).append("\n\n  SYNOPSIS\n    ").append(verb.name);
    std::string options;
    for (const Option& option : verb.options) {
        std::string left = "--" + std::string{option.name};
        const std::string type = " <" + std::string{option.type} + ">";
        if (option.kind == flag) {
            text.append(" [").append(left).append("]");
        } else if (option.kind == optional || option.kind == named || option.kind == repeated) {
            left += type;
            text.append(" [").append(left).append("]");
        } else if (option.kind == several) {
            left = option.type.empty() ? "<" + std::string{option.name} + ">" : "[" + left + "]" + type;
            text.append(" [").append(left).append("]...");
        } else {
            text.append(" <").append(option.name).append(">");
            left = "[" + left + "]" + type;
        }
        left.resize(std::max<std::size_t>(left.size(), 15), ' ');
        options.append("    ").append(left).append("  ").append(option.help).append("\n");
    }
    text += "\n";
    if (!verb.description.empty()) text.append("\n  DESCRIPTION\n    ").append(verb.description).append("\n");
    if (!options.empty()) text.append("\n  OPTIONS\n").append(options);
    return text += "\n";
}

}  // namespace caissonctl
