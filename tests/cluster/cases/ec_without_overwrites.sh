#!/bin/bash
# Kind: a pool that takes whole stripes at an object's end only (erasure code without overwrites),
# as source and as target: "Operation not supported" in the middle of a copy.
# Right: every size goes in and out of it, by put, copy, verify and get, byte for byte.
. "$(dirname "$0")/lib.sh"
ceph osd erasure-code-profile set ${tag}p k=2 m=1 crush-failure-domain=osd >/dev/null 2>&1
pool ${tag}a; pool ${tag}b
ceph osd pool create ${tag}e 8 8 erasure ${tag}p >/dev/null 2>&1
ceph osd pool application enable ${tag}e siphon >/dev/null 2>&1
yes_really=--yes-i-really-mean-it
for size in 1K 3M 20M 100M; do
  head -c $size /dev/urandom >"$W/c"
  if siphon put ${tag}a/$size "$W/c" >/dev/null 2>"$W/e" &&
      siphon copy ${tag}a/$size ${tag}e >/dev/null 2>"$W/e" &&
      siphon verify ${tag}a/$size ${tag}e/$size >/dev/null 2>"$W/e" &&
      siphon copy ${tag}e/$size ${tag}b >/dev/null 2>"$W/e" &&
      siphon get ${tag}b/$size "$W/back" >/dev/null 2>"$W/e" && cmp -s "$W/c" "$W/back"; then
    ok "$size: copied into the pool and out of it"
  else
    wrong "$size: copy: $(head -n 1 "$W/e")"
  fi
  rm -f "$W/back"
  if siphon put ${tag}e/put-$size "$W/c" >/dev/null 2>"$W/e" &&
      siphon verify ${tag}e/put-$size >/dev/null 2>"$W/e" &&
      siphon get ${tag}e/put-$size "$W/back" >/dev/null 2>"$W/e" && cmp -s "$W/c" "$W/back"; then
    ok "$size: put there and got back"
  else
    wrong "$size: put: $(head -n 1 "$W/e")"
  fi
  rm -f "$W/back"
  for e in a/$size e/$size b/$size e/put-$size; do
    siphon rm --purge "$tag$e" $yes_really >/dev/null 2>&1
  done
done
exit $bad
