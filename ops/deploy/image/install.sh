#!/bin/sh
# Installs what an image needs into /opt/recollect, from the hash locks. Run by the Dockerfile, in its folder of sources.
# Arguments: the extras, in one word.
set -eu
[ ! -s /run/secrets/pip ] || export PIP_CONFIG_FILE=/run/secrets/pip
[ ! -s /run/secrets/ca ] || export PIP_CERT=/run/secrets/ca
pip() { .tools/bin/python -m pip --disable-pip-version-check --no-input --no-cache-dir --quiet "$@"; }
in_image() { pip --python /opt/recollect/bin/python "$@"; }
# Without --quiet, with which it says nothing.
check() { .tools/bin/python -m pip --disable-pip-version-check --python /opt/recollect/bin/python check; }
from_lock() { [ ! -s .locked ] || in_image install --no-compile --no-deps --require-hashes --requirement .locked; }

for lock in requirements.lock requirements-deep.lock requirements-cluster.lock; do
  # Unquoted: the extras are words.
  python3 ops/containers/locked.py --lock "$lock" $1 >.locked
  from_lock
done
# Which build of PyTorch it is, for processors or with the libraries of a GPU, is the choice of pip's settings.
case " $1 " in
  *" deep "*) in_image install --no-compile "$(sed -n 's/^ *"\(torch==[^"]*\)".*/\1/p' pyproject.toml)" ;;
esac
# The other locks leave out what requirements.lock has for another reason, such as for developers.
while missing=$(check | sed -n 's/.* requires \([^,]*\), which is not installed\.$/\1/p' | sort -u) && [ -n "$missing" ]; do
  python3 ops/containers/locked.py --packages $missing >.locked
  [ -s .locked ] || break
  from_lock
done
check
# What builds the wheel of Recollect itself.
python3 ops/containers/locked.py --packages hatchling >.locked
pip install --no-deps --require-hashes --requirement .locked
