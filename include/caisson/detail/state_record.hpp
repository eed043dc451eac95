// caisson/detail/state_record.hpp - what a helper runs, as a file that outlives it.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include <caisson/detail/owner.hpp>
#include <caisson/fd.hpp>

namespace caisson::inline v0::detail {

/// The file `state` in a helper's directory RUN/NAME/: who runs what, so that whoever comes after a crash can end what
/// is left. Text, a word and a value a line, after its version; lines with other words are passed over.
struct StateRecord {
    static constexpr const char* file = "state";
    /// At the end of a file's name while it is written; renamed once it is whole.
    static constexpr const char* while_written = ".new";
    /// What the names of the files of containers begin with: see ContainerRecord.
    static constexpr const char* container_prefix = "container.";

    std::string name{};
    std::string boot{};  ///< the kernel's boot_id: the numbers of processes count as long as that
    Owner helper{};
    std::optional<Owner> init{};  ///< once it runs

    /// Of the calling process, without init. Throws as Owner::current does.
    [[nodiscard]] [[gnu::visibility("default")]] static StateRecord of_helper(const std::string& name);
    [[nodiscard]] [[gnu::visibility("default")]] std::string text() const;
    /// The inverse of `text`; nothing for any other text, or another version.
    [[nodiscard]] [[gnu::visibility("default")]] static std::optional<StateRecord> parse(std::string_view text);
    /// True where nobody else can have written what this process would act on.
    [[nodiscard]] [[gnu::visibility("default")]] static bool is_ones_own(int fd) noexcept;
    /// The content of a file of the directory, if nobody else can have written or placed what this process would act
    /// on. Throws `Step::helper` for want of descriptors or memory: then there may be one.
    [[nodiscard]] [[gnu::visibility("default")]] static std::optional<std::string> read_own(int directory,
                                                                                            const std::string& name,
                                                                                            std::size_t most_bytes);
    /// Of a directory; nothing where there is none that can be read, or others may write there. Throws as `read_own`.
    [[nodiscard]] [[gnu::visibility("default")]] static std::optional<StateRecord> read(int directory);
    /// In the place of what is there, all or nothing. Throws `Step::helper`, with `path` as the directory's name.
    [[gnu::visibility("default")]] void write(int directory, const std::string& path) const;
    /// A file of the directory, in the place of what is there, all or nothing. Throws as `write`.
    [[gnu::visibility("default")]] static void write_file(int directory, const std::string& name,
                                                          const std::string& bytes, const std::string& path);
    /// All that a helper has written there, but for the file `owner`.
    [[gnu::visibility("default")]] static void remove_files(const Fd& directory) noexcept;
    /// Kills the init of a helper that is dead, if it still runs, and waits for its end for 2 seconds at most; false if
    /// it does not come. For one without control groups, whose keeper has died with the helper, nobody else does it.
    /// Throws `Step::sweep` where it cannot be looked at.
    [[nodiscard]] [[gnu::visibility("default")]] bool end_init() const;
};

}  // namespace caisson::inline v0::detail
