#!/usr/bin/env bash
# Every accuracy benchmark on one GPU, side by side, in one call:
#
#     TACE_AL_DATA=<folder of the data files> benchmarks/gpu_accuracy.sh [RESULTS] [TIME] [PRESET]
#
# RESULTS  folder whose tables and curves gain the new rows (default: benchmarks/results)
# TIME     training time of the acetylacetone models (default: 7m); tasks of two or three models
#          divide it among them, so that everything ends together
# PRESET   shape of the acetylacetone networks (default: small)
#
# PYTHON and DEVICE may be set in the environment (python3, cuda).
#
# Small networks leave most of a large GPU idle, so the processes share it; times in the tables are
# those of a shared GPU. All exit states are checked: one failed task fails the call.
set -u
cd "$(dirname "$0")/.."
: "${TACE_AL_DATA:?export it as the folder of the data files}"
python=${PYTHON:-python3}
device=${DEVICE:-cuda}
results=${1:-benchmarks/results}
time=${2:-7m}
preset=${3:-small}
export TACE_AL_DATA OMP_NUM_THREADS=1
seconds=$("$python" -c 'from sys import argv; from tace_al.cli.time_limit import seconds_from_text as s
print(int(s(argv[1])))' "$time") || exit 2
half=$((seconds / 2))s
third=$((seconds / 3))s
runs=$(mktemp -d)
mkdir -p "$results"
names=()
pids=()

start() { # name of the log, then the arguments of the benchmark
    local log=$1
    shift
    "$python" -u -m benchmarks.accuracy "$@" --device "$device" --results "$runs/$log" \
        >"$runs/$log.log" 2>&1 &
    names+=("$log")
    pids+=("$!")
}

# a folder for each process: two must not write one table at once
for product in spectral spatial moment; do
    start "acac_$product" acac --models full --product "$product" --preset "$preset" \
        --time-limit "$time"
done
start sio2 sio2 --time-limit "$half"
start batio3 batio3 --time-limit "$half"
start dimers dimers --time-limit "$third"
start nio nio --time-limit "$half"
start qm7b qm7b --time-limit "$third"
start cumulenes cumulenes --time-limit "$third"

failed=0
for index in "${!pids[@]}"; do
    if ! wait "${pids[$index]}"; then
        echo "${names[$index]} failed; the end of its log:"
        tail -n 5 "$runs/${names[$index]}.log"
        failed=1
    fi
done
"$python" -m benchmarks.accuracy_merge "$results" "$runs"/*/accuracy_*.json
rm -r "$runs"
exit "$failed"
