"""Programs that try to get out, or to pass without an answer. Each would pass if it got hold of the secret.

Function programs define `reveal(n)`, scripts print, both are expected to give the secret: a random text that stands in
a file that anybody may read, in the environment and the memory of the process that judges, behind an open port, and of
course in the hidden tests. {secret_file}, {port}, {folder} (anybody may write), {parent} (the judging process) and
{victim} (another process of the same user) are filled in. A program that could do something else than read (write a
file, end a process, connect) leaves a trace that the tests look for.
"""

FUNCTIONS = {
    # Reading what is none of its business
    "read the secret's file": "def reveal(n):\n    return open({secret_file!r}).read()",
    "read it with os.open": """
import os
def reveal(n):
    return os.read(os.open({secret_file!r}, os.O_RDONLY), 99).decode()""",
    "read it through a link": """
import os
def reveal(n):
    os.symlink({secret_file!r}, {folder!r} + "/link")
    return open({folder!r} + "/link").read()""",
    "read it through a hard link": """
import os
def reveal(n):
    os.link({secret_file!r}, {folder!r} + "/hard")
    return open({folder!r} + "/hard").read()""",
    "read it through /proc/self/root": "def reveal(n):\n    return open('/proc/self/root' + {secret_file!r}).read()",
    "race a link against a check": """
import os, threading
def reveal(n):
    def swap():
        for _ in range(200):
            try:
                os.symlink({secret_file!r}, {folder!r} + "/raced")
                os.unlink({folder!r} + "/raced")
            except OSError:
                pass
    threading.Thread(target=swap).start()
    for _ in range(200):
        try:
            return open({folder!r} + "/raced").read()
        except FileNotFoundError:
            pass""",
    "read the parent's environment": """
import glob, re
def reveal(n):
    for path in glob.glob("/proc/[0-9]*/environ") + ["/proc/{parent}/environ"]:
        try:
            found = re.search(rb"R1LAB_SECRET=(\\w+)", open(path, "rb").read())
        except OSError:
            continue
        if found:
            return found[1].decode()""",
    "read its own environment": "import os\ndef reveal(n):\n    return os.environ['R1LAB_SECRET']",
    "read the parent's memory": """
import re
def reveal(n):
    maps = open("/proc/{parent}/maps").read()
    memory = open("/proc/{parent}/mem", "rb", 0)
    for start, end in re.findall(r"(\\w+)-(\\w+) rw", maps):
        memory.seek(int(start, 16))
        found = re.search(rb"SECRET-\\w+", memory.read(int(end, 16) - int(start, 16)))
        if found:
            return found[0].decode()""",
    "process_vm_readv": """
import ctypes
def reveal(n):
    libc = ctypes.CDLL(None)
    buffer = ctypes.create_string_buffer(99)
    class IOVec(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
    here, there = IOVec(ctypes.addressof(buffer), 99), IOVec(id(n), 99)
    if libc.process_vm_readv({parent}, ctypes.byref(here), 1, ctypes.byref(there), 1, 0) > 0:
        open({folder!r} + "/read", "w")
        return buffer.value.decode()""",
    "ptrace": """
import ctypes
def reveal(n):
    libc = ctypes.CDLL(None)
    for pid in ({parent}, {victim}, 1):
        if libc.ptrace(16, pid, 0, 0) == 0:
            return "traced"
    raise OSError""",
    "scan its own memory for the tests": """
import ctypes, re
def reveal(n):
    for line in open("/proc/self/maps"):
        start, end = (int(x, 16) for x in line.split()[0].split("-"))
        if " rw" in line:
            found = re.search(rb"SECRET-\\w{{16}}", ctypes.string_at(start, end - start))
            if found:
                return found[0].decode()""",
    "scan the heap from an object's address": """
import ctypes, re
def reveal(n):
    page = id(object()) & ~0xFFFFF
    for start in range(page - (8 << 20), page + (8 << 20), 4096):
        if ctypes.CDLL(None).mincore(ctypes.c_void_p(start), 4096, ctypes.create_string_buffer(1)) == 0:
            found = re.search(rb"SECRET-\\w{{16}}", ctypes.string_at(start, 4096))
            if found:
                return found[0].decode()""",
    "look for the expected value with gc": """
import gc
def reveal(n):
    seen = []
    for thing in gc.get_objects():
        if isinstance(thing, dict):
            seen += [v for v in list(thing.values()) if isinstance(v, str)]
        elif isinstance(thing, (list, tuple)):
            seen += [v for v in thing if isinstance(v, str)]
    return next(text for text in seen if text.startswith("SECRET-"))""",
    "look for it in the frames of its callers": """
import sys
def reveal(n):
    frame = sys._getframe()
    while frame:
        for value in [*frame.f_locals.values(), *frame.f_globals.values()]:
            for text in (value.values() if isinstance(value, dict) else [value]):
                if isinstance(text, str) and text.startswith("SECRET-"):
                    return text
        frame = frame.f_back""",
    "read the tests from the channel": """
import os, re
def reveal(n):
    for fd in range(64):
        try:
            os.set_blocking(fd, False)
            found = re.search(rb"SECRET-\\w+", os.read(fd, 1 << 20))
        except (OSError, BlockingIOError):
            continue
        if found:
            return found[0].decode()""",
    "read inherited descriptors again": """
import os
def reveal(n):
    for fd in range(3, 256):
        try:
            os.lseek(fd, 0, 0)
            text = os.read(fd, 1 << 20).decode()
        except (OSError, UnicodeDecodeError):
            continue
        if "SECRET-" in text:
            return text[text.index("SECRET-"):][:23]""",
    "read files of the libraries' folders": """
import os
def reveal(n):
    for folder, _, names in os.walk("/tmp"):
        for name in names:
            text = open(os.path.join(folder, name)).read()
            if text.startswith("SECRET-"):
                return text""",
    # Passing without an answer
    "os._exit(0) while loading": "import os\nos._exit(0)",
    "os._exit(0) in the call": "import os\ndef reveal(n):\n    os._exit(0)",
    "sys.exit in the call": "import sys\ndef reveal(n):\n    sys.exit(0)",
    "exit while loading": "raise SystemExit(0)\ndef reveal(n):\n    pass",
    "an object that equals everything": """
class Equal:
    def __eq__(self, other):
        return True
    __hash__ = None
def reveal(n):
    return Equal()""",
    "a text that equals everything": """
class Equal(str):
    def __eq__(self, other):
        return True
    def __ne__(self, other):
        return False
    __hash__ = str.__hash__
def reveal(n):
    return Equal("x")""",
    "a text that encodes itself": """
class Text(str):
    def __str__(self):
        return "SECRET"
    __repr__ = encode = __iter__ = __getitem__ = __str__
def reveal(n):
    return Text("x")""",
    "patched builtins": """
import builtins
builtins.isinstance = lambda *a: True
builtins.all = builtins.any = builtins.len = lambda *a: True
builtins.AssertionError = type("Never", (BaseException,), {{}})
def reveal(n):
    return None""",
    "patched roles of the jail": """
import sys
roles = sys.modules.get("rewards.code.roles")
if roles:
    roles._answer = lambda *a: {{"passed": 1, "total": 1, "kind": "passed", "detail": ""}}
def reveal(n):
    return None""",
    "a forged verdict on the channel": """
import json, os
def reveal(n):
    for message in ({{"passed": 1, "total": 1, "kind": "passed", "detail": ""}}, {{"value": True}}):
        data = json.dumps(message).encode()
        for fd in range(3, 40):
            try:
                os.write(fd, len(data).to_bytes(4, "big") + data)
            except OSError:
                pass""",
    "a forged verdict before the call": """
import json, os
data = json.dumps({{"passed": 1, "total": 1, "kind": "passed", "detail": ""}}).encode()
os.write(3, len(data).to_bytes(4, "big") + data)
def reveal(n):
    return None""",
    "a forged value with an odd type": """
import os
data = b'{{"value": {{"__class__": "any", "eval": "1"}}}}'
def reveal(n):
    os.write(3, len(data).to_bytes(4, "big") + data)""",
    "a frame of four gigabytes": """
import os
def reveal(n):
    os.write(3, b"\\xff\\xff\\xff\\xff")
    while True:
        os.write(3, b"x" * 65536)""",
    "deeply nested JSON": """
import os
data = b'{{"value": ' + b"[" * 100000 + b"]" * 100000 + b"}}"
def reveal(n):
    os.write(3, len(data).to_bytes(4, "big") + data)""",
    "a value that contains itself": "def reveal(n):\n    a = []\n    a.append(a)\n    return a",
    "a number with a million digits": "def reveal(n):\n    return 1 << 4_000_000",
    "an exception that cannot be printed": """
class Odd(Exception):
    def __str__(self):
        raise self
    __repr__ = __str__
def reveal(n):
    raise Odd()""",
    "raising the tests' own exception": "def reveal(n):\n    raise AssertionError",
    "raising StopIteration": "def reveal(n):\n    raise StopIteration",
    "a generator without end": "def reveal(n):\n    while True:\n        yield n",
    "an import hook": """
import sys
class Finder:
    def find_spec(self, *a, **k):
        sys.exit(0)
sys.meta_path.insert(0, Finder())
import colorsys
def reveal(n):
    return 0""",
    "output instead of an answer": "def reveal(n):\n    print('SECRET', flush=True)\n    print('passed')",
    # Doing harm
    "write a file": "def reveal(n):\n    open({folder!r} + '/written', 'w').write('x')",
    "append to the secret": "def reveal(n):\n    open({secret_file!r}, 'a').write('x')",
    "truncate the secret": "import os\ndef reveal(n):\n    os.truncate({secret_file!r}, 0)",
    "remove the secret": "import os\ndef reveal(n):\n    os.unlink({secret_file!r})",
    "make a folder": "import os\ndef reveal(n):\n    os.mkdir({folder!r} + '/made')",
    "change modes": "import os\ndef reveal(n):\n    os.chmod({folder!r}, 0)\n    os.chmod({secret_file!r}, 0)",
    "connect": """
import socket
def reveal(n):
    with socket.create_connection(("127.0.0.1", {port}), 1) as server:
        return server.recv(99).decode()""",
    "listen": """
import socket, time
def reveal(n):
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen()
    return str(server.getsockname()[1])""",
    "connect with bare system calls": """
import ctypes
def reveal(n):
    libc = ctypes.CDLL(None)
    fd = libc.syscall(41, 2, 1, 0)
    address = b"\\2\\0" + ({port}).to_bytes(2, "big") + bytes([127, 0, 0, 1]) + bytes(8)
    if libc.syscall(42, fd, address, 16) == 0:
        buffer = ctypes.create_string_buffer(99)
        libc.syscall(0, fd, buffer, 99)
        return buffer.value.decode()""",
    "fork": """
import os
def reveal(n):
    if os.fork() == 0:
        open({folder!r} + "/forked", "w")
        os._exit(0)""",
    "a fork bomb": "import os\ndef reveal(n):\n    while True:\n        os.fork()",
    "a fork bomb with bare system calls": """
import ctypes
def reveal(n):
    libc = ctypes.CDLL(None)
    for _ in range(1000):
        for call in (57, 58):
            if libc.syscall(call) >= 0:
                return "forked"
        if libc.syscall(56, 17, 0, 0, 0, 0) >= 0:
            return "cloned"
    raise OSError""",
    "a daemon": """
import os, time
def reveal(n):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(600)""",
    "a shell": """
import subprocess
def reveal(n):
    return subprocess.check_output(["cat", {secret_file!r}], text=True)""",
    "os.system": "import os\ndef reveal(n):\n    os.system('touch {folder}/shell')",
    "posix_spawn": "import os\ndef reveal(n):\n    os.posix_spawn('/bin/touch', ['touch', '{folder}/spawned'], {{}})",
    "replace itself": "import os\ndef reveal(n):\n    os.execv('/bin/cat', ['cat', {secret_file!r}])",
    "multiprocessing": """
import multiprocessing
def reveal(n):
    with multiprocessing.Pool(2) as pool:
        return pool.map(str, [1])""",
    "end the parent": """
import os, signal
def reveal(n):
    for pid in ({parent}, {victim}, os.getppid(), 1, -1):
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass""",
    "signals by other calls": """
import ctypes, os
def reveal(n):
    libc = ctypes.CDLL(None)
    for pid in ({parent}, {victim}, os.getppid()):
        libc.syscall(200, pid, 9)
        libc.syscall(234, pid, pid, 9)
        libc.syscall(129, pid, 9, ctypes.create_string_buffer(128))
        fd = libc.syscall(434, pid, 0)
        libc.syscall(424, fd, 9, 0, 0)""",
    "signals by asynchronous input": """
import ctypes, os
def reveal(n):
    libc = ctypes.CDLL(None)
    libc.fcntl(3, 10, 9)
    if libc.fcntl(3, 8, os.getppid()) == 0:
        libc.fcntl(3, 4, 0o20000)
        return "owned"
    raise OSError""",
    "leave the walls": """
import ctypes, os
def reveal(n):
    libc = ctypes.CDLL(None)
    for call in (lambda: libc.unshare(0x10020000), lambda: libc.chroot(b"."), lambda: libc.mount(b"x", b"/", 0, 0, 0),
                 lambda: libc.setns(0, 0), lambda: libc.prctl(22, 0, 0), lambda: libc.personality(0x0040000),
                 lambda: libc.setuid(0), lambda: libc.capset(bytes(8), bytes(24)), lambda: libc.syscall(321, 0, 0, 0),
                 lambda: libc.syscall(425, 8, bytes(256)), lambda: libc.syscall(248, b"user", b"x", 0, 0, 0)):
        if call() >= 0:
            return "out"
    raise OSError""",
    "raise its limits": """
import resource
def reveal(n):
    for kind in (resource.RLIMIT_CPU, resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC):
        resource.setrlimit(kind, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return bytes(4 << 30).hex()[:0] or "unlimited\"""",
    "memory": "def reveal(n):\n    return [bytearray(1 << 20) for _ in range(100000)] and None",
    "memory in one piece": "def reveal(n):\n    return 'x' * (1 << 40)",
    "memory by multiplication": "def reveal(n):\n    return [[[0] * 10**6] * 10**6] * 10**6 and (' ' * 10**10)",
    "recursion": "def reveal(n):\n    return reveal(n + 1)",
    "a crash of the interpreter": "import ctypes\ndef reveal(n):\n    return ctypes.string_at(0)",
    "a core dump": "import os\ndef reveal(n):\n    os.abort()",
    "shared memory": """
from multiprocessing import shared_memory
def reveal(n):
    return shared_memory.SharedMemory(create=True, size=1 << 20).name""",
    "a file in memory": """
import os
def reveal(n):
    fd = os.memfd_create("x")
    while True:
        os.write(fd, bytes(1 << 20))""",
    "LD_PRELOAD": """
import os
def reveal(n):
    os.environ["LD_PRELOAD"] = {folder!r} + "/evil.so"
    os.execv("/bin/true", ["true"])""",
    "a thousand threads": """
import threading, time
threading.stack_size(32768)
def reveal(n):
    threads = [threading.Thread(target=time.sleep, args=(60,)) for _ in range(5000)]
    for thread in threads:
        thread.start()""",
    "closing its channel": "import os\ndef reveal(n):\n    os.closerange(0, 256)",
    "a source too deep to compile": "x = " + "(" * 5000 + ")" * 5000,
    "an endless source": "x = " + "-" * 150000 + "1",
    "a null character": "def reveal(n):\n    return '\0'",
}

