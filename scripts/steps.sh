# For the scripts beside this file, which source it: their help; steps that run quietly, and the end of a failed one's
# output.

# What the script says of itself: the comment at its top.
usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; }

# step "What is done" command...: prints the name, then the seconds; the command's output goes to $log.
step() {
  local name=$1 start=$SECONDS
  shift
  printf '%-48s' "$name ..."
  if "$@" >"$log" 2>&1 </dev/null; then
    printf ' ok, %d s\n' $((SECONDS - start))
  else
    printf ' FAILED after %d s\n' $((SECONDS - start))
    printf '\nThe end of %s:\n' "$log"
    tail -n 40 "$log"
    printf '\nFAILED: %s\n' "$name"
    exit 1
  fi
}
