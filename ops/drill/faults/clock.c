/*
 * Shifts the wall clock of one part: preloaded into every part, it adds the seconds in a mapped file.
 *
 * Invariant: only CLOCK_REALTIME is shifted, and only in the part that the file is for, which is known by its standard
 * output, NAME.out. The file is mapped, so a write shifts the clock at once. Time comes from the system call itself:
 * looking up the C library's function would allocate memory, which hangs programs with an allocator of their own.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile long *shift_s;

__attribute__((constructor)) static void map_shift(void) {
    const char *folder = getenv("RECOLLECT_DRILL_CLOCKS");
    char output[PATH_MAX], path[PATH_MAX];
    ssize_t length = readlink("/proc/self/fd/1", output, sizeof output - 1);
    if (folder == NULL || length < 0)
        return;
    output[length] = '\0';
    char *name = strrchr(output, '/');
    char *suffix = strrchr(output, '.');
    if (name == NULL || suffix < name || strcmp(suffix, ".out") != 0)
        return;
    *suffix = '\0';
    if ((size_t)snprintf(path, sizeof path, "%s%s", folder, name) >= sizeof path)
        return;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return;
    void *mapped = mmap(NULL, sizeof *shift_s, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (mapped != MAP_FAILED)
        shift_s = mapped;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int status = (int)syscall(SYS_clock_gettime, clock, now);
    if (status == 0 && shift_s != NULL && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += *shift_s;
    return status;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    (void)zone;
    int status = clock_gettime(CLOCK_REALTIME, &exact);
    if (status == 0) {
        now->tv_sec = exact.tv_sec;
        now->tv_usec = exact.tv_nsec / 1000;
    }
    return status;
}

time_t time(time_t *now) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (now != NULL)
        *now = exact.tv_sec;
    return exact.tv_sec;
}
