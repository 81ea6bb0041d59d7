#!/bin/sh
# Owns the components of a throw-away control plane, so that they end with their owner however it ends: the owner
# holds the other side of stdin, and when that closes (an exit, a panic, a SIGKILL) everything here goes.
#
# usage: keeper.sh DIR
# Reads a line "start|stop|kill|pause|resume|status NAME", answers "ok NAME" or "error WHAT" on stdout.
# DIR/NAME.args holds the command line, an argument a line; DIR/NAME.log and DIR/NAME.pid are written.
#   stop    asks to end (SIGTERM), insists (SIGKILL) after about five seconds
#   pause   SIGSTOP; resume undoes it
#   status  ok while the component runs, paused or not
# At the end DIR is removed with all in it: nothing in it is worth keeping.

directory=$1
names=''

# A signal meant for the owner, such as Ctrl-C, must not end the one who cleans up after it; and an answer that
# nobody reads any more must not either.
trap '' INT TERM HUP QUIT PIPE

pid_of() { cat "$directory/$1.pid" 2>/dev/null; }

# A shell learns that a child has ended when it waits for another one; until then its pid still answers.
runs() {
  sleep 0
  pid=$(pid_of "$1") && kill -0 "$pid" 2>/dev/null
}

forget() {
  wait "$1" 2>/dev/null
  rm -f "$directory/$2.pid"
}

start() {
  if [ ! -r "$directory/$1.args" ]; then echo "error $1 has no command line"; return; fi
  if runs "$1"; then echo "error $1 is running already"; return; fi
  # The child gets neither of the pipes: it would keep them open after its owner and its keeper.
  (
    trap - INT TERM HUP QUIT PIPE
    set --
    while IFS= read -r argument || [ -n "$argument" ]; do set -- "$@" "$argument"; done <"$directory/$name.args"
    exec "$@"
  ) </dev/null >>"$directory/$1.log" 2>&1 &
  echo $! >"$directory/$1.pid"
  case " $names " in *" $1 "*) ;; *) names="$names $1" ;; esac
  echo "ok $1"
}

stop() {
  kill -TERM "$pid" 2>/dev/null
  kill -CONT "$pid" 2>/dev/null
  turns=0
  while [ "$turns" -lt 50 ] && kill -0 "$pid" 2>/dev/null; do
    sleep 0.1 2>/dev/null || { sleep 1; turns=$((turns + 9)); }
    turns=$((turns + 1))
  done
  kill -KILL "$pid" 2>/dev/null
  forget "$pid" "$1"
}

while IFS=' ' read -r verb name; do
  case "$name" in
    '' | *[!a-z0-9-]*) echo "error '$name' is no name of a component"; continue ;;
  esac
  case "$verb" in
    start) start "$name"; continue ;;
    stop | kill | pause | resume | status) ;;
    *) echo "error '$verb' is none of start, stop, kill, pause, resume, status"; continue ;;
  esac
  if ! runs "$name"; then echo "error $name is not running"; continue; fi
  case "$verb" in
    stop) stop "$name" ;;
    kill) kill -KILL "$pid"; forget "$pid" "$name" ;;
    pause) kill -STOP "$pid" ;;
    resume) kill -CONT "$pid" ;;
  esac
  echo "ok $name"
done 2>/dev/null

for name in $names; do
  pid=$(pid_of "$name") && kill -KILL "$pid" 2>/dev/null
done
wait
rm -rf "$directory"
