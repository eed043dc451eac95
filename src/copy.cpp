// src/copy.cpp - files and directories into and out of a running container. Both sides are told the same system calls:
// the host's makes them here, the container's has a visit make them.
#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <caisson/detail/asking.hpp>
#include <caisson/detail/channel.hpp>
#include <caisson/detail/visit.hpp>
#include <caisson/exec.hpp>

namespace caisson::inline v0::detail {
namespace {

constexpr std::int64_t patience = 10'000;
constexpr int deepest = 256;  // each level holds a descriptor on both sides
constexpr std::uint64_t within = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
constexpr std::size_t half = 4096;  // of the room that a call has for what its arguments point to
// Of a file in one call: what comes in time also from a disk that is held to 50 KiB a second.
constexpr std::size_t portion = std::size_t{256} << 10;

/// Where system calls are made.
class Side {
public:
    Side() = default;
    Side(const Side&) = delete;
    Side& operator=(const Side&) = delete;
    virtual ~Side() = default;

    /// The result, or a negative error. What the call has written is in `data()` then.
    long open(int directory, const std::string& name, std::uint64_t flags, std::uint64_t resolve, mode_t mode = 0) {
        open_how how{};
        how.flags = flags | O_CLOEXEC;
        how.mode = (flags & O_CREAT) != 0 ? mode : 0;
        how.resolve = resolve;
        long result = -EAGAIN;
        // A rename has raced with "..".
        for (int attempt = 0; result == -EAGAIN && attempt < 128; ++attempt) {
            if (const long error = begin(SYS_openat2, {directory, 0, half, sizeof how}, name)) return error;
            std::memcpy(request_.data + half, &how, sizeof how);
            request_.pointers = 2 | 4;
            result = make();
        }
        return result;
    }
    long status(int fd, struct stat& into) {
        (void)begin(SYS_newfstatat, {fd, 0, half, AT_EMPTY_PATH}, "");
        request_.pointers = 2 | 4;
        const long result = make();
        std::memcpy(&into, data() + half, sizeof into);
        return result;
    }
    /// Of a link that is open as O_PATH.
    long read_link(int fd, std::string& into) {
        (void)begin(SYS_readlinkat, {fd, 0, half, half}, "");
        request_.pointers = 2 | 4;
        const long result = make();
        if (result >= 0) into.assign(data() + half, static_cast<std::size_t>(result));
        return result == static_cast<long>(half) ? -ENAMETOOLONG : result;
    }
    long make_link(int directory, const std::string& name, const std::string& to) {
        if (to.size() >= half) return -ENAMETOOLONG;
        if (const long error = begin(SYS_symlinkat, {half, directory, 0}, name)) return error;
        std::memcpy(request_.data + half, to.c_str(), to.size() + 1);
        request_.pointers = 1 | 4;
        return make();
    }
    long make_directory(int directory, const std::string& name) {
        return with_name(SYS_mkdirat, {directory, 0, 0700}, name);
    }
    long remove(int directory, const std::string& name) { return with_name(SYS_unlinkat, {directory, 0, 0}, name); }
    long rename(int directory, const std::string& name, const std::string& to) {
        if (to.size() >= half) return -ENAMETOOLONG;
        if (const long error = begin(SYS_renameat2, {directory, 0, directory, half, 0}, name)) return error;
        std::memcpy(request_.data + half, to.c_str(), to.size() + 1);
        request_.pointers = 2 | 8;
        return make();
    }
    long set_mode(int fd, mode_t mode) {
        (void)begin(SYS_fchmod, {fd, mode}, "");
        return make();
    }
    /// Fills `data()` with directory entries; how many bytes.
    long entries(int fd) {
        (void)begin(SYS_getdents64, {fd, 0, sizeof request_.data}, "");
        request_.pointers = 2;
        return make();
    }
    void close(int fd) {
        (void)begin(SYS_close, {fd}, "");
        (void)make();
    }
    [[nodiscard]] virtual const char* data() const noexcept = 0;

protected:
    virtual long make() = 0;

