#!/bin/bash
# The same without a scheduler: start it on each of the hosts.
#
#     HOSTS=2 GPUS=8 FIRST=10.0.0.1 JOB=mine conf/cluster/torchrun.sh mnist trainer.max_epochs=40
#
# FIRST is the address of one of them, JOB the name of the run. Started again with the same name, on
# all hosts, it goes on where it was. Where a host's name does not lead to the address that the others
# know it by, give that too: ADDRESS=10.0.0.2.

set -euo pipefail
: "${HOSTS:?how many hosts}" "${GPUS:?how many GPUs in each}" "${FIRST:?address of one host}"
: "${JOB:?a name for the run}"

own=()
if [ -n "${ADDRESS:-}" ]; then
    [ "$ADDRESS" = "$FIRST" ] && is_first=true || is_first=false
    own=(--local-addr="$ADDRESS" --rdzv-conf="is_host=$is_first")
fi

exec torchrun --nnodes="$HOSTS" --nproc-per-node="$GPUS" --rdzv-backend=c10d \
    --rdzv-endpoint="$FIRST:${PORT:-29400}" --rdzv-id="$JOB" "${own[@]}" \
    -m acn_lightning fit "$@" trainer.num_nodes="$HOSTS" trainer.devices="$GPUS" \
    trainer.strategy=ddp resume=auto
