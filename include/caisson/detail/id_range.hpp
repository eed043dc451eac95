// caisson/detail/id_range.hpp - which ids of the host belong to which container.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <optional>
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

/// As /proc/PID/uid_map takes it, see user_namespaces(7).
[[nodiscard]] inline std::string map_text(const std::vector<IdMap>& maps) {
    std::string text;
    for (const IdMap& m : maps) {
        text += std::to_string(m.inside) + " " + std::to_string(m.outside) + " " + std::to_string(m.count) + "\n";
    }
    return text;
}

/// Bytes that the kernel takes of it, whatever the machine: less than a page of the smallest.
inline constexpr std::size_t longest_map_text = 4095;

/// User and group ids of the host that are kept apart from those of other containers.
///
/// They come in ranges of 65,536, each recorded as a lock on a single byte of one empty file. The lock belongs to an
/// open file description (fcntl(2), F_OFD_SETLK): the container's keeper inherits it, and however host and keeper end,
/// the kernel gives the range back. The file itself stays. An automatic map has its range alone; maps that somebody
/// wrote down may share one, but not with an automatic map.
class IdRange {
public:
    static constexpr std::uint32_t size = 65536;
    static constexpr const char* directory = "/run/caisson";
    static constexpr const char* registry = "/run/caisson/id-ranges";
    /// Above what useradd(8), systemd-nspawn(1) and systemd-homed(8) hand out.
    static constexpr std::uint32_t first = 0x70000000;
    static constexpr std::uint32_t end = 0xfffe0000;
    /// For maps that are written down and used again, see xml::free_id_map: no automatic map ever takes these.
    static constexpr std::uint32_t first_written = 0x78000000;
    static constexpr std::uint32_t end_written = 0x80000000;

    /// A range that nobody has, for an automatic map. Throws `Step::map_ids`.
    [[nodiscard]] static IdRange reserve() {
        constexpr std::uint32_t low = (first_written - first) / size;
        constexpr std::uint32_t count = low + (end - end_written) / size;
        IdRange range{open_registry("give uid_map and gid_map instead")};
        // A random start keeps a range that was given back from being given out at once; below 2^31 as long as there is
        // room, for programs that take ids for signed.
        const std::uint32_t start = random() % low;
        for (std::uint32_t i = 0; i < count; ++i) {
            const std::uint32_t at = (start + i) % count;
            range.begin_ = at < low ? first + at * size : end_written + (at - low) * size;
            if (range.lock(F_WRLCK, range.begin_, range.begin_ + size)) return range;
        }
        throw Error{Step::map_ids, EUSERS, "reserve an id range", "all are in use"};
    }

    /// True if a range of the map begins among those that ranges are made of. One that begins below, and has all ids,
    /// say, is no container's own.
    [[nodiscard]] static bool concerns(const std::vector<IdMap>& maps) noexcept {
        return std::any_of(maps.begin(), maps.end(), is_among_ranges);
    }
    /// Keeps automatic maps away from the ids of these. Throws `Step::map_ids` where one has some of them.
    [[nodiscard]] static IdRange share(const std::vector<IdMap>& uid_map, const std::vector<IdMap>& gid_map) {
        constexpr const char* remedy = "give ids below 1879048192 in uid_map and gid_map";
        IdRange range{open_registry(remedy)};
        for (const auto* maps : {&uid_map, &gid_map}) {
            for (const IdMap& m : *maps) {
                const std::uint64_t last = std::uint64_t{m.outside} + m.count - 1;
                if (!is_among_ranges(m) || range.lock(F_RDLCK, m.outside, std::min<std::uint64_t>(last + 1, end))) {
                    continue;
                }
                throw Error{Step::map_ids, EBUSY,
                            std::string{maps == &uid_map ? "uid_map" : "gid_map"} + ": ids " +
                                std::to_string(m.outside) + "-" + std::to_string(last) + " outside",
                            "a container with an automatic map has some of them: give ids below 1879048192"};
            }
        }
        return range;
    }

