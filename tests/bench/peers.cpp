#include "peers.hpp"

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <fcntl.h>
#include <sched.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

namespace caisson_bench {
namespace {

namespace fs = std::filesystem;

std::string find_program(const char* name) {
    for (const char* directory :
         {"/usr/local/sbin/", "/usr/local/bin/", "/usr/sbin/", "/usr/bin/", "/sbin/", "/bin/"}) {
        const std::string path = std::string{directory} + name;
        if (::access(path.c_str(), X_OK) == 0) return path;
    }
    return {};
}

constexpr const char* name_of_all = "bench-peer";

}  // namespace

void write_bundle(const std::string& root, const std::string& bundle, const std::string& name,
                  const std::string& command, bool terminal) {
    fs::create_directories(bundle);
    std::ofstream out{fs::path{bundle} / "config.json"};
    out << R"({"ociVersion":"1.0.2","process":{"terminal":)" << (terminal ? "true" : "false")
        << R"(,"user":{"uid":0,"gid":0},"args":[")" << command << R"("],"cwd":"/",
"env":["PATH=/bin"],"noNewPrivileges":true,"capabilities":{"bounding":["CAP_KILL"],"effective":["CAP_KILL"],
"permitted":["CAP_KILL"]}},"root":{"path":")"
        << root << R"("},"hostname":"bench","mounts":[
{"destination":"/proc","type":"proc","source":"proc"},
{"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["nosuid","strictatime","mode=755","size=65536k"]},
{"destination":"/dev/pts","type":"devpts","source":"devpts","options":["nosuid","noexec","newinstance","ptmxmode=0666"]}],
"linux":{"cgroupsPath":"/)"
        << name << R"(","uidMappings":[{"containerID":0,"hostID":1862270976,"size":65536}],
"gidMappings":[{"containerID":0,"hostID":1862270976,"size":65536}],"namespaces":[{"type":"mount"},{"type":"pid"},
{"type":"uts"},{"type":"ipc"},{"type":"network"},{"type":"user"},{"type":"cgroup"}]}})";
}

void write_lxc(const std::string& root, const std::string& directory) {
    fs::create_directories(directory);
    std::ofstream out{fs::path{directory} / "config"};
    out << "lxc.uts.name = bench\nlxc.rootfs.path = dir:" << root
        << "\nlxc.net.0.type = empty\nlxc.mount.auto = proc:rw\nlxc.autodev = 1\nlxc.apparmor.profile = unconfined\n";
}

std::vector<Peer> installed_peers(const std::string& root, const std::string& work) {
    std::vector<Peer> peers;
    if (const auto program = find_program("unshare"); !program.empty()) {
        peers.push_back({"unshare (no groups, no /dev)",
                         {program, "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--user",
                          "--map-root-user", "--fork", "--root=" + root, "/stamp"}});
    }
    if (const auto program = find_program("bwrap"); !program.empty()) {
        peers.push_back({"bwrap (no groups)",
                         {program, "--unshare-user", "--unshare-all", "--bind", root, "/", "--proc", "/proc", "--dev",
                          "/dev", "--as-pid-1", "/stamp"}});
    }
    if (const auto program = find_program("crun"); !program.empty()) {
        write_bundle(root, work + "/crun", name_of_all, "/stamp", false);
        peers.push_back({"crun run",
                         {program, "--root", work + "/crun-state", "--cgroup-manager=cgroupfs", "run", "--bundle",
                          work + "/crun", name_of_all},
                         true});
    }
    if (const auto program = find_program("lxc-execute"); !program.empty()) {
        write_lxc(root, work + "/lxc/" + name_of_all);
        peers.push_back(
            {"lxc-execute (no user ns)", {program, "-P", work + "/lxc", "-n", name_of_all, "--", "/stamp"}});
    }
    return peers;
}

