#!/bin/sh
# Prints the secrets of a new installation as YAML, for `kubectl apply -f -`: API keys, the key that seals watermarks, the
# users of Redis, and the token of the cluster that trains. Prints the first API key to standard error, once: only its
# digest is in the secret. Run it once. A new watermark key would make replicas wait for the old one.
#
# NAMESPACE: the namespace of the secrets, recollect if not set.
# RECOLLECT: the command `recollect` of this machine, for example .venv/bin/recollect; the one on PATH if not set. It gets
#   variables of this script and writes into a temporary folder, so that a container cannot stand in for it.
set -eu
umask 077
namespace=${NAMESPACE:-recollect}
recollect=${RECOLLECT:-recollect}
here=$(cd "$(dirname "$0")" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# A shell that a signal ends runs no trap of EXIT, and the folder holds passwords.
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

random() { od -An -N "$1" -v -tx1 /dev/urandom | tr -d ' \n'; }
digest() { printf %s "$1" | sha256sum | cut -d ' ' -f 1; }
secret() { name=$1; shift; kubectl create secret generic "$name" --namespace "$namespace" --dry-run=client --output yaml "$@"; echo ---; }

key=$(RECOLLECT_FILE=none RECOLLECT_HOME="$folder" RECOLLECT_KEYS_FILE="$folder/keys.json" \
  $recollect keys create --scope recommend,events,items --note "first key")
echo "The API key, shown only now: $key" >&2
random 32 >"$folder/watermark.key"
random 32 >"$folder/token"

replica=$(random 24) consumer=$(random 24) admin=$(random 24)
sed -e "s/ADMIN_PASSWORD_SHA256/$(digest "$admin")/" -e "s/REPLICA_PASSWORD_SHA256/$(digest "$replica")/" \
  -e "s/CONSUMER_PASSWORD_SHA256/$(digest "$consumer")/" "$here/../../../telemetry/stream/redis.acl" >"$folder/users.acl"
printf 'redis://recollect-replica:%s@recollect-redis:6379/0' "$replica" >"$folder/replica-url"
printf 'redis://recollect-consumer:%s@recollect-redis:6379/0' "$consumer" >"$folder/consumer-url"
printf %s "$admin" >"$folder/admin-password"

secret recollect-api-keys --from-file="$folder/keys.json"
secret recollect-watermark-key --from-file="$folder/watermark.key"
secret recollect-cluster --from-file="$folder/token"
secret recollect-redis --from-file="$folder/replica-url" --from-file="$folder/consumer-url" \
  --from-file="$folder/admin-password" --from-file="$folder/users.acl"
