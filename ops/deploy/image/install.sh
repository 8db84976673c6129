#!/bin/sh
# Installs what an image needs into /opt/recollect, from the hash locks. Run by the Dockerfile, in its folder of sources.
# Arguments: the extras, in one word.
set -eu
[ ! -s /run/secrets/pip ] || export PIP_CONFIG_FILE=/run/secrets/pip
[ ! -s /run/secrets/ca ] || export PIP_CERT=/run/secrets/ca
pip() { .tools/bin/python -m pip --disable-pip-version-check --no-input --no-cache-dir --quiet "$@"; }
into_image() { pip --python /opt/recollect/bin/python install --no-compile "$@"; }

# "train" and "embedded" are in the one lock; the others have one of what they add.
locked='' deep='' cluster='' ann=''
for extra in $1; do
  case $extra in
    deep) deep=yes ;;
    ann) ann=yes ;;
    cluster) cluster=yes ;;
    *) locked="$locked $extra" ;;
  esac
done
# Unquoted: the extras are words.
python3 ops/containers/locked.py $locked >.locked
into_image --no-deps --require-hashes --requirement .locked
[ -z "$deep$ann" ] || into_image --no-deps --require-hashes --requirement requirements-deep.lock
# Which build of PyTorch it is, for processors or with the libraries of a GPU, is the choice of pip's settings.
[ -z "$deep" ] || into_image "$(sed -n 's/^ *"\(torch==[^"]*\)".*/\1/p' pyproject.toml)"
[ -z "$cluster" ] || into_image --no-deps --require-hashes --requirement requirements-cluster.lock
# What builds the wheel of Recollect itself.
python3 ops/containers/locked.py --packages hatchling >.build-lock
pip install --no-deps --require-hashes --requirement .build-lock