    long begin(long number, std::initializer_list<std::int64_t> arguments, const std::string& name) {
        if (name.size() >= half) return -ENAMETOOLONG;
        request_.number = number;
        request_.pointers = request_.descriptors = 0;
        std::fill(std::begin(request_.arguments), std::end(request_.arguments), 0);
        std::copy(arguments.begin(), arguments.end(), request_.arguments);
        std::memcpy(request_.data, name.c_str(), name.size() + 1);
        return 0;
    }
    CallRequest request_;

private:
    long with_name(long number, std::initializer_list<std::int64_t> arguments, const std::string& name) {
        if (const long error = begin(number, arguments, name)) return error;
        request_.pointers = 2;
        return make();
    }
};

class Here : public Side {
public:
    [[nodiscard]] const char* data() const noexcept override { return request_.data; }

private:
    long make() override {
        long a[6];
        for (unsigned i = 0; i < 6; ++i) {
            const bool pointer = (request_.pointers >> i & 1) != 0;
            a[i] = pointer ? reinterpret_cast<long>(request_.data + request_.arguments[i]) : request_.arguments[i];
        }
        // close(2) is never retried.
        const auto call = [&] { return ::syscall(request_.number, a[0], a[1], a[2], a[3], a[4], a[5]); };
        const long result = request_.number == SYS_close ? call() : sys::retry(call);
        return result < 0 ? -errno : result;
    }
};

class Inside : public Side {
public:
    /// `is_late`: set once a call has had no answer in time.
    Inside(Fd socket, bool& is_late) : socket_{std::move(socket)}, is_late_{is_late} {}
    [[nodiscard]] const char* data() const noexcept override { return answer_.data; }
    /// The visitor has ended before its time; why, it tells elsewhere.
    struct Gone {};

    /// Between a file of the container's and one of the host's: how many bytes.
    long send(int own, int hosts, bool inwards, std::size_t most) {
        (void)begin(SYS_sendfile, {own, own, 0, static_cast<std::int64_t>(most)}, "");
        request_.descriptors = inwards ? 2 : 1;
        pass_ = hosts;
        return make();
    }

private:
    long make() override {
        iovec iov{&request_, sizeof request_};
        alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))]{};
        msghdr message{};
        message.msg_iov = &iov;
        message.msg_iovlen = 1;
        if (const int pass = std::exchange(pass_, -1); pass >= 0) {
            message.msg_control = control;
            message.msg_controllen = sizeof control;
            cmsghdr* const c = CMSG_FIRSTHDR(&message);
            c->cmsg_level = SOL_SOCKET;
            c->cmsg_type = SCM_RIGHTS;
            c->cmsg_len = CMSG_LEN(sizeof pass);
            std::memcpy(CMSG_DATA(c), &pass, sizeof pass);
        }
        // Its answer to that one may still come, and the next would wait as long again.
        if (is_late_) return -ETIMEDOUT;
        if (sys::retry([&] { return ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL); }) < 0) throw Gone{};
        is_late_ = !wait_readable(socket_.get(), patience);
        if (is_late_) return -ETIMEDOUT;
        const ssize_t n = sys::last_word([&] { return ::recv(socket_.get(), &answer_, sizeof answer_, MSG_DONTWAIT); });
        if (n != static_cast<ssize_t>(sizeof answer_)) throw Gone{};
        return answer_.result;
    }
    Fd socket_;
    CallAnswer answer_;
    int pass_ = -1;
    bool& is_late_;
};

/// A path without what it ends with, and that.
struct Split {
    std::string directory;
    std::string name;
    explicit Split(std::string path) {
        while (path.size() > 1 && path.back() == '/') path.pop_back();
        const std::size_t slash = path.rfind('/');
        name = slash == std::string::npos ? path : path.substr(slash + 1);
        directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
    }
    [[nodiscard]] bool has_name() const { return !name.empty() && name != "." && name != ".."; }
};

class Copy {
public:
    Copy(Here& here, Inside& inside, bool inwards)
        : inside_{inside},
          inwards_{inwards},
          from_{inwards ? static_cast<Side&>(here) : inside},
          to_{inwards ? static_cast<Side&>(inside) : here} {}

