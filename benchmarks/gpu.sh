#!/usr/bin/env bash
# Measure all that needs a GPU, in at most eight minutes. Needs no network.
#
#   benchmarks/gpu.sh OUT [PART[=SECONDS] ...]    on the GPU that PyTorch sees; all parts by default
#   DEVICE=cpu benchmarks/gpu.sh OUT              rehearsal of the same with tiny sizes on a CPU
#
# OUT/gpu.json has the results of all parts so far, OUT/log.txt what they printed, and
# OUT/*.trace.json.gz the profiles. A part that fails or runs out of its seconds costs only itself;
# what it measured before that is kept. PYTHON is the interpreter (.venv/bin/python or python3);
# WHEELS a folder of wheels to use where packages are missing; ASSETS a folder of UnityEyes2's assets
# to render eyes from, instead of the tests' tiny ones.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2

total_s=480
if (($# < 1)); then
    sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "benchmarks/gpu.sh" >&2
    exit 2
fi
mkdir -p "$1" && out=$(cd "$1" && pwd) || exit 2
shift
python=${PYTHON:-$([[ -x .venv/bin/python ]] && echo .venv/bin/python || echo python3)}
work=$(mktemp -d)
running=
trap 'rm -rf "$work"' EXIT
trap '[[ -n $running ]] && kill "$running"; exit 143' INT TERM
: >"$out/log.txt"

if [[ -n ${WHEELS:-} ]]; then
    "$python" -m pip install --quiet --no-index --no-deps --target "$work/site" "$WHEELS"/*.whl || exit 2
    export PYTHONPATH=$work/site${PYTHONPATH:+:$PYTHONPATH}
fi

# Seconds, and the command, of each part.
declare -A limits commands
case ${DEVICE:-cuda} in
cuda)
    "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || {
        echo "PyTorch sees no GPU; rehearse with DEVICE=cpu benchmarks/gpu.sh $out" >&2
        exit 2
    }
    limits=([machine]=30 [tests]=105 [rates]=150 [waiting]=25 [train]=60 [estimators]=30
        [trace_refinement]=35 [trace_training]=30 [eyes]=15)
    sizes_eyes=(--device cuda --count 1024)
    sizes_machine=() sizes_rates=() sizes_waiting=(--rounds 2) sizes_train=(--steps 10)
    sizes_estimators=(--rounds 1 --steps 60) sizes_refinement=() sizes_training=()
    ;;
cpu)
    export CUDA_VISIBLE_DEVICES=
    limits=([machine]=120 [tests]=120 [rates]=180 [waiting]=120 [train]=120 [estimators]=120
        [trace_refinement]=120 [trace_training]=120 [eyes]=120)
    sizes_eyes=(--device cpu --count 8)
    sizes_machine=(--size 64) sizes_rates=(--rows 16 --rounds 1 --processes 1)
    sizes_waiting=(--rows 64 --rounds 1) sizes_train=(--batch-size 4 --images 16 --rounds 1 --steps 1)
    sizes_estimators=(--rounds 1 --steps 2 --images 4) sizes_refinement=(--rows 4 --shards 2)
    sizes_training=(--batch-size 2)
    ;;
*)
    echo "DEVICE is cuda or cpu, found ${DEVICE}" >&2
    exit 2
    ;;
esac
# The most wanted first: what is left of the time is the limit of the last ones.
parts=(machine tests rates train eyes trace_refinement trace_training waiting estimators)
commands=(
    [machine]="benchmarks.gpu.machine ${sizes_machine[*]}"
    [tests]="benchmarks.gpu.tests"
    [rates]="benchmarks.refine rates ${sizes_rates[*]}"
    [waiting]="benchmarks.refine waiting ${sizes_waiting[*]}"
    [train]="benchmarks.train ${sizes_train[*]}"
    [eyes]="benchmarks.simulate ${sizes_eyes[*]} ${ASSETS:+--assets $ASSETS}"
    [estimators]="benchmarks.evaluate speed ${sizes_estimators[*]}"
    [trace_refinement]="benchmarks.gpu.trace refinement ${sizes_refinement[*]}"
    [trace_training]="benchmarks.gpu.trace training ${sizes_training[*]}"
)

# Run a part under its limit, or under what is left of all the time, and tell how it ended.
run_part() {
    local name=$1 limit=${limits[$1]} left=$((total_s - SECONDS)) began=$SECONDS status rc
    ((limit > left)) && limit=$left
    if ((limit < 1)); then
        : >"$work/$name.log"
        status="no time left" rc=null
    else
        echo "$name, at most $limit s: $python -m ${commands[$name]}" | tee -a "$out/log.txt"
        # The words of a command are meant to be split. Its whole process group is ended with it.
        # shellcheck disable=SC2086
        timeout --kill-after=5 "$limit" "$python" -u -m ${commands[$name]} --json "$work/$name.json" \
            >"$work/$name.log" 2>&1 &
        running=$!
        wait "$running"
        rc=$?
        running=
        case $rc in
        0) status=done ;;
        124 | 137) status="timed out" ;;
        *) status=failed ;;
        esac
    fi
    printf '{"status": "%s", "exit_code": %s, "seconds": %d, "limit_s": %d, "command": "%s"}\n' \
        "$status" "$rc" $((SECONDS - began)) "$limit" "${commands[$name]}" >"$work/$name.status"
    echo "$name: $status after $((SECONDS - began)) s" | tee -a "$work/$name.log"
    cat "$work/$name.log" >>"$out/log.txt"
    mv -f "$work"/*.trace.json.gz "$out" 2>/dev/null
    "$python" -m benchmarks.gpu.summary "$work" "$out/gpu.json"
    [[ $status == done ]]
}

(($#)) && parts=("$@")
SECONDS=0
failures=0
for part in "${parts[@]}"; do
    name=${part%%=*}
    if [[ -z ${commands[$name]:-} ]]; then
        echo "there is no part $name; the parts are: ${!commands[*]}" >&2
        exit 2
    fi
    [[ $part == *=* ]] && limits[$name]=${part#*=}
    run_part "$name" || ((failures++))
done
echo "$out/gpu.json after $SECONDS s, $failures of ${#parts[@]} parts not done"
exit $((failures > 0))
