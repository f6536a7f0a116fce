#!/bin/bash
# PostgreSQL's archive_command: keeps one file of the write-ahead log, compressed and encrypted to the backups' recipients.
#
#   archive_command = '/path/archive-wal.sh "%p" "%f" /backups/wal /path/recipients'
#
# Ends with 0 only once the file is on the disk under its name. The name has the digest of the content, because PostgreSQL hands a file in
# again when it could not note that it was taken, because with archive_mode = always every server hands in each file, at the same time too,
# and because a second primary that archives into the same directory must not go unnoticed.
# Needs bash, coreutils, findutils, gzip and age, and no private key.
set -euo pipefail
path=$1 name=$2 directory=$3 recipients=$4

digest=$(sha256sum "$path")
kept="$directory/$name-${digest%% *}.age"

# Whether the file is a segment of a timeline that has ended: one that a promotion has followed. A standby hands in its last one unfinished,
# with anything after its end. Recovery reads the newer timeline's of that number, so that one content is as good as another.
is_over() {
    local history timeline
    [ "${#name}" -eq 24 ] || return 1
    for history in "$directory"/????????.history-*.age; do
        timeline=${history##*/}
        if [ -e "$history" ] && [[ "${timeline:0:8}" > "${name:0:8}" ]]; then
            return 0
        fi
    done
    return 1
}

# Gives 0 where the file is kept, 1 where it is not, and ends the script where it is kept with another content.
is_kept() {
    local there found=1
    for there in "$directory/$name"-*.age; do
        [ -e "$there" ] || continue
        if [ "$there" != "$kept" ]; then
            if is_over; then
                rm -f "$kept"
                exit 0
            fi
            echo "archive-wal: $name is in $directory with another content: does another primary archive there?" >&2
            exit 1
        fi
        found=0
    done
    return "$found"
}

if is_kept; then
    # Another server may have put it there a moment ago and not have come to this.
    sync "$kept" "$directory"
    exit 0
fi

# What was cut off by a kill, by any server; none works so long on a file. Another may be removing it too.
find "$directory" -maxdepth 1 -type f -name '.[0-9A-F]*' -mmin +60 -delete 2>/dev/null || true
beside="$directory/.$name.${HOSTNAME:-server}.$$"
trap 'rm -f "$beside"' EXIT
gzip -1 <"$path" | age -R "$recipients" -o "$beside"
sync "$beside"
mv "$beside" "$kept"
sync "$directory"
# Of two servers that came with different contents at the same time, each sees the other's now.
is_kept