    void run(const std::string& source, const std::string& target) {
        const Split what{source};
        if (!what.has_name()) throw Error{Step::copy, 0, of(inwards_, source), "it has no name: name what is below it"};
        const auto directory = [](Side& side, bool host, const std::string& path) {
            return side.open(AT_FDCWD, path, O_PATH | O_DIRECTORY, outer(host));
        };
        const Held from{from_, need(directory(from_, inwards_, what.directory), inwards_, what.directory)};
        std::string name = what.name;
        long to = directory(to_, !inwards_, target);
        if (to < 0) {
            const Split as{target};
            if (to == -ETIMEDOUT || !as.has_name()) (void)need(to, !inwards_, target);
            to = need(directory(to_, !inwards_, as.directory), !inwards_, as.directory);
            name = as.name;
        }
        const Held into{to_, static_cast<int>(to)};
        (void)need(to_.status(into.fd, into_), !inwards_, target);
        entry(from.fd, what.name, into.fd, name, source, 0);
    }

private:
    static std::uint64_t outer(bool host) noexcept { return host ? 0 : RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS; }
    static std::string of(bool host, const std::string& path) {
        return "copy " + quote(path) + (host ? " of the host" : " of the container");
    }
    static int need(long result, bool host, const std::string& path) {
        if (result >= 0) return static_cast<int>(result);
        throw Error{Step::copy, static_cast<int>(-result), of(host, path),
                    result == -ETIMEDOUT && !host
                        ? "the container is suspended, or a file system of its own (FUSE) does not answer"
                        : ""};
    }
    /// A descriptor of one side, as long as this lives.
    struct Held {
        Side& side;
        int fd;
        Held(Side& where, int number) : side{where}, fd{number} {}
        Held(const Held&) = delete;
        ~Held() {
            try {
                side.close(fd);
            } catch (...) {  // with who had it
            }
        }
    };
    int source(long result, const std::string& path) const { return need(result, inwards_, path); }
    /// What is made has the source's path in its error, too: of the target only the last part is known.
    int target(long result, const std::string& as, const std::string& path) const {
        if (result >= 0) return static_cast<int>(result);
        throw Error{Step::copy, static_cast<int>(-result), of(inwards_, path) + " as " + quote(as)};
    }

    void entry(int from, const std::string& name, int to, const std::string& as, const std::string& path, int depth) {
        const Held found{from_, source(from_.open(from, name, O_PATH | O_NOFOLLOW, 0), path)};
        struct stat status {};
        (void)source(from_.status(found.fd, status), path);
        if (S_ISDIR(status.st_mode)) {
            if (depth == deepest) throw Error{Step::copy, ELOOP, of(inwards_, path), "256 levels are possible"};
            return directory(from, name, to, as, path, depth);
        }
        if (!S_ISLNK(status.st_mode) && !S_ISREG(status.st_mode)) {
            throw Error{Step::copy, EINVAL, of(inwards_, path), "it is neither a file, a directory nor a link"};
        }
        refuse_there(to, as, path, status);
        if (S_ISREG(status.st_mode)) return file(from, name, to, as, path);
        std::string link;
        (void)source(from_.read_link(found.fd, link), path);
        const std::string part = part_name();
        (void)target(to_.make_link(to, part, link), as, path);
        put_in_place(to, part, as, path);
    }

    void refuse_there(int to, const std::string& as, const std::string& path, const struct stat& by) {
        const long there = to_.open(to, as, O_PATH | O_NOFOLLOW, 0);
        if (there == -ENOENT) return;
        const Held held{to_, target(there, as, path)};
        struct stat status {};
        (void)target(to_.status(held.fd, status), as, path);
        // Before all of it is copied, and not put in its place in the end.
        if (S_ISDIR(status.st_mode)) (void)target(-EISDIR, as, path);
        if (!is_same(status, by)) return;
        throw Error{Step::copy, EEXIST, of(inwards_, path) + " as " + quote(as), "both are the same file"};
    }
    /// Of what is not whole yet: whatever happens meanwhile, what is there under the right name stays as it is.
    static std::string part_name() {
        std::uint64_t number = 0;
        if (::getrandom(&number, sizeof number, 0) != sizeof number) fail(Step::copy, "a name for what is copied");
        return ".caisson-" + std::to_string(number);
    }
    void put_in_place(int to, const std::string& part, const std::string& as, const std::string& path) {
        const long result = to_.rename(to, part, as);
        if (result < 0) (void)to_.remove(to, part);
        (void)target(result, as, path);
    }
    static bool is_same(const struct stat& a, const struct stat& b) noexcept {
        return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
    }

    void file(int from, const std::string& name, int to, const std::string& as, const std::string& path) {
        const Held in{from_, source(from_.open(from, name, O_RDONLY | O_NONBLOCK | O_NOFOLLOW, within), path)};
        struct stat status {};
        (void)source(from_.status(in.fd, status), path);
        if (!S_ISREG(status.st_mode)) throw Error{Step::copy, EAGAIN, of(inwards_, path), "it was replaced meanwhile"};
        const std::string part = part_name();
        constexpr std::uint64_t flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW;
        const Held out{to_, target(to_.open(to, part, flags, within, 0600), as, path)};
        try {
            const int own = inwards_ ? out.fd : in.fd;
            const int hosts = inwards_ ? in.fd : out.fd;
            long sent = 0;
            do sent = inside_.send(own, hosts, inwards_, portion);
            while (sent > 0 || sent == -EINTR);
            (void)target(sent, as, path);
            (void)target(to_.set_mode(out.fd, status.st_mode & 0777), as, path);
        } catch (...) {  // also where the visitor has gone
            (void)to_.remove(to, part);
            throw;
        }
        put_in_place(to, part, as, path);
    }

