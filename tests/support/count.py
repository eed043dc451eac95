#!/usr/bin/env python3
"""Counts test cases: count.py RESULTS [FAILURES]

RESULTS is meson's testlog.json, or a directory with NAME.rc (the exit status) and NAME.out for each program. A program
with doctest's closing line counts as many as that line says, any other program counts as one. Skips and failures are
told on standard output; `passed failed skipped` goes to descriptor 3. Programs that fail are named in the file
FAILURES, if one is given, a line each, and their cases are not counted.
"""
import json
import os
import pathlib
import re
import sys


def results(path):
    """Yields (name, exit status or 'timeout', what it printed)."""
    if path.is_dir():
        for status in sorted(path.glob("*.rc")):
            code = int(status.read_text())
            text = status.with_suffix(".out").read_text(errors="replace")
            yield status.stem, "timeout" if code in (124, 137) else code, text
        return
    for line in path.read_text().splitlines():
        test = json.loads(line)
        code = "timeout" if test["result"] == "TIMEOUT" else test["returncode"]
        yield test["name"], code, (test.get("stdout") or "") + (test.get("stderr") or "")


def tail(text, lines=60):
    return "".join("        " + line + "\n" for line in text.splitlines()[-lines:])


failures = open(sys.argv[2], "a") if len(sys.argv) > 2 else None
passed = failed = skipped = programs = 0
for name, code, text in results(pathlib.Path(sys.argv[1])):
    programs += 1
    cases = re.search(r"test cases: +(\d+) *\| *(\d+) passed *\| *(\d+) failed", text)
    left_out = sum(int(n) for n in re.findall(r"^(\d+) skipped$", text, re.M))
    for line in sorted(set(re.findall(r"^SKIPPED: .*$", text, re.M))):
        print(f"skipped {name}: {line[9:]}")
    if cases:
        good, bad = int(cases[2]) - left_out, int(cases[3])
        # A program that ends badly after its last case (a sanitizer's report at exit) is a failure of its own.
        if bad == 0 and code != 0:
            bad = 1
    elif code == 77:
        good, bad, left_out = 0, 0, 1
        print(f"skipped {name}: {(text.strip().splitlines() or ['no reason given'])[-1]}")
    else:
        good, bad = (1, 0) if code == 0 else (0, 1)
    if bad:
        print(f"FAILED  {name} ({'timed out' if code == 'timeout' else f'exit status {code}'})")
        print(tail(text), end="")
        if failures:
            print(name.split(" / ")[-1], file=failures)
            continue
    passed, failed, skipped = passed + good, failed + bad, skipped + left_out
print(f"{programs} programs")
os.write(3, f"{passed} {failed} {skipped}\n".encode())
