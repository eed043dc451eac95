#!/usr/bin/env python3
"""What ninja has to build for the tests of some suites: targets.py BUILD SUITE...; a path a line, below BUILD.

Of a suite that is given as -SUITE, no test counts.
"""
import json
import os
import subprocess
import sys


def introspect(build, what):
    return json.loads(subprocess.check_output(["meson", "introspect", build, what]))


build = os.path.realpath(sys.argv[1])
wanted = {suite for suite in sys.argv[2:] if not suite.startswith("-")}
unwanted = {suite[1:] for suite in sys.argv[2:] if suite.startswith("-")}
files = {target["id"]: target["filename"] for target in introspect(build, "--targets")}
for test in introspect(build, "--tests"):
    suites = {suite.split(":")[-1] for suite in test["suite"]}
    if suites & wanted and not suites & unwanted:
        for target in test["depends"]:
            for name in files[target]:
                print(os.path.relpath(name, build))
