#!/usr/bin/env bash
# Trains, evaluates and writes up the runs below benchmarks/papers: RESULTS.md and its figures.
# What is finished is not done again: a run continues after its last epoch, an evaluation is made
# where none lies. Arguments name runs (folders); without any, all are done.
set -euo pipefail
cd "$(dirname "$0")/.."
spikeport=${SPIKEPORT:-.venv/bin/spikeport}
[ $# -gt 0 ] || set -- benchmarks/papers/*/

for run in "$@"; do
  run=${run%/}
  [ ! -f "$run/evaluation.json" ] && [ ! -f "$run/detection.json" ] || continue
  data=$(sed -n 's/^data = "\(.*\)"$/\1/p' "$run/config.toml")
  if grep -q '^backbone' "$run/config.toml"; then
    "$spikeport" detector train --config "$run/config.toml" --out "$run"
    "$spikeport" detector evaluate "$run" --data "$data@test" --lava 10
    if grep -q '^activation = "cqrelu"' "$run/config.toml"; then
      net=$(mktemp -d)
      "$spikeport" convert "$run" -o "$net/snn.net" --neuron cif --calibrate "$data" \
        --calibration-samples 16
      "$spikeport" detector show "$net/snn.net" --data "$data@test[8:11]" --checkpoint "$run" \
        -o "$run/detections.png"
      rm -r "$net"
    fi
    continue
  fi
  # A ReLU network is where others start; it is not evaluated itself.
  if grep -q '^activation = "relu"' "$run/config.toml"; then
    [ -f "$run/model.safetensors" ] || "$spikeport" train --config "$run/config.toml" --out "$run"
    continue
  fi
  "$spikeport" train --config "$run/config.toml" --out "$run"
  "$spikeport" evaluate "$run" --data "$data@test" --weight-bits 8,4 \
    --rounding gptq --calibrate "$data@train" --lava 10
done
"$(dirname "$spikeport")/python" -m benchmarks.report benchmarks/papers --speed benchmarks/speed \
  --figures docs/results
