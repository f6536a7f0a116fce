#!/bin/bash
# PostgreSQL's restore_command: brings back a file that archive-wal.sh has kept.
#
#   restore_command = '/path/restore-wal.sh "%f" "%p" /backups/wal /path/identity'
#
# Ends with 1 where there is no such file, which PostgreSQL asks for all the time, and with 200 where there is one that cannot be used:
# above 125 recovery stops, where it would take anything else for the end of the log and go on as a primary without the rest.
set -uo pipefail
name=$1 path=$2 directory=$3 identity=$4

found=("$directory/$name"-*.age)
[ -e "${found[0]}" ] || exit 1
if [ "${#found[@]}" -ne 1 ]; then
    echo "restore-wal: $name is in $directory more than once: two servers have archived there" >&2
    exit 200
fi
if ! age -d -i "$identity" "${found[0]}" | gzip -d >"$path"; then
    echo "restore-wal: ${found[0]} cannot be decrypted" >&2
    exit 200
fi
digest=$(sha256sum "$path")
if [ "$directory/$name-${digest%% *}.age" != "${found[0]}" ]; then
    echo "restore-wal: the content of ${found[0]} is not what its name says" >&2
    exit 200
fi
