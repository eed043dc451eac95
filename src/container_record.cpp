// src/container_record.cpp - what the clients of a helper need to know of its container, as a file.
#include <caisson/detail/container_record.hpp>

#include <cerrno>
#include <cstddef>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <sys/file.h>

#include <caisson/detail/sys.hpp>
#include <caisson/error.hpp>

namespace caisson::inline v0::detail {
namespace {

constexpr std::string_view heading = "caisson-container 1\n";
constexpr std::size_t most_bytes = std::size_t{16} << 20;

}  // namespace

std::optional<ContainerRecord> ContainerRecord::read(int directory, const Owner& init) {
    const auto bytes = StateRecord::read_own(directory, file_of(init), most_bytes);
    if (!bytes || !bytes->starts_with(heading)) return std::nullopt;
    try {
        return decode<ContainerRecord>(std::string_view{*bytes}.substr(heading.size()));
    } catch (const Error&) {
        return std::nullopt;  // of another build
    }
}

void ContainerRecord::write(int directory, const Owner& init, const std::string& path) const {
    StateRecord::write_file(directory, file_of(init), std::string{heading} + encode(*this), path);
}

void LockedDirectory::unlock() noexcept {
    if (fd_) (void)::flock(fd_.get(), LOCK_UN);

    fd_.reset();
}

LockedDirectory ContainerRecord::lock(const std::string& path) {
    Fd directory = sys::open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    if (directory && sys::retry([&] { return ::flock(directory.get(), LOCK_EX | LOCK_NB); }) == 0)
        return LockedDirectory{std::move(directory)};
    if (errno == ENOENT) throw Error{Step::helper, ESRCH, "container", "it has ended"};
    if (errno != EWOULDBLOCK) fail(Step::helper, "lock " + quote(path));
    throw Error{Step::helper, EBUSY, "devices of the container", "another client is attaching or detaching one"};
}

}  // namespace caisson::inline v0::detail
