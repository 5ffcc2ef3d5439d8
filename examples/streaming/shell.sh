#!/bin/sh
# Counts the events of a day by name: sh shell.sh DAY
set -eu
day=$1
lines=$(mktemp)
trap 'rm -f "$lines"' EXIT

# A pipe would hide the exit code of `mp`. With a file, an incomplete export ends this script.
mp fetch events --from "$day" --to "$day" --stdout --quiet >"$lines"

jq --raw-output .event_name "$lines" | sort | uniq -c | sort -rn
