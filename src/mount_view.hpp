// mount_view.hpp - what a process sees of its mounts, from the text of its mountinfo alone.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace caisson::inline v0::detail {

/// A line of /proc/PID/mountinfo, see proc_pid_mountinfo(5).
struct MountLine {
    unsigned long id = 0;
    unsigned long parent = 0;
    std::string device;  ///< "0:29"
    std::string root;    ///< the directory of the file system that is its root
    std::string point;   ///< as the process sees it
    std::string type;    ///< "proc"
    std::string source;  ///< a word of who mounted it
    bool read_only = false;
    bool processes_only = false;  ///< a proc with subset=pid: of the kernel's files it shows none
};

/// The mounts of a process, and which of them its paths lead to. Whoever owns a mount namespace decides on names and
/// number of its mounts, so that a look-up takes time by the path's length alone.
class MountView {
public:
    explicit MountView(std::string_view mountinfo);
    MountView(const MountView&) = delete;
    MountView& operator=(const MountView&) = delete;

    /// The mount that a path without links and ".." leads to; nullptr where no mount is known for it.
    [[nodiscard]] const MountLine* at(std::string_view path) const;
    /// True if the mount can be reached by its mount point: nothing covers it.
    [[nodiscard]] bool is_visible(const MountLine& mount) const { return at(mount.point) == &mount; }
    [[nodiscard]] const std::vector<MountLine>& lines() const noexcept { return lines_; }

    /// True for what a start puts over a masked path: an empty directory or file, which cannot be written to.
    [[nodiscard]] static bool is_mask(const MountLine& mount) noexcept;

private:
    std::vector<MountLine> lines_;
    std::map<std::pair<unsigned long, std::string_view>, const MountLine*> children_;  ///< the topmost of a stack
};

}  // namespace caisson::inline v0::detail
