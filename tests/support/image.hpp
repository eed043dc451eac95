// support/image.hpp - files with file systems in them.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include <unistd.h>

#include <caisson/detail/sys.hpp>

namespace caisson_test {

/// Where a maker of file systems is; empty where it is not installed.
inline std::string maker(const std::string& name) {
    for (const char* directory : {"/usr/sbin/", "/usr/bin/", "/sbin/"}) {
        if (::access((directory + name).c_str(), X_OK) == 0) return directory + name;
    }
    return {};
}
/// Whether the running kernel has the file system.
inline bool kernel_has(const std::string& type) {
    std::string all;
    (void)caisson::detail::sys::read_file(AT_FDCWD, "/proc/filesystems", all);
    return all.find("\t" + type + "\n") != std::string::npos;
}
inline bool run_quietly(const std::string& command) {
    return std::system((command + " > /dev/null 2>&1").c_str()) == 0;
}

/// Makes `file` an image of `type` with the files of `directory`; why it cannot be done here, or "". The names must be
/// fit for a shell.
inline std::string make_image(const std::string& file, const std::string& type, const std::string& directory) {
    if (!kernel_has(type)) return "this kernel has no " + type;
    if (::access("/dev/loop-control", F_OK) != 0) return "this machine has no loop devices";
    const std::string program = maker(type == "squashfs" ? "mksquashfs" : "mkfs." + type);
    if (program.empty()) return "nothing that makes " + type + " is installed";
    if (type == "squashfs") {
        return run_quietly(program + " " + directory + " " + file + " -noappend") ? "" : "mksquashfs fails";
    }
    if (type == "erofs") return run_quietly(program + " " + file + " " + directory) ? "" : "mkfs.erofs fails";
    std::ofstream{file}.close();
    std::filesystem::resize_file(file, (type == "ext4" ? 32u : 320u) << 20);
    if (type == "ext4") return run_quietly(program + " -q -d " + directory + " " + file) ? "" : "mkfs.ext4 fails";
    if (type == "btrfs") {
        return run_quietly(program + " -q --rootdir " + directory + " " + file) ? "" : "mkfs.btrfs fails";
    }
    return run_quietly(program + " -q " + file) ? "" : "mkfs." + type + " fails";
}

/// The loop devices whose file has `text` in its name.
inline int loops_of(const std::string& text) {
    int n = 0;
    for (const auto& entry : std::filesystem::directory_iterator{"/sys/block"}) {
        std::string file;
        if (!caisson::detail::sys::read_file(AT_FDCWD, (entry.path() / "loop/backing_file").c_str(), file)) continue;
        if (file.find(text) != std::string::npos) ++n;
    }
    return n;
}

}  // namespace caisson_test
