// src/helper.cpp - where the helper program is.
#include <caisson/helper.hpp>

#include <string>
#include <string_view>
#include <vector>

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace caisson::inline v0::detail {
namespace {

constexpr std::string_view program_name = "caisson-helper";

/// The file that this function was loaded from: the shared library, or the program that the library is linked into.
std::string own_file() {
    Dl_info info{};
    if (::dladdr(reinterpret_cast<const void*>(&open_helper_program), &info) != 0 && info.dli_fname != nullptr &&
        info.dli_fname[0] == '/') {
        return info.dli_fname;
    }
    char path[4096];
    const ssize_t n = ::readlink("/proc/self/exe", path, sizeof path);
    return n > 0 ? std::string{path, static_cast<std::size_t>(n)} : std::string{};
}

std::vector<std::string> places() {
    std::vector<std::string> all;
    const std::string file = own_file();
    // Only for what itself runs from the build tree: an installed library never looks there.
    if (file.starts_with(std::string{CAISSON_BUILD_ROOT} + "/")) all.emplace_back(CAISSON_HELPER_BUILT);
    const std::size_t slash = file.rfind('/');
    if (slash != std::string::npos) {
        const std::string directory = file.substr(0, slash + 1);
        for (const char* way : {CAISSON_LIBDIR_TO_HELPER, CAISSON_BINDIR_TO_HELPER}) {
            all.push_back(directory + way + "/" + std::string{program_name});
        }
    }
    all.push_back(std::string{CAISSON_HELPER_DIRECTORY} + "/" + std::string{program_name});
    return all;
}

}  // namespace

Fd open_helper_program(const std::string& path) {
    if (!path.empty()) {
        Fd program = sys::open(path, O_PATH);
        if (!program)
            fail(Step::helper, "helper program " + quote(path), "set helper_path to an installed caisson-helper");
        return program;
    }
    std::string tried;
    for (const std::string& place : places()) {
        Fd program = sys::open(place, O_PATH);
        struct stat st {};
        if (program && ::fstat(program.get(), &st) == 0 && S_ISREG(st.st_mode)) return program;
        tried += (tried.empty() ? "" : ", ") + quote(place);
    }
    throw Error{Step::helper, ENOENT, "helper program in " + tried, "install caisson, or set helper_path"};
}

}  // namespace caisson::inline v0::detail
