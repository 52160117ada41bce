#!/usr/bin/env python3
"""Every test, example and benchmark that lies in the tree must be built: named in its CMakeLists.txt."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
PATTERNS = ["tests/test_*.cpp", "examples/*.cpp", "benchmarks/*.cpp"]

missing = []
count = 0
for pattern in PATTERNS:
    for source in sorted(ROOT.glob(pattern)):
        count += 1
        lists = source.parent / "CMakeLists.txt"
        if not re.search(rf"^\s*\w+\((\w+ )?{re.escape(source.stem)}\b", lists.read_text(), re.M):
            missing.append(f"{source.relative_to(ROOT)} is not named in {lists.relative_to(ROOT)}")
print("\n".join(missing + [f"{count} programs, {len(missing)} not built"]))
sys.exit(1 if missing or not count else 0)