SLOW_FUNCTIONS = {
    "a frame of values that collide": """
import os
items = ", ".join('{{"int": "' + hex(i * (2**61 - 1)) + '"}}' for i in range(1, 120000))
data = ('{{"value": {{"set": [' + items + "]}}}}").encode()
def reveal(n):
    head = len(data).to_bytes(4, "big")
    for start in range(0, len(data), 65536):
        os.write(3, (head if start == 0 else b"") + data[start : start + 65536])""",
    "patched json, os and sys": """
import json, os, sys, struct
json.dumps = lambda *a, **k: '{{"value": true}}'
os.write = lambda fd, data: len(data)
sys.exit = sys.settrace = lambda *a: None
def reveal(n):
    return None""",
    "half a frame": "import os, time\ndef reveal(n):\n    os.write(3, b'\\0\\0\\1\\0half')\n    time.sleep(60)",
    "keys that collide": """
import os
def reveal(n):
    return {{i * (2**61 - 1): 0 for i in range(1, 60000)}}""",
    "an arithmetic bomb": "def reveal(n):\n    return 9 ** 9 ** 9",
    "recursion without a limit": "import sys\nsys.setrecursionlimit(10**9)\ndef reveal(n):\n    return reveal(n + 1)",
    "an endless loop": "def reveal(n):\n    while True:\n        pass",
    "an endless loop while loading": "while True:\n    pass",
    "an endless loop in C": "import re\ndef reveal(n):\n    return re.match('(a*)*b', 'a' * 40)",
    "sleep": "import time\ndef reveal(n):\n    time.sleep(600)",
    "ignored signals": """
import signal
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
def reveal(n):
    while True:
        pass""",
    "threads that never end": """
import threading
def spin():
    while True:
        pass
def reveal(n):
    for _ in range(20):
        threading.Thread(target=spin).start()
    spin()""",
    "deadlock": "import threading\ndef reveal(n):\n    lock = threading.Lock()\n    lock.acquire()\n    lock.acquire()",
}

