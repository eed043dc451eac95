// caisson/detail/plan_builder.hpp - puts a Plan's bytes together in the host, and remembers what each instruction
// means.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <caisson/detail/plan.hpp>
#include <caisson/error.hpp>

namespace caisson::inline v0::detail {

/// The host's side of an instruction: init reports a number, and this is what the number stands for.
struct PlanNote {
    Step step = Step::exec;
    std::string context{};
};

/// What the stage gets: the bytes, and the descriptors in the order of their slots.
struct PlanPart {
    std::vector<std::byte> bytes{};
    std::vector<int> descriptors{};
};

/// Collects instructions, texts and descriptors, first of the one part and after `finish_first` of the other. The
/// descriptors are borrowed until the stage has them.
class PlanBuilder {
public:
    PlanBuilder() : bytes_(sizeof(PlanHeader)) {}

    PlanHeader header{};

    /// Descriptor `fd` of the host as a slot of the stage.
    [[nodiscard]] Slot inherit(int fd) {
        descriptors_.push_back(fd);
        return (in_rest_ ? first_received_slot : 0) + static_cast<Slot>(descriptors_.size()) - 1;
    }
    /// The instructions so far need no id map.
    void end_of_early() { header.early_count = static_cast<std::uint32_t>(instrs_.size()); }
    /// A slot that an instruction fills.
    [[nodiscard]] Slot dynamic() {
        if (dynamic_ == dynamic_slots) throw Error{Step::mount, E2BIG, "mounts of one container", "60 are possible"};
        return first_dynamic_slot + dynamic_++;
    }
    /// A NUL-terminated text.
    [[nodiscard]] Ref text(std::string_view text) {
        const Ref at = append(text.data(), text.size());
        bytes_.push_back(std::byte{0});
        return at;
    }
    /// Pairs of texts as `Op::new_filesystem` takes them; 0 for none.
    [[nodiscard]] Ref pairs(const std::vector<std::pair<std::string, std::string>>& options) {
        if (options.empty()) return 0;
        const Ref at = static_cast<Ref>(bytes_.size());
        for (const auto& [key, value] : options) {
            (void)text(key);
            (void)text(value);
        }
        bytes_.push_back(std::byte{0});
        return at;
    }
    template <class T>
    [[nodiscard]] Ref array(const std::vector<T>& values) {
        static_assert(std::is_trivially_copyable_v<T>);
        align();
        return append(values.data(), values.size() * sizeof(T));
    }
    void add(const Instr& instr, Step step, std::string context) {
        instrs_.push_back(instr);
        notes_.push_back({step, std::move(context)});
    }
    /// The first part's bytes and descriptors; what comes now belongs to the second.
    [[nodiscard]] PlanPart finish_first() {
        PlanPart part = finish(header);
        bytes_.resize(sizeof(RestHeader));
        in_rest_ = true;
        return part;
    }
    /// The second part's. `argv` and `envp` are the program's arguments and variables ("NAME=value"); `passed` is how
    /// many descriptors it gets beside the standard ones.
    [[nodiscard]] PlanPart finish_rest(const std::vector<std::string>& argv, const std::vector<std::string>& envp,
                                       std::uint32_t passed) {
        RestHeader rest{};
        rest.passed_count = passed;
        rest.argv = texts(argv);
        rest.envp = texts(envp);
        return finish(rest);
    }

    /// Of the part that is being written.
    [[nodiscard]] const std::vector<int>& descriptors() const noexcept { return descriptors_; }
    /// Of all instructions of both parts.
    [[nodiscard]] const std::vector<PlanNote>& notes() const noexcept { return notes_; }

private:
    template <class Header>
    PlanPart finish(Header& head) {
        head.instrs = array(instrs_);
        head.instr_count = static_cast<std::uint32_t>(instrs_.size());
        head.size = static_cast<std::uint32_t>(bytes_.size());
        std::memcpy(bytes_.data(), &head, sizeof head);
        instrs_.clear();
        return {std::exchange(bytes_, {}), std::exchange(descriptors_, {})};
    }
    void align() { bytes_.resize((bytes_.size() + 7) / 8 * 8); }
    Ref append(const void* data, std::size_t size) {
        const auto at = static_cast<Ref>(bytes_.size());
        const auto* begin = static_cast<const std::byte*>(data);
        if (size > 0) bytes_.insert(bytes_.end(), begin, begin + size);
        return at;
    }
    Ref texts(const std::vector<std::string>& all) {
        std::vector<std::uint64_t> refs;
        refs.reserve(all.size() + 1);
        for (const std::string& one : all) refs.push_back(text(one));
        refs.push_back(0);
        return array(refs);
    }

    std::vector<std::byte> bytes_;
    std::vector<Instr> instrs_;
    std::vector<PlanNote> notes_;
    std::vector<int> descriptors_;
    Slot dynamic_ = 0;
    bool in_rest_ = false;
};

}  // namespace caisson::inline v0::detail
