#!/usr/bin/env bash
# Environment, data, two models, scores, charts: everything in one command. See --help.
set -euo pipefail
unset CDPATH
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
  cat <<'TEXT'
usage: ./run_dev.sh [--profile demo|cpu|dev] [--smoke] [--fresh] [--yes] [--config key=value ...]

Makes .venv, installs the pinned packages, prepares data, trains Whisper and wav2vec2 + mBART, scores both on
the test split and draws the charts. What is finished is not done again; after Ctrl-C the next call goes on.

  --profile demo   CPU is enough: models from scratch, on a synthesised corpus if there is no manifest
  --profile cpu    no GPU: a pretrained Whisper base fine-tuned on data/export/manifest.tsv; says beforehand how long
                   it will take
  --profile dev    GPU with 4 GB: whisper-tiny, wav2vec2-base + mbart-large-50, on data/export/manifest.tsv
                   (without --profile the machine is looked at, and one line says what was chosen and why)
  --smoke          trainings of 100 steps, in folders of their own (outputs/NAME_smoke): whether everything works together
  --fresh          do every step again
  --yes            answer yes: on a machine without a GPU, torch's CPU build is taken
  --config ...     key=value overrides for both training configurations (the last option on the line)

Variables
  TORCH_INDEX_URL  package index to take torch from, e.g. https://download.pytorch.org/whl/cpu
  POLYVOX_VENV     place of the virtual environment (default: .venv here, even while another is active)
  POLYVOX_PYTHON   Python 3.11, 3.12 or 3.13 to make it with
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
exec "$venv_python" -m training.cli pipeline --stage dev --installed "$@"