    /// The first id of a range for a map that is to be written down: one that is not in `taken`, and that no container
    /// has at this moment. Nothing: there is none. Throws `Step::map_ids`.
    [[nodiscard]] static std::optional<std::uint32_t> find_unwritten(const std::vector<IdMap>& taken) {
        constexpr std::uint32_t count = (end_written - first_written) / size;
        // Where no container has ever run with ids of its own, there is no file.
        Fd file = sys::open(registry, O_RDWR | O_NOFOLLOW);
        if (!file && errno != ENOENT) fail_registry("root alone sees which ids are in use");
        const IdRange range{std::move(file)};
        // So that two who write into different places will hardly find the same.
        const std::uint32_t start = random() % count;
        for (std::uint32_t i = 0; i < count; ++i) {
            const std::uint32_t begin = first_written + (start + i) % count * size;
            const bool is_taken = std::any_of(taken.begin(), taken.end(), [&](const IdMap& m) {
                return m.outside < begin + size && std::uint64_t{m.outside} + m.count > begin;
            });
            if (!is_taken && range.is_unlocked(begin)) return begin;
        }
        return std::nullopt;
    }
    /// True for the map of such a range: 65,536 ids, from 0 on inside.
    [[nodiscard]] static bool is_written(const std::vector<IdMap>& maps) noexcept {
        return maps.size() == 1 && maps[0].inside == 0 && maps[0].count == size && maps[0].outside >= first_written &&
               maps[0].outside < end_written && maps[0].outside % size == 0;
    }

    /// Of a range that was reserved.
    [[nodiscard]] std::uint32_t begin() const noexcept { return begin_; }
    /// Holds the reservation as long as any copy of it is open.
    [[nodiscard]] int fd() const noexcept { return lock_.get(); }

private:
    explicit IdRange(Fd lock) noexcept : lock_{std::move(lock)} {}

    static std::uint32_t random() noexcept {
        std::uint32_t number = 0;
        if (::getrandom(&number, sizeof number, GRND_NONBLOCK) < 0) number = 0;
        return number;
    }
    static bool is_among_ranges(const IdMap& m) noexcept {
        return m.outside >= first && m.outside < end && m.count > 0;
    }
    [[noreturn]] static void fail_registry(const char* remedy) {
        const bool full = errno == EMFILE || errno == ENFILE;
        fail(Step::map_ids, std::string{"file "} + quote(registry) + " of the id ranges in use", full ? "" : remedy);
    }
    static Fd open_registry(const char* remedy) {
        if (::mkdir(directory, 0755) != 0 && errno != EEXIST) {
            fail(Step::map_ids, std::string{"directory "} + quote(directory) + " of the id ranges in use", remedy);
        }
        Fd file = sys::open(registry, O_RDWR | O_CREAT | O_NOFOLLOW, 0600);
        if (!file) fail_registry(remedy);
        return file;
    }
    /// The bytes of the ranges that have ids from `from` to before `to`.
    static struct flock bytes(std::uint64_t from, std::uint64_t to) noexcept {
        struct flock lock {};
        lock.l_whence = SEEK_SET;
        lock.l_start = static_cast<off_t>((from - first) / size);
        lock.l_len = static_cast<off_t>((to - 1 - first) / size) - lock.l_start + 1;
        return lock;
    }
    /// False if somebody else's lock is in the way.
    [[nodiscard]] bool lock(short type, std::uint64_t from, std::uint64_t to) const {
        struct flock lock = bytes(from, to);
        lock.l_type = type;
        if (::fcntl(lock_.get(), F_OFD_SETLK, &lock) == 0) return true;
        if (errno != EAGAIN && errno != EACCES) fail(Step::map_ids, "reserve an id range");
        return false;
    }
    [[nodiscard]] bool is_unlocked(std::uint32_t begin) const {
        if (!lock_) return true;
        struct flock lock = bytes(begin, std::uint64_t{begin} + size);
        lock.l_type = F_WRLCK;
        if (::fcntl(lock_.get(), F_OFD_GETLK, &lock) != 0) fail(Step::map_ids, "look for a free id range");
        return lock.l_type == F_UNLCK;
    }

    Fd lock_{};
    std::uint32_t begin_ = 0;
};

}  // namespace caisson::inline v0::detail
