#!/usr/bin/env bash
# lm-eval asks a Hugging Face model for the log-likelihood of an answer behind a context. An answer's
# score, one would think, depends on nothing but the two. With lm-eval 0.4.13 it depends on what else
# is asked: where another request's context and answer together are the same tokens, cut at another
# place ("A B" + "C D" and "A B C" + "D"), the shorter answer is scored at the position where
# the longer one begins. `HFLM`'s argument `logits_cache`, on by default, does that; it is
# for multiple choice, where contexts are equal. Rolling log-likelihood of a text that repeats
# itself makes such requests by itself.
#
# Seen with lm-eval 0.4.13 on a small random Llama: " D" behind "A B C" is -9.7564 when it is asked
# alone or with logits_cache=False, and -5.6199 beside " C D" behind "A B". No warning. This script
# fails where that is no longer so. It needs Python >= 3.11 and some minutes of downloads.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    "lm-eval==0.4.13" "transformers==5.24.0" "tokenizers==0.23.2" "torch==2.13.0" "accelerate==1.14.0"

cat > "$folder/answers.py" <<'PYTHON'
import logging
import os
from importlib.metadata import version

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
import transformers
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, models, pre_tokenizers

logging.disable(logging.WARNING)
words = ["<s>", *(f"w{number}" for number in range(31))]
made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<s>"))
made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = transformers.PreTrainedTokenizerFast(
    tokenizer_object=made, bos_token="<s>", eos_token="<s>", pad_token="<s>"
)
torch.manual_seed(0)
shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
config = transformers.LlamaConfig(
    vocab_size=32, num_attention_heads=2, initializer_range=0.5, **shape
)
model = transformers.LlamaForCausalLM(config).eval()


def scores(pairs, **options):
    lm = HFLM(pretrained=model, tokenizer=tokenizer, device="cpu", batch_size=1, **options)
    asked = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    return [score for score, _ in lm.loglikelihood(asked, disable_tqdm=True)]


print("lm-eval", version("lm-eval"), "transformers", transformers.__version__)
first, second = ("w1 w2", " w3 w4"), ("w1 w2 w3", " w4")
(alone,) = scores([second])
together = scores([first, second])[1]
without = scores([first, second], logits_cache=False)[1]
print(f"{second}: alone {alone:.4f}, beside {first} {together:.4f}, without the cache {without:.4f}")
assert abs(alone - without) < 1e-4, "the cache is not what makes the difference"
assert abs(alone - together) > 1, "as one would guess: the other request changes nothing"
PYTHON
"$folder/venv/bin/python" "$folder/answers.py" 2>"$folder/errors" \
    || { tail -n 3 "$folder/errors" >&2; exit 1; }
echo "as seen: an answer's score depends on what else is asked"
