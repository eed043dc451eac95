// caisson/detail/id_range.hpp - a range of 65,536 user and group ids that no other container of this host has.
#pragma once

#include <cerrno>
#include <cstdint>
#include <string>
#include <vector>

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>

#include <caisson/detail/sys.hpp>
#include <caisson/error.hpp>
#include <caisson/fd.hpp>
#include <caisson/spec.hpp>

namespace caisson::inline v0::detail {

/// The host's number of an id inside; root's where it is not mapped.
[[nodiscard]] inline std::uint32_t outside(const std::vector<IdMap>& maps, std::uint32_t id) {
    for (const IdMap& m : maps) {
        if (id >= m.inside && id - m.inside < m.count) return m.outside + (id - m.inside);
    }
    return id == 0 || maps.empty() ? id : outside(maps, 0);
}

/// Ranges are recorded as locks on single bytes of one empty file, which belong to an open file description
/// (fcntl(2), F_OFD_SETLK): the container's keeper inherits it, and however host and keeper end, the kernel gives the
/// range back. The file itself stays.
class IdRange {
public:
    static constexpr std::uint32_t size = 65536;
    static constexpr const char* directory = "/run/caisson";
    static constexpr const char* registry = "/run/caisson/id-ranges";
    /// Above what useradd(8), systemd-nspawn(1) and systemd-homed(8) hand out.
    static constexpr std::uint32_t first = 0x70000000;
    static constexpr std::uint32_t count = (0xfffe0000u - first) / size;

    static constexpr std::uint32_t preferred = (0x80000000u - first) / size;

    /// Throws `Step::map_ids`.
    [[nodiscard]] static IdRange reserve() {
        constexpr const char* remedy = "give uid_map and gid_map instead";
        if (::mkdir(directory, 0755) != 0 && errno != EEXIST) {
            fail(Step::map_ids, std::string{"directory "} + quote(directory) + " of the id ranges in use", remedy);
        }
        IdRange range;
        range.lock_ = sys::open(registry, O_RDWR | O_CREAT | O_NOFOLLOW, 0600);
        if (!range.lock_) {
            const bool full = errno == EMFILE || errno == ENFILE;
            fail(Step::map_ids, std::string{"file "} + quote(registry) + " of the id ranges in use",
                 full ? "" : remedy);
        }
        std::uint32_t start = 0;
        // A random start keeps a range that was given back from being given out at once; below 2^31 as long as there is
        // room, for programs that take ids for signed.
        if (::getrandom(&start, sizeof start, GRND_NONBLOCK) < 0) start = 0;
        for (std::uint32_t i = 0; i < count; ++i) {
            const std::uint32_t slot = (start % preferred + i) % count;
            struct flock lock {};
            lock.l_type = F_WRLCK;
            lock.l_whence = SEEK_SET;
            lock.l_start = slot;
            lock.l_len = 1;
            if (::fcntl(range.lock_.get(), F_OFD_SETLK, &lock) == 0) {
                range.begin_ = first + slot * size;
                return range;
            }
            if (errno != EAGAIN && errno != EACCES) fail(Step::map_ids, "reserve an id range", remedy);
        }
        throw Error{Step::map_ids, EUSERS, "reserve an id range", "all are in use"};
    }

    [[nodiscard]] std::uint32_t begin() const noexcept { return begin_; }
    /// Holds the reservation as long as any copy of it is open.
    [[nodiscard]] int fd() const noexcept { return lock_.get(); }

private:
    Fd lock_{};
    std::uint32_t begin_ = 0;
};

}  // namespace caisson::inline v0::detail
