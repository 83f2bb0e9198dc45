#!/usr/bin/env bash
# One node, a rank on each GPU.
#
#   examples/launch/one-node.sh examples/nano.yaml data.path=store run_dir=runs/nano \
#       parallel.tp=2 parallel.pp=2
#
# Behind RUN.yaml come overrides, as with `teleflm train`. RANKS=4 takes four ranks instead of
# eight; where there is no GPU they compute on the CPU. The same line goes on with a run that was
# stopped.
set -euo pipefail

# On SIGTERM or Ctrl-C torchrun asks the ranks to stop, and kills them after so many seconds: a step
# and a save must fit. PyTorch 2.11 does not read it and gives them 30.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT="${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-300}"

# What a rank says goes to the terminal behind its number, and to files of its own:
# $LOGS/RUN/attempt_N/LOCAL_RANK/stderr.log, with N the restarts so far.
export TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE='[rank ${rank}]: '

# When a rank dies, torchrun stops the others and starts all of them again, so often at most; they
# go on from the newest checkpoint that verifies. What fails for a reason that stays, such as a key
# that is wrong, fails each time.
exec torchrun --standalone --nproc-per-node "${RANKS:-8}" --max-restarts 3 \
    --log-dir "${LOGS:-logs}" --tee 3 \
    -m teleflm train "$@"
