#!/usr/bin/env python3
"""Every public function of the types with states has a row in the table of tests/system/states.cpp."""
import pathlib
import re
import sys

root = pathlib.Path(__file__).resolve().parent.parent
table = (root / 'tests/system/states.cpp').read_text()
types = {'Container': 'container', 'Controller': 'controller', 'Helper': 'helper', 'Exec': 'exec'}
# A function's name, where a declaration of a member begins; static ones make an object and have no state.
function = re.compile(r'^    (?!static|using|friend|//|explicit|return|if|for|while)(?:[^\s(][^(]*?)?\b(\w+)\(', re.M)


def declared(name, header):
    text = (root / f'include/caisson/{header}.hpp').read_text()
    text = re.sub(r'//.*', '', text)
    text = re.sub(r'\[\[[^\]]*\]\]\s*', '', text)
    body = re.search(rf'^class {name} \{{\n(?:public:\n)?(.*?)^private:', text, re.M | re.S).group(1)
    # What takes the library's own parts is not for users.
    body = re.sub(r'^.*\((?:ContainerId id, )?const detail::.*$', '', body, flags=re.M)
    return {found for found in function.findall(body) if found not in (name, 'operator')}


def called(name):
    part = re.search(rf'check_states<{name}(?:\w*)>\((.*?)(?:^TEST_CASE|\Z)', table, re.M | re.S)
    return set(re.findall(r'\{"(\w+)",', part.group(1))) if part else set()


status = 0
for name, header in types.items():
    for missing in sorted(declared(name, header) - called(name)):
        print(f'{name}::{missing} has no row in tests/system/states.cpp')
        status = 1
    if not declared(name, header):
        print(f'include/caisson/{header}.hpp: no function of {name} was found')
        status = 1
sys.exit(status)
