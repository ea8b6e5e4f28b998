#!/bin/bash
# A run on several hosts without a scheduler: start this script on each host.
#
#     HOSTS=2 GPUS=8 FIRST=10.0.0.1 JOB=mine cluster/torchrun.sh mnist trainer.max_epochs=40
#
# FIRST is the address of one of the hosts, JOB the name of the run. To resume the run, start the
# script again on all hosts with the same name. If a host's name does not resolve to the address
# that the other hosts use for it, set that address too: ADDRESS=10.0.0.2.

set -euo pipefail
: "${HOSTS:?how many hosts}" "${GPUS:?how many GPUs per host}" "${FIRST:?address of one host}"
: "${JOB:?a name for the run}"

own=()
if [ -n "${ADDRESS:-}" ]; then
    [ "$ADDRESS" = "$FIRST" ] && is_first=true || is_first=false
    own=(--local-addr="$ADDRESS" --rdzv-conf="is_host=$is_first")
fi

# To bash before 4.4 an empty list is an unset variable, hence the +.
exec torchrun --nnodes="$HOSTS" --nproc-per-node="$GPUS" --shutdown-timeout=300 \
    --rdzv-backend=c10d --rdzv-endpoint="$FIRST:${PORT:-29400}" --rdzv-id="$JOB" \
    ${own[@]+"${own[@]}"} -m acn_lightning fit "$@" trainer.num_nodes="$HOSTS" \
    trainer.devices="$GPUS" trainer.strategy=ddp resume=auto
