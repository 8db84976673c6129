#!/bin/sh
# Installs Recollect for systemd on a Debian or Ubuntu machine, as root, from a copy of the repository: the user
# `recollect`, the program in /opt/recollect, its settings in /etc/recollect, and the units, none of which is started.
# Run it again with a newer copy to upgrade; settings and state stay.
#
# usage: install.sh SOURCE [ROOT]
#   SOURCE  the copy of the repository
#   ROOT    the root of the machine's files; / if left out, and otherwise no user is made and no program is installed
# RECOLLECT_UID: the id of the user, where machines share files, or one takes over the disk of another.
set -eu
source=$(cd "$1" && pwd)
root=${2:-/}
root=${root%/}
units=$source/ops/deploy/systemd

if [ -z "$root" ]; then
  getent passwd recollect >/dev/null || useradd --system ${RECOLLECT_UID:+--uid "$RECOLLECT_UID"} --user-group \
    --no-create-home --home-dir /var/lib/recollect --shell /usr/sbin/nologin recollect
  if [ "$(id -u recollect)" != "${RECOLLECT_UID:-$(id -u recollect)}" ]; then
    echo "The user recollect has the id $(id -u recollect), and not $RECOLLECT_UID as RECOLLECT_UID says." >&2
    exit 1
  fi
  install -d -m 0755 /opt/recollect
  if [ "$source" != /opt/recollect ]; then
    cp -R "$source/." /opt/recollect
  fi
  # Everything of the lock, by hash; compiled here, because the service may not write there.
  make -C /opt/recollect setup
fi

install -d -m 0755 "$root/etc/systemd/system" "$root/usr/local/bin"
install -d -m 0750 "$root/etc/recollect"
for unit in "$units"/*.service "$units"/*.timer; do
  install -m 0644 "$unit" "$root/etc/systemd/system/"
done
# Settings may hold the password of Redis.
[ -e "$root/etc/recollect/recollect.toml" ] || install -m 0640 "$units/recollect.toml" "$root/etc/recollect/"
# For operators: sudo recollect doctor. Commands run as the service's user, so that every file stays its own.
cat >"$root/usr/local/bin/recollect" <<'END'
#!/bin/sh
export RECOLLECT_FILE=/etc/recollect/recollect.toml NUMBA_CACHE_DIR=/var/cache/recollect
if [ "$(id -u)" -eq 0 ]; then
  exec setpriv --reuid recollect --regid recollect --init-groups /opt/recollect/.venv/bin/recollect "$@"
fi
exec /opt/recollect/.venv/bin/recollect "$@"
END
chmod 0755 "$root/usr/local/bin/recollect"

if [ -z "$root" ]; then
  chgrp recollect /etc/recollect /etc/recollect/recollect.toml
  for folder in /var/lib/recollect /var/log/recollect /var/cache/recollect; do
    # A disk of another machine, where the user had another id: systemd changes the owner of the files below only if the
    # folder itself has the wrong one, so the folder is last. What other file systems hold is for their own machines.
    if [ -d "$folder" ] && [ "$(stat -c %u:%g "$folder")" != "$(id -u recollect):$(id -g recollect)" ]; then
      find "$folder" -mindepth 1 -xdev ! \( -type d -exec mountpoint -q {} \; \) \
        -exec chown -h recollect:recollect {} +
    fi
    install -d -m 0700 -o recollect -g recollect "$folder"
  done
  systemctl daemon-reload
fi
