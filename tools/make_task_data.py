#!/usr/bin/env python3
"""Makes tasks/data: the small subsets of benchmarks that are part of kedge (tasks/data/README.md).

usage: tools/make_task_data.py FOLDER_OF_THE_FULL_RECORDS

Every k-th record, so that a subset is spread over the whole; of BLiMP the first records of each paradigm; of MMLU a
sample by Python's random with seed 424242. Only sets whose licence lets them be part of an Apache-2.0 program without
terms of its own for the whole: ARC, BoolQ and WikiText-2 are share-alike and stay out.
"""
import argparse
import gzip
import json
import lzma
import pathlib
import random

# name in tasks/data: (file, records, fields)
SETS = {
    "hellaswag.jsonl": ("hellaswag.validation.from-txt.jsonl.gz", 100, ["query", "endings", "label"]),
    "piqa.jsonl": ("piqa.validation.jsonl.gz", 100, ["goal", "sol1", "sol2", "label"]),
    "winogrande.jsonl": ("winogrande_xl.validation.jsonl.gz", 100, ["sentence", "option1", "option2", "answer"]),
    "lambada_openai.jsonl": ("lambada_openai.test.jsonl.gz", 100, ["text"]),
    "openbookqa.jsonl": ("openbookqa.validation.jsonl.gz", 100, ["question_stem", "choices", "answerKey"]),
    "commonsense_qa.jsonl": ("commonsense_qa.validation.jsonl.gz", 100, ["question", "choices", "answerKey"]),
    "social_iqa.jsonl": ("social_iqa.validation.jsonl.gz", 100,
                         ["context", "question", "answerA", "answerB", "answerC", "label"]),
    "copa.jsonl": ("copa.validation.jsonl.gz", 100, ["premise", "choice1", "choice2", "question", "label"]),
    "wsc273.jsonl": ("winograd_wsc273.llm-foundry.jsonl.gz", 100, ["context_options", "continuation", "gold"]),
    "truthfulqa.jsonl": ("truthfulqa_mc_task.v1.json.gz", 50, ["question", "mc1_targets", "mc2_targets"]),
    "gsm8k.jsonl": ("gsm8k.test.jsonl.gz", 25, ["question", "answer"]),
}


def read(path):
    opener = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    with opener(path, "rt", encoding="utf-8") as file:
        text = file.read()
    return json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.split("\n") if line]


def write(name, rows):
    folder = pathlib.Path(__file__).parent.parent / "tasks/data"
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / name).write_text(text, encoding="utf-8")
    print(f"{name}: {len(rows)} records, {len(text.encode())} bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    folder = parser.parse_args().folder
    for name, (file, count, fields) in SETS.items():
        rows = read(folder / file)
        write(name, [{field: rows[i * len(rows) // count][field] for field in fields} for i in range(count)])
    seen = {}
    for row in read(folder / "blimp.jsonl.xz"):
        seen.setdefault(row["UID"], []).append({key: row[key] for key in ("UID", "sentence_good", "sentence_bad")})
    write("blimp.jsonl", [row for rows in seen.values() for row in rows[:6]])
    rows = read(folder / "mmlu.test.jsonl.gz")
    write("mmlu_tiny.jsonl", [rows[i] for i in sorted(random.Random(424242).sample(range(len(rows)), 100))])


if __name__ == "__main__":
    main()
