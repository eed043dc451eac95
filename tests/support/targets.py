#!/usr/bin/env python3
"""What ninja has to build for the tests of some suites: targets.py BUILD SUITE...; a path a line, below BUILD."""
import json
import os
import subprocess
import sys


def introspect(build, what):
    return json.loads(subprocess.check_output(["meson", "introspect", build, what]))


build, suites = os.path.realpath(sys.argv[1]), set(sys.argv[2:])
files = {target["id"]: target["filename"] for target in introspect(build, "--targets")}
for test in introspect(build, "--tests"):
    if suites & {suite.split(":")[-1] for suite in test["suite"]}:
        for target in test["depends"]:
            for name in files[target]:
                print(os.path.relpath(name, build))
