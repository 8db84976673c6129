#!/bin/sh
# Leaves out of /opt/recollect what no program reads, and compiles the rest. Run by the Dockerfile after an installation.
set -eu
site=$(/opt/recollect/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
python3 ops/containers/slim.py "$site"
# Code in the image never changes, so Python need not look at the sources' times.
/opt/recollect/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash "$site"
