#!/usr/bin/env python3
"""Writes a file's bytes as the body of a C++ array initialiser."""
import sys

with open(sys.argv[1], "rb") as source, open(sys.argv[2], "w") as target:
    data = source.read()
    for at in range(0, len(data), 24):
        target.write(",".join(str(byte) for byte in data[at : at + 24]) + ",\n")
