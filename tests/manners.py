#!/usr/bin/env python3
"""What holds for every source file of the tree, in one pass: manners.py

The library makes no process-wide call outside the code that runs after clone; no file is longer than 500 lines; nothing
is left to do; headers have `#pragma once` and no macros; no line is wider than 120 columns.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDERS = ("include", "src", "tests", "examples")
TEXTS = {".hpp", ".cpp", ".h", ".S", ".py", ".sh", ".build", ".c"}

# Each changes, or depends on, what belongs to the whole process of the host.
CALLS = """fork vfork _Fork daemon system popen posix_spawn posix_spawnp setenv unsetenv putenv clearenv getenv
secure_getenv signal sigaction sigprocmask raise abort exit _exit quick_exit chdir fchdir chroot umask setlocale atexit
on_exit openlog syslog setuid setgid seteuid setegid setresuid setresgid setgroups alarm setitimer srand dup""".split()
# Where one of them is right all the same, and why.
ALLOWED = {
    # A thread that joins a mount namespace has unshared its root and working directory, and is put back into them.
    "include/caisson/namespace.hpp": {"fchdir", "chroot"},
}
# Signals are blocked and the code after clone ends in the one file that is made for it.
AFTER_CLONE = re.compile(r"^src/(stage/|launch|helper/)")

complaints = []


def complain(path, line, text):
    complaints.append(f"{path}:{line}: {text}")


def without_comments_and_strings(text):
    def blank(match):
        found = match[0]
        return found if found[0] not in "/\"'" else re.sub(r"[^\n]", " ", found)

    pattern = r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+'"
    return re.sub(pattern, blank, text, flags=re.S)


def check(path):
    name = path.relative_to(ROOT).as_posix()
    text = path.read_text()
    lines = text.splitlines()
    if len(lines) > 500:
        complain(name, len(lines), "more than 500 lines: two things, split it")
    own = name == "tests/manners.py"
    for number, line in enumerate(lines, 1):
        if len(line) > 120 and path.suffix in {".py", ".sh"}:  # clang-format looks after C++
            complain(name, number, "wider than 120 columns")
        if not own and re.search(r"\b(TODO|FIXME|XXX|HACK)\b", line):
            complain(name, number, "something is left to do")
        if line.rstrip() != line:
            complain(name, number, "white space at the end")
        if "\t" in line:
            complain(name, number, "a tab")
    if name.startswith("include/") and path.suffix == ".hpp":
        if "#pragma once" not in text:
            complain(name, 1, "no #pragma once")
        if not lines[0].startswith(f"// {name[len('include/'):]} - "):
            complain(name, 1, "the first line is `// caisson/NAME.hpp - what it is.`")
        for number, line in enumerate(lines, 1):
            if re.match(r"\s*#\s*define\b", line):
                complain(name, number, "a macro in a header")
    if name.startswith(("include/", "src/")) and path.suffix in {".hpp", ".cpp"} and not AFTER_CLONE.match(name):
        code = without_comments_and_strings(text)
        for number, line in enumerate(code.splitlines(), 1):
            for call in re.findall(r"(?<![\w:])(?:::|std::)(\w+)\s*\(", line):
                if call in CALLS and call not in ALLOWED.get(name, set()):
                    complain(name, number, f"{call}() is the host program's business")
            if re.search(r"\bstd::(cout|cerr|clog|j?thread|async|shared_ptr)\b|\bthread_local\b|\benviron\b", line):
                complain(name, number, "no threads, streams, environment or shared state in the library")
        # At the margin, without `constexpr`, `const` or parentheses: a variable with static storage.
        pattern = r"^(?:inline |static )+(?!constexpr|const\b|constinit const)[\w:<>, ]+ \w+ ?[=;{][^()]*$"
        for match in re.finditer(pattern, code, re.M):
            complain(name, code.count("\n", 0, match.start()) + 1, "a global variable")


files = [p for folder in FOLDERS for p in sorted((ROOT / folder).rglob("*")) if p.is_file() and p.suffix in TEXTS]
files += [ROOT / "meson.build"]
for path in files:
    check(path)
tidy = (ROOT / ".clang-tidy").read_text()
off = re.findall(r"^  -([a-z]+-[A-Za-z0-9.-]+),?$", tidy, re.M)
reasons = re.findall(r"^# ([a-z]+-[A-Za-z0-9.-]+) {2,}\S", tidy, re.M)
if off != reasons:
    complain(".clang-tidy", 1, f"what is off and what has a reason differ: {set(off) ^ set(reasons) or 'the order'}")
print("\n".join(complaints) or f"{len(files)} files are well-mannered")
sys.exit(bool(complaints))
