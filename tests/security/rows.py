#!/usr/bin/env python3
"""Every attack of rows.txt has a test case that exists, and every test case that is named by a CVE is in there."""
import pathlib
import re
import sys

TESTS = pathlib.Path(__file__).resolve().parent.parent
FAMILIES = {"A": 12, "B": 7, "C": 6, "D": 4, "E": 9, "F": 4, "G": 6, "H": 6}
NAMED = re.compile(r"\b(CVE-\d{4}-\d{4,}|GHSA(-[23456789cfghjmpqrvwx]{4}){3})\b")

complaints = []


def cases(path):
    """The names of a file's test cases, whose literals clang-format may have broken up."""
    literal = r'"(?:[^"\\]|\\.)*"'
    for match in re.finditer(rf"TEST_CASE\(\s*((?:{literal}\s*)+)", path.read_text()):
        yield "".join(part[1:-1] for part in re.findall(literal, match[1]))


known = {path.relative_to(TESTS).with_suffix("").as_posix(): set(cases(path)) for path in TESTS.rglob("*.cpp")}
listed, numbers = set(), set()
made = 0
for line_number, line in enumerate((TESTS / "security/rows.txt").read_text().splitlines(), 1):
    if not line or line.startswith("#"):
        continue
    number, file, what = line.split(" ", 2)
    numbers.add(number)
    made += file != "-"
    if file.endswith((".sh", ".py")):
        found = (TESTS / file).is_file()
    elif file == "-":
        found = True
    else:
        found = what in known.get(file, ())
        listed.add((file, what))
    if not found:
        complaints.append(f"tests/security/rows.txt:{line_number}: there is no such test: {file}: {what}")

wanted = {f"{family}{i}" for family, count in FAMILIES.items() for i in range(1, count + 1)}
for number in sorted(wanted ^ numbers):
    complaints.append(f"tests/security/rows.txt: {number}: {'not there' if number in wanted else 'no such row'}")
for file, names in sorted(known.items()):
    for name in sorted(names):
        if NAMED.search(name) and (file, name) not in listed:
            complaints.append(f"tests/{file}.cpp: not in security/rows.txt: {name}")
print("\n".join(complaints) or f"{len(wanted)} attacks, {made} tests of them")
sys.exit(bool(complaints))
