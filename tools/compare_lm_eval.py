#!/usr/bin/env python3
"""Outside witness: does `kedge eval` score what lm-evaluation-harness scores?

Needs (not at run time of kedge, only here): lm-eval with torch and transformers.

  tools/compare_lm_eval.py MODEL_DIR --data-dir FOLDER [--tasks a,b] [--limit 50] [--num-fewshot N] [--golden FILE]

The harness (its Hugging Face backend, fp32) gets its own task files, prompts and metrics; only where the records are
is replaced, and where their fields differ from the hub's, the keys in OVERRIDES. Both are run on the same records; for
each task the greatest difference of a log-likelihood, the metrics of both, and the seconds that each took to score are
printed. Exit code 1 unless all log-likelihoods are within --tolerance and all metrics agree. --golden writes the
harness's numbers.
"""
import argparse
import gzip
import json
import lzma
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import tomllib

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false", DISABLE_MULTIPROC="1")

import datasets
import lm_eval
import yaml
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

HARNESS = pathlib.Path(lm_eval.__file__).parent / "tasks"
ROOT = pathlib.Path(__file__).parent.parent
MMLU = {"description": "The following are multiple choice questions (with answers) about "
                       "{{subject|replace('_', ' ')}}.\n\n"}
# kedge's task -> the harness's file, and what these records need.
OVERRIDES = {
    "arc_easy": ("arc/arc_easy.yaml", {}),
    "arc_challenge": ("arc/arc_challenge.yaml", {}),
    "boolq": ("super_glue/boolq/default.yaml", {"doc_to_target": "{{answer|int}}"}),
    "commonsense_qa": ("commonsense_qa/default.yaml", {}),
    "copa": ("super_glue/copa/default.yaml", {}),
    "gsm8k": ("gsm8k/gsm8k.yaml", {"num_fewshot": 0}),
    "hellaswag": ("hellaswag/hellaswag.yaml", {"process_docs": None, "doc_to_choice": "endings"}),
    "lambada_openai": ("lambada/lambada_openai.yaml", {}),
    "openbookqa": ("openbookqa/openbookqa.yaml", {}),
    "piqa": ("piqa/piqa.yaml", {}),
    "social_iqa": ("siqa/siqa.yaml", {}),
    "truthfulqa_mc1": ("truthfulqa/truthfulqa_mc1.yaml", {}),
    "truthfulqa_mc2": ("truthfulqa/truthfulqa_mc2.yaml", {}),
    "winogrande": ("winogrande/default.yaml", {}),
    "wsc273": ("wsc273/default.yaml", {"process_docs": None, "doc_to_text": "{{gold}}",
                                       "doc_to_choice": "{{context_options}}", "doc_to_target": "{{continuation}}"}),
    "mmlu": ("mmlu/default/_default_template_yaml", MMLU),
    "mmlu_tiny": ("mmlu/default/_default_template_yaml", {**MMLU, "fewshot_config": {"sampler": "default"}}),
    "blimp": ("blimp/_template_yaml", {}),
    "text": ("wikitext/wikitext.yaml", {"doc_to_target": "{{text}}", "process_results": None}),
}
FIRST = {"blimp": "UID", "mmlu": "subject"}  # of tasks with subtasks the first one is compared


def records_of(task, folder):
    definition = tomllib.loads((ROOT / f"tasks/{task}.toml").read_text(encoding="utf-8"))
    for name in definition["files"]:
        for packing, opener in (("", open), (".gz", gzip.open), (".xz", lzma.open)):
            path = folder / (name + packing)
            if path.exists():
                with opener(path, "rt", encoding="utf-8") as file:
                    text = file.read()
                if text.startswith("["):
                    return json.loads(text)
                return [json.loads(line) for line in text.split("\n") if line.strip()]
    sys.exit(f"no records of {task} in {folder}")


def prepared(task, rows):
    """Fields as the hub's data sets have them, where a template alone cannot make them."""
    if task.startswith("truthfulqa"):
        # As lists: the hub's form, and no shared schema of all answers.
        return [{"question": row["question"], **{key: {"choices": list(row[key]), "labels": list(row[key].values())}
                                                 for key in ("mc1_targets", "mc2_targets")}} for row in rows]
    return rows


def harness_task(task, rows, folder):
    """A task file in `folder` that includes the harness's own; its name."""
    file, more = OVERRIDES[task]
    data = folder / f"{task}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in prepared(task, rows)), encoding="utf-8")
    name = f"compared_{task}"
    config = {"include": str(HARNESS / file), "task": name, "tag": None, "dataset_path": "json", "dataset_name": None,
              "dataset_kwargs": {"data_files": {"test": str(data)}}, "training_split": None, "validation_split": None,
              "test_split": "test", "fewshot_split": "test", "should_decontaminate": False, **more}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return name


def run_kedge(arguments, tasks, out):
    words = [arguments.kedge, "eval", arguments.model, "--tasks", ",".join(tasks), "--data-dir", arguments.data_dir,
             "--out", out, "--quiet", "--json", "--threads", arguments.threads]
    if arguments.limit:
        words += ["--limit", arguments.limit]
    if arguments.num_fewshot is not None:
        words += ["--num-fewshot", arguments.num_fewshot]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.stderr)
    return json.loads(done.stdout)["results"]


