#!/usr/bin/env bash
# Trains BERT pruned by several methods and compares them: ./run_experiments.sh -h
set -euo pipefail

EPOCHS=25
BATCH_SIZE=96
LEARNING_RATE=2e-5
MODEL_SIZE=base
PRUNING_METHODS=magnitude,movement,spt,baseline
START_SPARSITY=0.0
END_SPARSITY=0.99
PRUNING_START=4
PRUNING_END=23
SPARSITY_STEPS=auto
SPT_EXPLORE=false
TASK=sst2
MAX_LEN=128

source "$(dirname "${BASH_SOURCE[0]}")/scripts/environment.sh"

defaults="epochs=$EPOCHS batch_size=$BATCH_SIZE learning_rate=$LEARNING_RATE model_size=$MODEL_SIZE
methods=${PRUNING_METHODS// /,} start_sparsity=$START_SPARSITY end_sparsity=$END_SPARSITY
pruning_start_epoch=$PRUNING_START pruning_end_epoch=$PRUNING_END sparsity_steps=${SPARSITY_STEPS// /,}
spt_explore_per_layer=$SPT_EXPLORE tasks=${TASK// /,} max_len=$MAX_LEN"

find_python
extras=("${KERAS_BACKEND:-tensorflow}")
before= with_file= only_plan= tracked=
for word in "$@"; do
    case "$word" in
        -h | --help) exec "$python" "$start" gated_bert sweep --defaults "$defaults" -h ;;
        --dry-run) only_plan=yes ;;
        --sweep-file | --sweep-file=*) with_file=yes ;;
    esac
    case "$before $word" in
        "--backend ray" | *" --backend=ray") extras+=(cluster) ;;
    esac
    # A tracker is an extra of its own name; --check refuses what is none.
    case "$word" in
        --track=*) words="${word#--track=}" && extras+=(${words//,/ }) ;;
        --track) tracked=yes ;;
        -*) tracked= ;;
        *) [ -z "$tracked" ] || extras+=(${word//,/ }) ;;
    esac
    before="$word"
done
# A sweep file is read by a library. Other refused flags are answered before anything is installed.
[ -z "$with_file" ] || ensure_installed "${extras[@]}"
[ -z "$only_plan" ] || exec "$python" "$start" gated_bert sweep --defaults "$defaults" "$@"
"$python" "$start" gated_bert sweep --defaults "$defaults" "$@" --check
ensure_installed "${extras[@]}"
exec "$python" "$start" gated_bert sweep --defaults "$defaults" "$@"
