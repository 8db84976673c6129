/*
 * A file system that hangs, and a record of the threads that wait for it: preloaded into every process, it acts in
 * Python processes alone.
 *
 * Calls on paths below RECOLLECT_TEST_BELOW wait for as long as the file RECOLLECT_TEST_CONTROL/hang is there. While
 * RECOLLECT_TEST_CONTROL/watch is there, calls of a process's main thread, in which the event loops run, are written to
 * RECOLLECT_TEST_CONTROL/calls, one a line: the process, the call, the path. /proc, /sys and /dev are no disks.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static char hang[PATH_MAX], watch[PATH_MAX], calls[PATH_MAX];
static const char *below;

__attribute__((constructor)) static void begin(void) {
    const char *control = getenv("RECOLLECT_TEST_CONTROL");
    if (control == NULL || strncmp(program_invocation_short_name, "python", 6) != 0)
        return;
    snprintf(hang, sizeof hang, "%s/hang", control);
    snprintf(watch, sizeof watch, "%s/watch", control);
    snprintf(calls, sizeof calls, "%s/calls", control);
    below = getenv("RECOLLECT_TEST_BELOW");
}

static int there(const char *path) {
    return syscall(SYS_faccessat, AT_FDCWD, path, F_OK) == 0;
}

static int starts(const char *path, const char *with) {
    return strncmp(path, with, strlen(with)) == 0;
}

static void look(const char *call, const char *path) {
    int before = errno;
    if (below == NULL || path == NULL)
        return;
    if (syscall(SYS_gettid) == getpid() && !starts(path, "/proc") && !starts(path, "/sys") && !starts(path, "/dev") &&
        there(watch)) {
        char line[PATH_MAX + 100];
        int length = snprintf(line, sizeof line, "%d %s %s\n", getpid(), call, path);
        int file = (int)syscall(SYS_openat, AT_FDCWD, calls, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
        if (file >= 0) {
            ssize_t written = write(file, line, (size_t)length);
            (void)written;
            close(file);
        }
    }
    while (starts(path, below) && there(hang)) {
        struct timespec pause = {0, 20000000};
        nanosleep(&pause, NULL);
    }
    errno = before;
}

#define MODE                                                                                                           \
    mode_t mode = 0;                                                                                                   \
    if (flags & (O_CREAT | O_TMPFILE)) {                                                                               \
        va_list more;                                                                                                  \
        va_start(more, flags);                                                                                         \
        mode = va_arg(more, mode_t);                                                                                   \
        va_end(more);                                                                                                  \
    }

int open(const char *path, int flags, ...) {
    MODE look("open", path);
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    MODE look("open", path);
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int openat(int directory, const char *path, int flags, ...) {
    MODE look("open", path);
    return (int)syscall(SYS_openat, directory, path, flags, mode);
}

int stat(const char *restrict path, struct stat *restrict found) {
    look("stat", path);
    return (int)syscall(SYS_newfstatat, AT_FDCWD, path, found, 0);
}

int lstat(const char *restrict path, struct stat *restrict found) {
    look("stat", path);
    return (int)syscall(SYS_newfstatat, AT_FDCWD, path, found, AT_SYMLINK_NOFOLLOW);
}

int fstatat(int directory, const char *restrict path, struct stat *restrict found, int flags) {
    look("stat", path);
    return (int)syscall(SYS_newfstatat, directory, path, found, flags);
}

/* The same under the names that programs with large files use. */
int stat64(const char *restrict path, struct stat64 *restrict found) {
    look("stat", path);
    return (int)syscall(SYS_newfstatat, AT_FDCWD, path, found, 0);
}

int lstat64(const char *restrict path, struct stat64 *restrict found) {
    look("stat", path);
    return (int)syscall(SYS_newfstatat, AT_FDCWD, path, found, AT_SYMLINK_NOFOLLOW);
}

int fstatat64(int directory, const char *restrict path, struct stat64 *restrict found, int flags) {
    look("stat", path);
    return (int)syscall(SYS_newfstatat, directory, path, found, flags);
}

int access(const char *path, int mode) {
    look("access", path);
    return (int)syscall(SYS_faccessat, AT_FDCWD, path, mode);
}

ssize_t readlink(const char *restrict path, char *restrict target, size_t size) {
    look("readlink", path);
    return syscall(SYS_readlinkat, AT_FDCWD, path, target, size);
}

int rename(const char *from, const char *to) {
    look("rename", to);
    return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int unlink(const char *path) {
    look("unlink", path);
    return (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

int mkdir(const char *path, mode_t mode) {
    look("mkdir", path);
    return (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}

DIR *opendir(const char *path) {
    static DIR *(*real)(const char *);
    look("opendir", path);
    if (real == NULL)
        real = (DIR * (*)(const char *)) dlsym(RTLD_NEXT, "opendir");
    return real(path);
}

int fsync(int file) {
    look("fsync", "an open file");
    return (int)syscall(SYS_fsync, file);
}

int fdatasync(int file) {
    look("fdatasync", "an open file");
    return (int)syscall(SYS_fdatasync, file);
}
