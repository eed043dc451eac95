// A root directory for the examples: the one that the user names, or a small one of busybox, made for the occasion.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>

/// Removed on destruction if it was made here.
class BusyboxRoot {
public:
    /// Takes `directory`; makes a root with a static busybox in the temporary directory if it is nullptr.
    explicit BusyboxRoot(const char* directory) {
        namespace fs = std::filesystem;
        if (directory != nullptr) {
            path_ = fs::absolute(directory);
            return;
        }
        std::string name = fs::temp_directory_path() / "caisson-example-XXXXXX";
        if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error{"cannot make a directory like " + name};
        path_ = name;
        made_ = true;
        try {
            fill();
        } catch (...) {
            remove();
            throw;
        }
    }
    BusyboxRoot(const BusyboxRoot&) = delete;
    BusyboxRoot& operator=(const BusyboxRoot&) = delete;
    ~BusyboxRoot() { remove(); }

    const std::string& path() const { return path_; }

private:
    void fill() const {
        namespace fs = std::filesystem;
        const fs::path root{path_};
        // Root inside may be another user outside, who must be let in.
        fs::permissions(root, fs::perms{0755});
        for (const char* name : {"bin", "dev", "proc", "sys", "tmp"}) fs::create_directory(root / name);
        for (const char* busybox : {"/usr/bin/busybox", "/bin/busybox", "/sbin/busybox"}) {
            if (!fs::exists(busybox)) continue;
            fs::copy_file(busybox, root / "bin/busybox");
            for (const char* name : {"sh", "echo", "cat", "ls", "sleep", "true"}) {
                fs::create_symlink("busybox", root / "bin" / name);
            }
            return;
        }
        throw std::runtime_error{"there is no busybox: install the package busybox-static, or name a root directory"};
    }
    void remove() {
        std::error_code ignored;
        if (made_) std::filesystem::remove_all(path_, ignored);
    }

    std::string path_;
    bool made_ = false;
};
