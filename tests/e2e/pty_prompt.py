#!/usr/bin/env python3
"""Drives a program on a pseudo-terminal from a script of (wait for, type) pairs.

    pty_prompt.py SCRIPT.json PROGRAM ARGUMENTS…

SCRIPT.json: {"steps": [["regular expression", "text to type"], …], "timeout": seconds}. Each step
waits until the expression matches what was printed since the step before, and until the program reads
keys (the terminal is not in line mode: what comes earlier is the terminal's, Ctrl-D would be lost),
then types. With a third item, [url, expression], it waits until what is read there matches instead.
"\\u0003" is Ctrl-C, "\\u0004" Ctrl-D. Ends when the program does; prints JSON: {"code": …, "output": …}.
Exit code 1 when a step was not reached in time."""
import json
import os
import pty
import re
import select
import signal
import sys
import termios
import time
import urllib.request


def page_says(url, expression):
    with urllib.request.urlopen(url, timeout=10) as page:
        return re.search(expression, page.read().decode(), re.M)


def reads_keys(fd):
    return not termios.tcgetattr(fd)[3] & termios.ICANON


def main():
    script = json.load(open(sys.argv[1], encoding="utf-8"))
    pid, fd = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "dumb"
        os.execv(sys.argv[2], sys.argv[2:])
    steps, output, since = list(script["steps"]), "", 0
    until, failure = time.monotonic() + script.get("timeout", 30), None
    while True:
        if steps:
            match = re.search(steps[0][0], output[since:], re.S)
            if match and (page_says(*steps[0][2]) if len(steps[0]) > 2 else reads_keys(fd)):
                since += match.end()
                os.write(fd, steps.pop(0)[1].encode())
                continue
        left = until - time.monotonic()
        if left <= 0:
            failure = "waited for " + (repr(steps[0][0]) if steps else "the end")
            os.kill(pid, signal.SIGKILL)
            until = time.monotonic() + 5
        if not select.select([fd], [], [], max(0, min(left, 0.05)))[0]:
            continue
        try:
            data = os.read(fd, 65536)
        except OSError:  # EIO: the program has closed the terminal
            data = b""
        if not data:
            break
        output += data.decode("utf-8", "replace").replace("\r", "")
    status = os.waitpid(pid, 0)[1]
    if steps and not failure:
        failure = "ended before " + repr(steps[0][0])
    json.dump({"code": os.waitstatus_to_exitcode(status), "output": output, "failure": failure}, sys.stdout)
    sys.exit(1 if failure else 0)


main()