    void directory(int from, const std::string& name, int to, const std::string& as, const std::string& path,
                   int depth) {
        constexpr std::uint64_t flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW;
        const Held in{from_, source(from_.open(from, name, flags, within), path)};
        struct stat status {};
        (void)source(from_.status(in.fd, status), path);
        if (is_same(status, into_)) {
            throw Error{Step::copy, EINVAL, of(inwards_, path),
                        "it is, or holds, the directory that it is copied into"};
        }
        const long made = to_.make_directory(to, as);
        if (made != -EEXIST) (void)target(made, as, path);
        const Held out{to_, target(to_.open(to, as, flags, within), as, path)};
        for (;;) {
            const long size = source(from_.entries(in.fd), path);
            if (size == 0) break;
            // The room is the next call's.
            const std::string entries{from_.data(), static_cast<std::size_t>(size)};
            for (std::size_t at = 0; at + 19 < entries.size();) {
                std::uint16_t length = 0;
                std::memcpy(&length, entries.data() + at + 16, sizeof length);
                const std::string child = entries.c_str() + at + 19;
                at += std::max<std::size_t>(length, 20);
                if (child == "." || child == "..") continue;
                // A file system of the container's own may say anything.
                if (child.empty() || child.find('/') != std::string::npos) {
                    throw Error{Step::copy, EBADMSG, of(inwards_, path), "a name in it holds '/'"};
                }
                entry(in.fd, child, out.fd, child, path + "/" + child, depth + 1);
            }
        }
        if (made != -EEXIST) (void)target(to_.set_mode(out.fd, status.st_mode & 0777), as, path);
    }

    Inside& inside_;
    bool inwards_;
    Side& from_;
    Side& to_;
    struct stat into_ {};  // the directory that is copied into
};

void copy(const ExecTicket& ticket, bool inwards, const std::string& source, const std::string& target) {
    const std::string outer = "container " + quote(ticket.defaults.spec.name);
    const std::string& inside_path = inwards ? target : source;
    if (inside_path.empty() || inside_path.front() != '/') {
        throw Error{Step::copy, 0, outer + ": copy: " + quote(inside_path) + " is not absolute",
                    "give the full path inside the container"};
    }
    if (ticket.is_suspended) throw Error{Step::copy, EBUSY, outer + ": copy", "it is suspended: resume it first"};
    try {
        std::pair<Channel, Fd> ends = Channel::make();
        Fd inner = std::move(ends.second);
        Fd own{::fcntl(ends.first.fd(), F_DUPFD_CLOEXEC, 3)};
        if (!own) fail(Step::descriptors, "socket to the container", "raise 'ulimit -n'");
        ends.first = Channel{};
        Visit visit{ticket.init, NamespaceKind::mount | NamespaceKind::user, ticket.defaults.spec.stage_path};
        // What it writes is the container's memory.
        const GroupEntrance groups = GroupEntrance::open(ticket.groups, ticket.init.pid());
        visit.enter(&groups);
        const Slot socket = visit.plan().inherit(inner.get());
        visit.plan().add({.op = Op::serve, .slot = socket}, Step::copy, "copy");
        bool is_gone = false;
        visit.run(patience, [&](bool& is_late) {
            inner.reset();
            Inside inside{std::move(own), is_late};
            Here here;
            try {
                Copy{here, inside, inwards}.run(source, target);
            } catch (const Inside::Gone&) {
                is_gone = true;  // the visit tells why
            }
        });
        if (is_gone) throw Error{Step::copy, EPROTO, "copy " + quote(source)};
    } catch (const Error& e) {
        if (is_ending(ticket.init))
            throw Error{Step::copy, ESRCH, outer + ": " + std::string{e.context()}, "it has ended"};
        throw e.in(outer);
    }
}

}  // namespace

void ExecTicket::copy_in(const std::string& source, const std::string& target) const {
    copy(*this, true, source, target);
}
void ExecTicket::copy_out(const std::string& source, const std::string& target) const {
    copy(*this, false, source, target);
}

}  // namespace caisson::inline v0::detail