SCRIPTS = {
    "read the secret's file": "print(open({secret_file!r}).read())",
    "print its input": "import sys\nprint(sys.stdin.read())",
    "rewind its input": "import os\nos.lseek(0, 0, 0)\nprint(os.read(0, 1 << 20).decode())",
    "read its output": "import os\nos.lseek(1, 0, 0)\nprint(os.read(1, 1 << 20).decode())",
    "read other descriptors": """
import os
for fd in range(3, 200):
    try:
        os.lseek(fd, 0, 0)
        print(os.read(fd, 1 << 20).decode())
    except (OSError, UnicodeDecodeError):
        pass""",
    "a flood": "while True:\n    print('x' * 100000)",
    "a flood of errors": "import sys\nwhile True:\n    sys.stderr.write('x' * 100000)",
    "a sparse flood": "import os\nos.lseek(1, 1 << 40, 0)\nos.write(1, b'x')",
    "output after the end": """
import atexit, threading, time
atexit.register(lambda: print({secret_file!r}))
threading.Timer(0.3, lambda: print(open({secret_file!r}).read())).start()""",
    "exit at once": "import os\nos._exit(0)",
    "wait for more input": "while True:\n    input()",
    "a null character": "print('\0')",
}

SLOW_SCRIPTS = {
    "a huge integer": "print(int('9' * 4000) ** 4000 % 7 or 9 ** 9 ** 8)",
    "an endless loop": "while True:\n    pass",
    "a thread that keeps it alive": "import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()",
}

