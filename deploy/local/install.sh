#!/bin/sh
# Installs PostgreSQL, nats-server and age where they are missing, as root or through sudo, on systems with apt-get.
set -eu

missing=""
find_postgres() {
    for directory in ${PROSPECTUS_POSTGRES_BIN:-} /usr/lib/postgresql/*/bin; do
        [ -x "$directory/initdb" ] && return 0
    done
    command -v initdb >/dev/null 2>&1
}
find_nats() {
    [ -n "${PROSPECTUS_NATS_SERVER:-}" ] && return 0
    command -v nats-server >/dev/null 2>&1 || [ -x /usr/sbin/nats-server ]
}
find_postgres || missing="$missing postgresql"
find_nats || missing="$missing nats-server"
# The C compiler and linker that Rust needs; a Rust toolchain is expected, a compiler may not be.
command -v cc >/dev/null 2>&1 || missing="$missing gcc libc6-dev"
# Backups and the archived write-ahead log are encrypted with it.
command -v age >/dev/null 2>&1 || missing="$missing age"
command -v python3 >/dev/null 2>&1 || missing="$missing python3"
[ -z "$missing" ] && exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    echo "install these yourself, this script knows only apt-get:$missing (PostgreSQL must be 15 or later)" >&2
    exit 1
fi
as_root=""
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null 2>&1; then
        echo "install these as root:$missing" >&2
        exit 1
    fi
    as_root="sudo"
fi
echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
# The project starts servers of its own; the distribution's need not be made.
$as_root mkdir -p /etc/postgresql-common
[ -e /etc/postgresql-common/createcluster.conf ] || echo "create_main_cluster = false" | $as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
$as_root apt-get update -qq
# shellcheck disable=SC2086 # a list of packages
$as_root apt-get install -y -qq --no-install-recommends $missing
