#!/usr/bin/env python3
"""A golden that no test opens fails the run.

Each file under tests/goldens and tests/fixtures must be named by some *_test.cc, testing.h, or source of tests/ and
fuzz/: by its file name or stem where only one folder has such a file, else by the folder that holds it.

usage: check_goldens.py [ROOT]
"""
import collections
import pathlib
import re
import sys


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent).resolve()
    sources = [p for p in (root / "src").rglob("*") if p.name.endswith("_test.cc") or p.name == "testing.h"]
    sources += [p for folder in ("tests", "fuzz") for p in (root / folder).rglob("*") if p.suffix in (".cc", ".h", ".sh")]
    words = set(re.findall(r"[\w.+-]+", "\n".join(p.read_text(encoding="utf-8") for p in sources)))
    files = [p for folder in ("goldens", "fixtures") for p in sorted((root / "tests" / folder).rglob("*"))
             if p.is_file() and p.name != "README.md"]
    folders_with = collections.defaultdict(set)
    for path in files:
        folders_with[path.name].add(path.parent)
    unopened = []
    for path in files:
        names = {path.parent.name}
        if len(folders_with[path.name]) == 1:
            names |= {path.name, path.name.split(".")[0]}
        if not words & names:
            unopened.append(str(path.relative_to(root)))
    for name in unopened:
        print(f"{name}: no test opens it")
    if not unopened:
        print(f"{len(files)} goldens and fixtures, each named by a test")
    return 1 if unopened else 0


if __name__ == "__main__":
    sys.exit(main())
