"""Kills ``graphunlearn forget --ledger`` at every write, and looks at what is left: run by ``test_ledger_commands.py``.

A shared library that is loaded before the C library counts every call that changes what is on the disk, and kills the
process at a chosen one: before it is made, or for writes when half of it is. Everything is imported once; then a child
is forked for every call.
"""

import ctypes
import json
import os
import shutil
import signal
import sys
import warnings
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

import graphunlearn as gu
from graphunlearn import cli
from graphunlearn.cli.ledger import ShowLedger
from graphunlearn.nn.identity import fingerprint
from graphunlearn.runs.run import Run

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static long left = -1, count = 0;
static int half = 0;

void crash_at(long at, int in_half) { left = at; half = in_half; count = 0; }
long crash_count(void) { return count; }

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }
static int now(void) { count++; return left > 0 && --left == 0; }
static void die(void) { kill(getpid(), SIGKILL); pause(); }

#define PLAIN(type, name, params, args)                          \
  type name params {                                             \
    type(*f) params = real(#name);                               \
    if (now()) die();                                            \
    return f args;                                               \
  }
PLAIN(int, fsync, (int fd), (fd))
PLAIN(int, fdatasync, (int fd), (fd))
PLAIN(int, rename, (const char *a, const char *b), (a, b))
PLAIN(int, renameat, (int x, const char *a, int y, const char *b), (x, a, y, b))
PLAIN(int, unlink, (const char *a), (a))
PLAIN(int, unlinkat, (int x, const char *a, int f_), (x, a, f_))
PLAIN(int, rmdir, (const char *a), (a))
PLAIN(int, mkdir, (const char *a, mode_t m), (a, m))
PLAIN(int, mkdirat, (int x, const char *a, mode_t m), (x, a, m))
PLAIN(int, ftruncate, (int fd, off_t n), (fd, n))
PLAIN(int, ftruncate64, (int fd, off64_t n), (fd, n))

#define WRITE(name, params, args, halved)                        \
  ssize_t name params {                                          \
    ssize_t(*f) params = real(#name);                            \
    if (fd > 2 && now()) { if (half && n > 1) f halved; die(); } \
    return f args;                                               \
  }
WRITE(write, (int fd, const void *b, size_t n), (fd, b, n), (fd, b, n / 2))
WRITE(pwrite, (int fd, const void *b, size_t n, off_t o), (fd, b, n, o), (fd, b, n / 2, o))
WRITE(pwrite64, (int fd, const void *b, size_t n, off64_t o), (fd, b, n, o), (fd, b, n / 2, o))

#define OPEN(name)                                               \
  int name(const char *p, int flags, ...) {                      \
    int (*f)(const char *, int, ...) = real(#name);              \
    va_list l; va_start(l, flags); mode_t m = va_arg(l, mode_t); va_end(l); \
    if ((flags & O_CREAT) && now()) die();                       \
    return f(p, flags, m);                                       \
  }
OPEN(open)
OPEN(open64)
"""


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Crashes:
    """Kills a command in copies of a folder.

    Args:
        stage: The folder that the command is given in.
        words: What follows ``graphunlearn forget``; ``--ledger l.db``.
        source: Its run folder.
        out: The run folder that it writes.
        entries: How many entries there are afterwards.
    """

    def __init__(self, stage, words, source, out, entries):
        self.stage, self.source, self.out, self.entries = stage, source, out, entries
        self.forget = cli._parse("forget", words)
        self.verify, self.resume = (ShowLedger(action=action, file=Path("l.db")) for action in ("verify", "resume"))
        self.shim = ctypes.CDLL(None)
        self.scene = stage.with_name(f"{stage.name}.scene")
        self.old = files(stage / source)
        self.set_up()
        self.call(self.forget)
        self.new = self.model_of(self.out)

    def set_up(self):
        os.chdir(self.stage)
        shutil.rmtree(self.scene, ignore_errors=True)
        shutil.copytree(self.stage, self.scene)
        os.environ["GRAPHUNLEARN_KEYS"] = str(self.scene / "keys")
        os.chdir(self.scene)

    def call(self, command):
        with warnings.catch_warnings(), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            return command.run()

    def model_of(self, folder):
        run = Run.load(Path(folder))
        return fingerprint(run.model), run.train.fingerprint()

    def kill(self, at, half):
        """Run the command in a child that is killed; return whether it was, and how many calls it made if not."""
        self.set_up()
        read, write = os.pipe()
        child = os.fork()
        if not child:
            self.shim.crash_at(at, half)
            try:
                self.call(self.forget)
                os.write(write, str(self.shim.crash_count()).encode())
            finally:
                os._exit(0)
        os.close(write)
        told = os.read(read, 100)
        os.close(read)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL
            return None
        assert told, "the command failed"
        return int(told)

    def look(self, finish):
        """Look at what is left, finish the request, and look again; return what the folder was."""
        ledger, out = Path("l.db"), Path(self.out)
        made = ledger.is_file() and ledger.stat().st_size > 0
        if made:
            self.call(self.verify)
        if self.source == self.out:  # replaced in place: old, new, or put aside for a moment
            where = "aside" if not out.exists() else "old" if files(out) == self.old else "new"
            assert where != "new" or self.model_of(out) == self.new
        else:
            assert files(Path(self.source)) == self.old
            where = "new" if out.exists() else "old"
            assert not out.exists() or self.model_of(out) == self.new
        if finish == "resume" and made and self.pending() is not None:
            self.call(self.resume)
        else:
            self.call(self.forget)
        entries = gu.Ledger("l.db").entries()
        assert [entry.number for entry in entries] == list(range(1, self.entries + 1))
        assert self.pending() is None
        assert self.model_of(out) == self.new
        run = Run.load(out)
        assert (entries[-1].model_after, entries[-1].graph_after) == gu.Ledger("l.db").fingerprints(
            run.model, run.train
        )
        self.call(self.verify)
        names = {path.name for path in Path().iterdir()}
        assert names == {path.name for path in self.stage.iterdir()} | {"l.db", "keys", self.out}
        assert len(list(Path("keys").iterdir())) == 1
        return where

    def pending(self):
        return gu.Ledger("l.db").pending


def crash_everywhere(stage, words, source, out, entries, every, start):
    """Kill the command at every ``every``-th call from ``start`` on, and at the last ones, and tell of it.

    Every third of these is then killed once more, when it is half done.
    """
    crashes = Crashes(stage, words, source, out, entries)
    total, seen, kills = crashes.kill(-1, 0), set(), 0
    places = [at for at in range(1, total + 1) if (at - 1) % every == start or at > total - 2]
    for place, at in enumerate(places):
        for half in range(2 if place % 3 == 0 else 1):
            try:
                assert crashes.kill(at, half) is None, "not killed"
                seen.add(crashes.look("resume" if at % 4 == 0 else "again"))
            except BaseException:
                sys.stderr.write(f"at call {at} of {total}, half done: {bool(half)}\n")
                raise
            kills += 1
    return {"calls": total, "kills": kills, "seen": sorted(seen)}


if __name__ == "__main__":
    told = [crash_everywhere(Path(stage), *others) for stage, *others in json.loads(sys.argv[1])]
    sys.stdout.write(json.dumps(told))