std::vector<Visitor> installed_visitors(const std::string& root, const std::string& work, pid_t init) {
    std::vector<Visitor> visitors;
    if (const auto program = find_program("nsenter"); !program.empty()) {
        visitors.push_back({.begin = {},
                            .command = {"nsenter (no groups, no filter)",
                                        {program, "--target", std::to_string(init), "--mount", "--uts", "--ipc",
                                         "--net", "--pid", "--cgroup", "--user", "/stamp"}},
                            .end = {}});
    }
    if (const auto program = find_program("crun"); !program.empty()) {
        write_bundle(root, work + "/crun", name_of_all, "/stay", false);
        const auto with = [&](std::vector<std::string> words) {
            words.insert(words.begin(), {program, "--root", work + "/crun-state", "--cgroup-manager=cgroupfs"});
            return Peer{"crun exec", words, true};
        };
        visitors.push_back({with({"run", "--detach", "--bundle", work + "/crun", name_of_all}),
                            with({"exec", name_of_all, "/stamp"}), with({"delete", "--force", name_of_all})});
    }
    if (const auto program = find_program("lxc-attach"); !program.empty()) {
        write_lxc(root, work + "/lxc/" + name_of_all);
        std::ofstream{work + "/lxc/" + name_of_all + "/config", std::ios::app} << "lxc.init.cmd = /stay\n";
        const auto with = [&](const char* verb, std::vector<std::string> words) {
            words.insert(words.begin(), {find_program(verb), "-P", work + "/lxc", "-n", name_of_all});
            return Peer{"lxc-attach (no user ns)", words};
        };
        visitors.push_back({with("lxc-start", {}), with("lxc-attach", {"--", "/stamp"}), with("lxc-stop", {"--kill"})});
    }
    return visitors;
}

PeerRunner::PeerRunner() : own_{::open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC)} {
    // In a namespace of its own, a view of the v1 hierarchies; nothing of the machine's is touched.
    if (::unshare(CLONE_NEWNS) != 0 || ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return;
    const fs::path groups{"/sys/fs/cgroup"};
    std::error_code error;
    std::vector<std::pair<std::string, caisson::Fd>> v1;
    for (const auto& entry : fs::directory_iterator{groups, error}) {
        if (!entry.is_directory() || !fs::exists(entry.path() / "tasks")) continue;
        v1.emplace_back(entry.path().filename(),
                        caisson::Fd{::open_tree(AT_FDCWD, entry.path().c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)});
    }
    if (!v1.empty() && ::mount("tmpfs", groups.c_str(), "tmpfs", 0, "mode=755") == 0) {
        for (const auto& [name, tree] : v1) {
            fs::create_directory(groups / name, error);
            (void)::move_mount(tree.get(), "", AT_FDCWD, (groups / name).c_str(), MOVE_MOUNT_F_EMPTY_PATH);
        }
        v1_only_.reset(::open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC));
    }
    if (::setns(own_.get(), CLONE_NEWNS) != 0) {
        std::perror("caisson-bench: back to the mount namespace");
        std::exit(1);
    }
}

void PeerRunner::enter(const Peer& peer) {
    if (peer.v1_only) enter_v1();
}
void PeerRunner::enter_v1() {
    if (v1_only_) inside_ = ::setns(v1_only_.get(), CLONE_NEWNS) == 0;
}
void PeerRunner::leave() {
    if (inside_ && ::setns(own_.get(), CLONE_NEWNS) != 0) std::exit(1);
    inside_ = false;
}

bool PeerRunner::run(const Peer& peer, int output) const {
    std::vector<char*> argv;
    for (const std::string& argument : peer.command) argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    char path[] = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
    char* envp[] = {path, nullptr};
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    ::posix_spawn_file_actions_adddup2(&actions, output, 1);
    ::posix_spawn_file_actions_adddup2(&actions, output, 2);
    pid_t pid = -1;
    const int error = ::posix_spawn(&pid, argv[0], &actions, nullptr, argv.data(), envp);
    ::posix_spawn_file_actions_destroy(&actions);
    int status = 0;
    return error == 0 && ::waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

int remove_leftovers() {
    int removed = 0;
    std::error_code error;
    for (const auto& hierarchy : fs::directory_iterator{"/sys/fs/cgroup", error}) {
        std::vector<fs::path> groups;
        for (const auto& entry : fs::directory_iterator{hierarchy.path(), error}) {
            const std::string name = entry.path().filename();
            if (name.find(name_of_all) != std::string::npos) groups.push_back(entry.path());
        }
        for (const fs::path& group : groups) removed += ::rmdir(group.c_str()) == 0 ? 1 : 0;
    }
    return removed;
}

}  // namespace caisson_bench