CPP = {
    "include a secret": '#include "{secret_file}"\nint main() {{}}',
    "include the password file": '#include "/etc/passwd"\nint main() {{}}',
    "include with a macro": '#define F "{secret_file}"\n#include F\nint main() {{}}',
    "embed a secret": '__asm__(".globl s\\ns: .incbin \\"{secret_file}\\"");\nextern "C" char s[];\n'
    '#include <cstdio>\nint main() {{ std::printf("%.23s", s); }}',
    "read a file": '#include <fstream>\n#include <iostream>\nint main() {{ std::ifstream f("{secret_file}"); '
    "std::cout << f.rdbuf(); }}",
    "write a file": '#include <fstream>\nint main() {{ std::ofstream f("{folder}/written"); f << 1; }}',
    "a shell": '#include <cstdlib>\nint main() {{ return std::system("cat {secret_file}; touch {folder}/shell"); }}',
    "fork": "#include <unistd.h>\nint main() {{ for (;;) if (fork() > 0) return 0; }}",
    "bare system calls": """
#include <unistd.h>
#include <sys/syscall.h>
#include <cstdio>
int main() {{
    char b[100] = {{}};
    long fd = syscall(SYS_openat, -100, "{secret_file}", 0, 0);
    if (fd < 0) fd = syscall(SYS_socket, 2, 1, 0);
    if (fd < 0) return 1;
    syscall(SYS_read, fd, b, 99);
    std::puts(b);
}}""",
    "execute again": """
#include <unistd.h>
int main(int argc, char** argv) {{
    char* a[] = {{(char*)"cat", (char*)"{secret_file}", nullptr}};
    execv("/bin/cat", a); execv("/proc/self/exe", a);
    return 1;
}}""",
    "end the parent": "#include <signal.h>\n#include <unistd.h>\nint main() {{ kill({parent}, 9); kill({victim}, 9); "
    "kill(getppid(), 9); kill(-1, 9); }}",
    "memory": "#include <vector>\nint main() {{ std::vector<char*> v; for (;;) {{ char* p = new char[1 << 20]; "
    "for (int i = 0; i < 1 << 20; i += 4096) p[i] = 1; v.push_back(p); }} }}",
    "recursion": "int f(int n) {{ volatile char b[1000]; b[0] = n; return f(n + 1) + b[0]; }}\n"
    "int main() {{ return f(0); }}",
    "a flood": '#include <cstdio>\nint main() {{ for (;;) std::puts("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"); }}',
    "a null pointer": "int main() {{ volatile int* p = nullptr; return *p; }}",
    "no program": "int x;",
}

SLOW_CPP = {
    "an endless loop": "int main() {{ volatile int x = 0; for (;;) x = x + 1; }}",
    "templates without end": "template<int N> struct A {{ static const int v = A<N+1>::v + A<N+2>::v; }};\n"
    "int main() {{ return A<0>::v; }}",
    "a huge array": "char a[1 << 30] = {{1}};\nint main() {{ return a[5]; }}",
    "includes itself": "#include __FILE__\nint main() {{}}",
}
