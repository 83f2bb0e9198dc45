#!/usr/bin/env bash
# A `torch.autograd.Function` brings its own backward pass. Under `torch.compile` its gradients are
# those of the same function uncompiled, one would think. With torch 2.11.0 they are all 0 where
# forward's last operation is in place, as in `x.clone().mul_(by)`: no error and no warning, also with
# the backend "eager", which compiles nothing.
#
# Seen with torch 2.11.0: gradients 2, 4, 8 uncompiled and 0, 0, 0 compiled; the result itself is
# right. With 2.13.0 they are 2, 4, 8 both times. This script fails where that is no longer so. It needs
# Python >= 3.11 and some minutes of downloads.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"

cat > "$folder/scaled.py" <<'PYTHON'
import torch


class Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, by):
        ctx.save_for_backward(by)
        return x.clone().mul_(by)

    @staticmethod
    def backward(ctx, gradient):
        (by,) = ctx.saved_tensors
        return gradient * by, None


def scaled(x, by):
    return Scaled.apply(x, by)


def result_and_gradient(function):
    x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    result = function(x, torch.tensor([2.0, 4.0, 8.0]))
    result.sum().backward()
    return result.tolist(), x.grad.tolist()


plain = result_and_gradient(scaled)
compiled = result_and_gradient(torch.compile(scaled, backend="eager"))
print(f"torch {torch.__version__}: uncompiled {plain}, compiled {compiled}")
assert plain == ([2.0, 8.0, 24.0], [2.0, 4.0, 8.0])
wrong = torch.__version__.startswith("2.11.")
assert compiled == (plain[0], [0.0, 0.0, 0.0] if wrong else plain[1]), "another gradient than seen"
PYTHON
for version in 2.13.0 2.11.0; do
    "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        "torch==$version" numpy
    "$folder/venv/bin/python" "$folder/scaled.py"
done
echo "as seen: torch 2.11.0 gives a compiled function of one's own a gradient of 0"
