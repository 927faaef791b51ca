#!/usr/bin/env python3
"""Checks the layering and the sizes of the source tree.

- A folder of src/ includes only folders on floors below its own (docs/ARCHITECTURE.md); two folders of one floor do
  not see each other. Public headers (include/kedge) name no internal header but the public ones.
- No source file reaches 1000 lines.
- nlohmann/json.hpp stays out of headers, but for base/json.h; only src/cli reads the environment.
- CLI11 and toml++ are seen by one translation unit each.
- libtorch and the folders built on it are seen only by those folders and by kedge-torch's main: kedge never links it.

usage: check_floors.py [ROOT]
"""
import pathlib
import re
import sys

FLOORS = [
    ["base"],
    ["tensor", "record", "stats", "comm"],
    ["quant", "report"],
    ["kernels", "io"],
    ["nn"],
    ["moe"],
    ["model", "routing"],
    ["generate", "twin"],
    ["audit", "eval", "ptq", "train", "bench"],
    ["claims", "serve"],
    ["cli"],
]
FLOOR = {folder: floor for floor, folders in enumerate(FLOORS) for folder in folders}
MAX_LINES = 1000
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
TORCH_FOLDERS = ("src/twin/", "src/train/", "src/ptq/methods_twin/")
LIBTORCH = re.compile(r"^(torch|ATen|c10|caffe2)/")
ONE_UNIT = {"CLI/": "src/cli/parse.cc", "toml++/": "src/base/toml_file.cc"}
GETENV = re.compile(r"\b(?:secure_)?getenv\s*\(|\benviron\b")


def check_file(path, folder, root, errors):
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    name = path.relative_to(root)
    if len(lines) >= MAX_LINES:
        errors.append(f"{name}: {len(lines)} lines (fewer than {MAX_LINES} are allowed)")
    for number, line in enumerate(lines, 1):
        where = f"{name}:{number}"
        if folder != "cli" and path.suffix in (".h", ".cc") and not path.stem.endswith("_test") and GETENV.search(line):
            errors.append(f"{where}: only src/cli reads environment variables")
        match = INCLUDE.match(line)
        if not match:
            continue
        system, target = match.group(1) == "<", match.group(2)
        if not str(name).startswith(TORCH_FOLDERS) and str(name) != "src/cli/main_torch.cc":
            if (system and LIBTORCH.match(target)) or ("src/" + target).startswith(TORCH_FOLDERS):
                errors.append(f'{where}: "{target}" needs libtorch, which only {", ".join(TORCH_FOLDERS)} see')
        for prefix, unit in ONE_UNIT.items():
            if system and target.startswith(prefix) and str(name) != unit:
                errors.append(f"{where}: only {unit} includes <{target}>")
        if target == "nlohmann/json.hpp" and path.suffix == ".h" and str(name) != "src/base/json.h":
            errors.append(f"{where}: headers use nlohmann/json_fwd.hpp")
        if system:
            continue
        other = target.split("/")[0]
        if other == "kedge" and (root / "include" / target).exists():
            continue
        if folder is None:
            errors.append(f'{where}: public headers do not include "{target}"')
        elif other not in FLOOR:
            errors.append(f'{where}: "{target}" is not relative to src/')
        elif other != folder and FLOOR[other] >= FLOOR[folder]:
            relation = "beside" if FLOOR[other] == FLOOR[folder] else "above"
            errors.append(f'{where}: {folder} (floor {FLOOR[folder]}) includes "{target}", which stands {relation} it')


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent).resolve()
    errors, count = [], 0
    for path in sorted((root / "src").rglob("*")):
        if path.suffix not in (".h", ".cc"):
            continue
        folder = path.relative_to(root / "src").parts[0]
        if folder not in FLOOR:
            errors.append(f"src/{folder}: not in the table of floors")
            continue
        count += 1
        check_file(path, folder, root, errors)
    for path in sorted((root / "include").rglob("*.h")):
        count += 1
        check_file(path, None, root, errors)
    for folder in ("tests", "fuzz", "tools"):
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in (".h", ".cc", ".py", ".sh") and len(path.read_bytes().splitlines()) >= MAX_LINES:
                errors.append(f"{path.relative_to(root)}: {MAX_LINES} lines or more")
    if count == 0:
        errors.append(f"no sources under {root}")
    print("\n".join(errors) if errors else f"{count} files keep to their floors")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
