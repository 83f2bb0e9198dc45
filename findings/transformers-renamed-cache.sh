#!/usr/bin/env bash
# transformers 5.24.0 passes the key-value cache to a model's forward as `cache`, where 5.23.0 and all
# before it said `past_key_values`. Models in transformers take both names, and outputs made with the
# old name are understood, with a notice that it is deprecated; but `generate` calls a model's own
# forward by the new name alone. One that follows the old contract, with `past_key_values` and
# `**kwargs` in its signature, computes each new token from the last one only: other text, no error.
#
# Seen with torch 2.13.0, the same weights and prompt, greedily:
#   5.23.0: with the cache the text is the one without it.
#   5.24.0: without the cache the same text as before; with it another.
# This script fails where that is no longer so. It needs Python >= 3.11 and some minutes of downloads.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"

cat > "$folder/generate.py" <<'PYTHON'
import json

import torch
import torch.nn.functional as F
from transformers import DynamicCache, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast


class Config(PretrainedConfig):
    model_type = "one-layer"
    num_hidden_layers = 1
    vocab_size = 50


class OneLayer(PreTrainedModel, GenerationMixin):
    """Attention over embeddings, causal, with a cache."""

    config_class = Config

    def __init__(self, config):
        super().__init__(config)
        self.embedding = torch.nn.Embedding(50, 16)
        self.qkv = torch.nn.Linear(16, 48)
        self.head = torch.nn.Linear(16, 50)
        self.post_init()

    def forward(self, input_ids=None, past_key_values=None, use_cache=None, **kwargs):
        x = self.embedding(input_ids)
        q, k, v = self.qkv(x)[:, None].chunk(3, dim=-1)
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache()
        if past_key_values is not None:
            k, v = past_key_values.update(k, v, 0)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=q.shape[2] > 1)
        logits = self.head(x + y[:, 0])
        return CausalLMOutputWithPast(logits=logits, past_key_values=past_key_values)


net = OneLayer(Config()).eval()
random = torch.Generator().manual_seed(0)
for weight in net.parameters():
    weight.data.normal_(generator=random)
options = dict(max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=0)
prompt = torch.tensor([[3, 14, 15, 9, 2, 6]])
texts = [net.generate(prompt, use_cache=use, **options)[0, 6:].tolist() for use in (True, False)]
print(json.dumps(texts))
PYTHON

text_with() {
  "$python" -m pip install --quiet --disable-pip-version-check "torch==2.13.0" "transformers==$1" numpy
  "$python" "$folder/generate.py" 2> "$folder/said-$1" | tail -n 1
}
older=$(text_with 5.23.0)
newer=$(text_with 5.24.0)
echo "5.23.0, with the cache and without: $older"
echo "5.24.0, with the cache and without: $newer"
"$python" - "$older" "$newer" <<'PYTHON'
import json
import sys

(older, reference), (newer, again) = map(json.loads, sys.argv[1:])
assert older == reference == again, "5.23.0, or 5.24.0 without the cache, gives another text"
assert newer[0] == reference[0] and newer != reference, "5.24.0 uses the cache of such a model now"
PYTHON
if grep -q Traceback "$folder/said-5.24.0"; then exit 1; fi
echo "as seen: 5.24.0 gives another text with the cache, and no error"
