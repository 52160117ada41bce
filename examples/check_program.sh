#!/bin/sh
# What every program does.
#   check_program.sh PROGRAM                      has help of its own with an example, and ends with status 1 where what it
#                                                 prints cannot be written
#   check_program.sh PROGRAM MESSAGE ARGUMENT...  ends with status 1 and an error with this message
#   check_program.sh --interrupt PROGRAM FILE ARGUMENT...
#                                                 ends well when interrupted while it writes, and has written FILE
set -u

fail() {
  echo "FAILED: $*"
  exit 1
}

if [ "$1" = --interrupt ]; then
  program=$2 file=$3
  shift 3
  rm -f "$file" "$file.txt"
  "$program" "$@" >"$file.txt" &
  while [ ! -s "$file.txt" ]; do
    kill -0 $! || fail "$program ended before it wrote anything"
    sleep 0.1
  done
  kill -INT $!
  wait $! || fail "$program: status $?, expected 0"
  [ -s "$file" ] || fail "$program: expected $file, found none"
elif [ $# = 1 ]; then
  help=$("$1" --help) || fail "$1 --help: status $?, expected 0"
  case $help in
    *Usage*Example*) ;;
    *) fail "$1 --help: expected usage and an example, found: $help" ;;
  esac
  "$1" --help >/dev/full
  status=$?
  [ $status = 1 ] || fail "$1 --help > /dev/full: status $status, expected 1"
  "$1" --help >&-
  status=$?
  [ $status = 1 ] || fail "$1 --help >&-: status $status, expected 1"
else
  program=$1 message=$2
  shift 2
  found=$("$program" "$@" 2>&1 >/dev/full)
  status=$?
  [ $status = 1 ] || fail "$program $*: status $status, expected 1; found: $found"
  case $found in
    *"error: "*"$message"*) ;;
    *) fail "$program $*: expected an error with '$message', found: $found" ;;
  esac
fi
