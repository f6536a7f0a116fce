#!/bin/bash
# PostgreSQL's archive_command: keeps one file of the write-ahead log, compressed and encrypted to the backups' recipients.
#
#   archive_command = '/path/archive-wal.sh "%p" "%f" /backups/wal /path/recipients'
#
# Ends with 0 only once the file is on the disk under its name. The name has the digest of the content, because PostgreSQL hands a file in
# again when it could not note that it was taken, and because a second server that archives into the same directory must not go unnoticed.
# Needs bash, coreutils, gzip and age, and no private key.
set -euo pipefail
path=$1 name=$2 directory=$3 recipients=$4

digest=$(sha256sum "$path")
kept="$directory/$name-${digest%% *}.age"
for there in "$directory/$name"-*.age; do
    [ -e "$there" ] || continue
    [ "$there" = "$kept" ] && exit 0
    echo "archive-wal: $name is in $directory with another content: does another server archive there?" >&2
    exit 1
done

beside="$directory/.$name.$$"
trap 'rm -f "$beside"' EXIT
gzip -1 <"$path" | age -R "$recipients" -o "$beside"
sync "$beside"
mv "$beside" "$kept"
sync "$directory"