def pairs_of(resps):
    """(log-likelihood, greedy); of rolling log-likelihoods the harness knows no greedy."""
    return [(float(resp[0]), str(resp[1]) == "True") if isinstance(resp, (list, tuple)) else (float(resp), None)
            for resp in resps]


def compare(task, theirs, ours, kedge_samples, tolerance):
    """A row for the table, and whether all agrees."""
    worst, greedy, count = 0.0, 0, 0
    for their, our in zip(theirs["samples"], kedge_samples, strict=True):
        if isinstance(our["resps"][0], str):  # generate_until
            greedy += their["resps"][0][0] != our["resps"][0]
            count += 1
            continue
        responses = [resp[0] for resp in their["resps"]]
        for (a, greedy_a), (b, greedy_b) in zip(pairs_of(responses), pairs_of(our["resps"]), strict=True):
            # Sums of thousands of logarithms in fp32, as the harness has them for texts, are exact to 1e-6.
            rounding = 1e-6 * abs(a) if greedy_a is None else 0
            worst = max(worst, abs(a - b) - rounding)
            greedy += greedy_a is not None and greedy_a != greedy_b
            count += 1
    metrics, equal = [], True
    for name, value in theirs["metrics"].items():
        metric = name.split(",")[0]
        mine = ours.get(name)
        close = mine is not None and abs(mine - value) <= 1e-4 * max(1.0, abs(value))
        equal = equal and close
        metrics.append(f"{metric} {value:.4f} / {mine if mine is None else round(mine, 4)}")
    good = worst <= tolerance and greedy == 0 and equal
    print(f"{task:18} {len(kedge_samples):6} {count:7}  {worst:.2e}  {greedy:3}  {'; '.join(metrics)}  "
          f"{'agree' if good else 'DIFFER'}", flush=True)
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data-dir", type=pathlib.Path, default=ROOT / "tasks/data")
    parser.add_argument("--tasks", default="hellaswag,piqa,winogrande,lambada_openai,openbookqa,commonsense_qa,"
                                           "social_iqa,copa,wsc273,truthfulqa_mc1,truthfulqa_mc2,blimp,mmlu_tiny")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--num-fewshot", type=int)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tolerance", type=float, default=1e-3)
    parser.add_argument("--kedge", default=str(ROOT / "build/release/kedge"))
    parser.add_argument("--golden", type=pathlib.Path)
    arguments = parser.parse_args()
    datasets.disable_progress_bars()
    import torch
    torch.set_num_threads(arguments.threads)
    golden, good = {}, True
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        model = HFLM(pretrained=arguments.model, dtype="float32", device="cpu", batch_size=arguments.batch_size)
        names, ours_names = {}, []
        for task in arguments.tasks.split(","):
            rows, ours = records_of(task, arguments.data_dir), task
            if task in FIRST:
                first = rows[0][FIRST[task]]
                rows, ours = [row for row in rows if row[FIRST[task]] == first], f"{task}_{first}"
            names[ours] = harness_task(task, rows, folder)
            ours_names.append(ours)
        manager = TaskManager(include_path=str(folder), include_defaults=False)
        results = run_kedge(arguments, ours_names, folder / "out")
        print("task              records requests  max |dll|  greedy  metrics (harness / kedge)")
        for ours, theirs in names.items():
            start = time.monotonic()
            run = lm_eval.simple_evaluate(model=model, tasks=[theirs], limit=arguments.limit, task_manager=manager,
                                          num_fewshot=arguments.num_fewshot, log_samples=True, bootstrap_iters=1000)
            seconds = time.monotonic() - start
            metrics = {name: value for name, value in run["results"][theirs].items()
                       if "," in name and isinstance(value, (int, float))
                       and not name.startswith(("perplexity_stderr",))}
            # Once per record: the harness lists a record for each of the task's filters.
            once = {sample["doc_id"]: sample for sample in run["samples"][theirs]}
            samples = [once[doc_id] for doc_id in sorted(once)]
            lines = (folder / "out" / f"samples_{ours}.jsonl").read_text(encoding="utf-8").split("\n")
            mine = [json.loads(line) for line in lines if line]
            good = compare(ours, {"samples": samples, "metrics": metrics}, results["results"][ours], mine,
                           arguments.tolerance) and good
            if isinstance(samples[0]["resps"][0][0], str):
                continue  # texts have no log-likelihoods to keep
            golden[ours] = {"metrics": metrics,
                            "resps": [[list(pair) for pair in pairs_of([resp[0] for resp in sample["resps"]])]
                                      for sample in samples]}
            if len(names) == 1:
                print(f"seconds to score: harness {seconds:.1f} (batches of {arguments.batch_size}), "
                      f"kedge {results['score_seconds']:.1f}")
    if arguments.golden:
        note = {"lm_eval": lm_eval.__version__, "limit": arguments.limit, "num_fewshot": arguments.num_fewshot}
        arguments.golden.write_text(json.dumps({**note, "tasks": golden}) + "\n", encoding="utf-8")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
