#!/usr/bin/env python3
"""Writes tests/goldens/chat_templates/expected.json: what transformers renders.

Each *.jinja there with each conversation of conversations.json, and each snippet of snippets.json by itself. Rendered by
the environment that transformers compiles chat templates with, without strftime_now, whose result changes every day. A
case that raises is {"error": true}.

Needs transformers 5 and jinja2 3.1.6. usage: make_chat_template_goldens.py [ROOT]
"""
import json
import pathlib
import sys

import jinja2
import transformers
from transformers.utils import chat_template_utils as utils

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def render(source, messages, add_generation_prompt=False, variables=None):
    template = utils._compile_jinja_template(source)
    template.environment.globals.pop("strftime_now", None)
    template.globals.pop("strftime_now", None)
    names = {"tools": None, "documents": None, **TOKENS, **(variables or {})}
    return template.render(messages=utils._alias_reasoning_fields(messages),
                           add_generation_prompt=add_generation_prompt, **names)


def attempt(source, *args):
    try:
        return render(source, *args)
    except (jinja2.TemplateError, TypeError, ValueError, SyntaxError, ArithmeticError, LookupError):
        return {"error": True}


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent).resolve()
    folder = root / "tests/goldens/chat_templates"
    read = lambda name: json.loads((folder / name).read_text(encoding="utf-8"))
    conversations, snippets = read("conversations.json"), read("snippets.json")
    expected = {"made_with": {"transformers": transformers.__version__, "jinja2": jinja2.__version__},
                "special_tokens": TOKENS, "templates": {}, "snippets": []}
    for path in sorted(folder.glob("*.jinja")):
        source = path.read_bytes().decode("utf-8")
        expected["templates"][path.stem] = {
            c["name"]: attempt(source, c["messages"], c.get("add_generation_prompt", False), c.get("variables"))
            for c in conversations}
    messages, variables = snippets["messages"], snippets["variables"]
    expected["snippets"] = [attempt(source, messages, True, variables) for source in snippets["sources"]]
    text = json.dumps(expected, ensure_ascii=False, indent=1)
    (folder / "expected.json").write_text(text + "\n", encoding="utf-8")
    errors = sum(isinstance(e, dict) for e in expected["snippets"])
    print(f"{len(expected['templates'])} templates x {len(conversations)} conversations, "
          f"{len(snippets['sources'])} snippets, {errors} of them errors")


if __name__ == "__main__":
    main()
