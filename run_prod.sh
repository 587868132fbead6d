#!/usr/bin/env bash
# run_dev.sh with configs/prod_*.yaml, training through `accelerate launch`. See --help.
set -euo pipefail
unset CDPATH
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
  cat <<'TEXT'
usage: ./run_prod.sh [--fresh] [--yes] [accelerate's options ...] [--config key=value ...]

The six steps with configs/prod_*.yaml (whisper-medium; wav2vec2-large-xlsr-53 + mBART) on data/export/manifest.tsv.
Training runs through `accelerate launch`; options that are not ours go to it:

  ./run_prod.sh                                            one GPU, or what `accelerate config` has set
  ./run_prod.sh --multi_gpu --num_processes 8              eight GPUs of one machine
  ./run_prod.sh --multi_gpu --num_processes 16 --num_machines 2 --machine_rank R \
      --main_process_ip HOST --main_process_port 29500     on each of two machines, R = 0 and 1

Several machines share the folder of the project (or at least data/ and outputs/); machine 0 also evaluates and
draws. What is finished is not done again; after Ctrl-C the next call goes on.

  --fresh          do every step again
  --yes            answer yes to the installer
  --config ...     key=value overrides for both training configurations (the last option on the line)

Variables: TORCH_INDEX_URL, POLYVOX_VENV, POLYVOX_PYTHON as in ./run_dev.sh --help
TEXT
}

consent=()
for argument in "$@"; do
  case "$argument" in
    -h | --help) usage; exit 0 ;;
    --yes) consent=(--yes) ;;
  esac
done

. training/scripts/environment.sh
make_environment demo,lora --title "[1/6] Install dependencies" ${consent[@]+"${consent[@]}"}
exec "$venv_python" -m training.cli pipeline --stage prod --installed "$@"
