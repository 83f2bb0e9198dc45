#!/usr/bin/env bash
# Several nodes without a scheduler: the same line on each of them, at about the same time.
#
#   NODES=4 HEAD=node-0 examples/launch/several-nodes.sh examples/tele-flm-52b.yaml \
#       parallel.tp=8 parallel.pp=4
#
# HEAD is one of the nodes, by a name or address that all of them reach. The run folder, the data
# and the checkpoints are on a file system that all of them see. See one-node.sh for what is the
# same here.
set -euo pipefail

export TORCH_ELASTIC_SHUTDOWN_TIMEOUT="${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-300}"
export TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE='[rank ${rank}]: '

# The ranks of a node have consecutive numbers, and tensor parallelism takes the nearest ones: with
# a parallel.tp that divides RANKS it stays inside the node. The nodes wait for each other at HEAD,
# at the start and at each restart; runs that use the same HEAD at once need ports of their own.
exec torchrun --nnodes "$NODES" --nproc-per-node "${RANKS:-8}" --max-restarts 3 \
    --rdzv-backend c10d --rdzv-endpoint "$HEAD:${PORT:-29500}" --rdzv-id teleflm \
    --log-dir "${LOGS:-logs}/$(hostname)" --tee 3 \
    -m teleflm train "$@"
