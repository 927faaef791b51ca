#!/usr/bin/env python3
"""tests/goldens/tokenizer_training.json: what the `tokenizers` library learns from small texts.

Needs (not at run time of kedge, only here): tokenizers.

  tools/make_tokenizer_golden.py models/demo-text.txt tests/goldens/tokenizer_training.json
"""
import json
import pathlib
import sys
import tempfile

import tokenizers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

ODD_TEXT = ("aaaa aaa aaaaaaa bbbb abab ababab\n" * 3 + "naïve café Ünïcode – “quoted” 東京 東京都 🙂🙂 🙂\n" * 2 +
            "x=1234567; y = 12.5\t\ttab\r\nline two   three    \n\n\n  <|endoftext|> the the the\n" + "é" * 9)
DIGITS = r"\p{N}{1,3}|[^\s\p{L}\p{N}]?\p{L}+|\s+|[^\s\p{L}\p{N}]+"


def train(text, vocab_size, min_frequency, special_tokens, pattern):
    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not pattern)
    tokenizer.pre_tokenizer = (pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), byte_level])
                               if pattern else byte_level)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, min_frequency=min_frequency, special_tokens=special_tokens,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        tokenizer.train([file.name], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    by_id = sorted(model["vocab"], key=model["vocab"].get)
    first = 256 + len(special_tokens)
    return {"text": text, "vocab_size": vocab_size, "min_frequency": min_frequency, "special_tokens": special_tokens,
            "pattern": pattern, "first_tokens": by_id[:first], "later_tokens": by_id[first:],
            "merges": model["merges"], "ids": tokenizer.encode(text).ids}


def main():
    prose = pathlib.Path(sys.argv[1]).read_text(encoding="utf-8")[:12000]
    prose = prose[:prose.rindex("\n") + 1]
    cases = [train(prose, 600, 0, ["<|endoftext|>"], ""), train(prose, 2000, 3, ["<s>", "</s>"], DIGITS),
             train(ODD_TEXT, 2000, 0, ["<|endoftext|>"], ""), train(ODD_TEXT, 300, 2, [], DIGITS)]
    golden = {"tokenizers": tokenizers.__version__, "cases": cases}
    pathlib.Path(sys.argv[2]).write_text(json.dumps(golden, ensure_ascii=True) + "\n")


if __name__ == "__main__":
    main()
