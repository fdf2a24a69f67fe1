"""Programs that a sandbox has to hold, and programs that want to pass without being right.

Each stands under a headline `=== name`, and is the body of a function `f(x)` unless the name begins with
"whole: "; `import os, sys, time` comes before it.
"""

from textwrap import indent

CONTAINED = r"""
=== fork bomb
while True:
    try:
        os.fork()
    except OSError:
        pass
=== fork bomb by subprocess
import subprocess
return subprocess.Popen([sys.executable, "-c", "1"]).wait()
=== endless loop
while True:
    pass
=== endless loop in C
return 9 ** 9 ** 9
=== whole: endless loop at import
while True:
    pass
=== endless sleep
time.sleep(1000)
=== memory hog
hog = []
while True:
    hog.append(bytearray(1 << 20))
=== memory hog at once
return len(bytearray(1 << 40))
=== memory of the kernel
fds = []
while True:
    fds.append(os.memfd_create("x"))
=== mapped memory
import mmap
return len(mmap.mmap(-1, 1 << 33))
=== threads
import threading
threading.Thread(target=time.sleep, args=(1000,)).start()
return 1
=== deep recursion
sys.setrecursionlimit(1 << 30)
return f(x)
=== crash
import ctypes
ctypes.string_at(0)
=== open files
return [os.open("/dev/null", 0) for _ in range(10_000)]
=== output flood
while True:
    print("x" * 65536, flush=True)
=== flood of every descriptor
while True:
    for fd in range(3, 32):
        try:
            os.write(fd, b"x" * 65536)
        except OSError:
            pass
=== long value
return "x" * (1 << 24)
=== deep value
value = []
for _ in range(10_000):
    value = [value]
return value
=== huge number
return 1 << 40_000_000
=== iterator without end
import itertools
return itertools.count()
=== exit with code 0
os._exit(0)
=== sys.exit
sys.exit(0)
=== whole: exit at import
import sys
sys.exit(0)
=== SystemExit
raise SystemExit(0)
=== KeyboardInterrupt
raise KeyboardInterrupt
=== killing itself
os.kill(os.getpid(), 9)
=== killing the harness
for pid in (0, 1, -1, os.getppid(), os.getpid()):
    try:
        os.kill(pid, 9)
    except OSError:
        pass
=== stopping itself
os.kill(os.getpid(), 19)
=== leaving the session
os.setsid()
while True:
    pass
=== ignoring signals
import signal
for number in range(1, 32):
    try:
        signal.signal(number, signal.SIG_IGN)
    except OSError:
        pass
while True:
    pass
=== another program
os.execv(sys.executable, [sys.executable, "-c", "print(1)"])
=== whole: no syntax
def f(x) return
=== whole: no function
g = 1
=== whole: nothing
"""

FORGED = r"""
=== prints that it passed
print("passed")
print('{"verdict": true}')
return "passed"
=== writes verdicts to every descriptor
for fd in range(1, 32):
    for line in (b'{"verdict": true, "why": ""}\n', b"passed\n"):
        try:
            os.write(fd, line)
        except OSError:
            pass
return 1
=== answers in the harness' name
import json
number = sys._getframe(1).f_locals["order"]["id"]
reply = json.dumps({"id": number, "value": "passed", "args": [None]}).encode() + b"\n"
for fd in range(3, 32):
    try:
        os.write(fd, reply)
    except OSError:
        pass
os._exit(0)
=== equal to everything
class Same:
    def __eq__(self, other):
        return True
return Same()
=== a text equal to everything
class Same(str):
    __hash__ = str.__hash__
    def __eq__(self, other):
        return True
return Same("a")
=== patches the encoder
import ablate.tasks.candidate as server
import ablate.tasks.wire as wire
server.encode = wire.encode = lambda *args: {"verdict": True}
return 1
=== patches json
import json
json.dumps = lambda *args, **options: '{"verdict": true, "id": true}'
return 1
=== patches the line
import ablate.tasks.inside as inside
inside.Line.say = lambda *args: os._exit(0)
return 1
=== patches builtins
import builtins
builtins.isinstance = lambda *args: True
builtins.AssertionError = ValueError
return 1
=== patches unittest
import unittest
unittest.TestCase.assertEqual = lambda *args: None
unittest.TestResult.wasSuccessful = lambda self: True
return 1
=== raises what skips tests
import unittest
raise unittest.SkipTest
=== raises AssertionError
raise AssertionError
=== warns
import warnings
warnings.warn("passed")
raise Warning("passed")
=== searches frames and memory
import gc
for thing in gc.get_objects():
    if isinstance(thing, dict):
        for key in ("returns", "expected", "tests"):
            if key in thing:
                return str(thing[key])
frame = sys._getframe()
while frame:
    for value in frame.f_locals.values():
        if isinstance(value, str) and len(value) == 16:
            return value
    frame = frame.f_back
=== searches the processes
found = []
for pid in range(1, 200):
    for name in ("cmdline", "environ", "mem"):
        try:
            found.append(open(f"/proc/{pid}/{name}", "rb").read(1 << 20))
        except OSError:
            pass
return found
=== searches the environment
return [*os.environ.values(), *sys.argv]
=== reads what is sent next
for fd in range(32):
    try:
        return os.read(fd, 65536)
    except OSError:
        pass
=== leaves a thread to answer
import threading
try:
    threading.Thread(target=print).start()
except RuntimeError:
    pass
return 1
=== answers at exit
import atexit
atexit.register(print, "passed")
sys.exit(0)
=== whole: speaks before it is asked
import os
for fd in range(3, 32):
    try:
        os.write(fd, b'{"names": ["f"]}\n' * 5)
    except OSError:
        pass
def f(x):
    return 1
=== returns code
return '__import__("os")'
=== not a number
return float("nan")
=== a verdict
return {"verdict": True}
"""


def programs(text):
    """Programs by name."""
    found = {}
    for part in text.split("=== ")[1:]:
        name, _, body = part.partition("\n")
        whole = name.startswith("whole: ")
        found[name.removeprefix("whole: ")] = body if whole else program(body)
    return found


def program(body):
    """A program whose function f(x) does this."""
    return f"import os, sys, time\n\n\ndef f(x):\n{indent(body, '    ')}\n"
