/* A disk whose syncs are slow, or fail, and whose writes fail or are short, for one process:
 *
 *     cc -shared -fPIC -o badsync.so badsync.c
 *     LD_PRELOAD=./badsync.so BADSYNC_FILE=FILE PROGRAM
 *
 * FILE holds five 64-bit numbers in this machine's order of bytes: so many nanoseconds each sync takes longer, so many syncs fail
 * from now on with EIO, so many writes do, so many writes write only half of what they should, and, counted here, how many of all
 * these there were. Writing the first four changes the disk while the program runs. A sync that fails was not made: what it should
 * have made safe may be on the disk, or not. Writes are those to a database's logs: files called *.log, but for what the program
 * prints. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define SECOND_NS 1000000000LL

struct disk {
    int64_t slower_ns;
    int64_t fail;
    int64_t fail_writes;
    int64_t short_writes;
    int64_t met;
};

static int (*sync_all)(int);
static int (*sync_data)(int);
static ssize_t (*write_some)(int, const void *, size_t);
static ssize_t (*write_at)(int, const void *, size_t, off_t);
static struct disk *disk;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("BADSYNC_FILE");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    sync_all = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    sync_data = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    write_some = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    write_at = (ssize_t (*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite");
    if (file < 0) return;
    void *mapped = mmap(NULL, sizeof *disk, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED) disk = mapped;
    close(file);
}

/* Takes one of what is left of a number, and counts it. */
static int take(int64_t *number) {
    int64_t left = __atomic_load_n(number, __ATOMIC_RELAXED);
    while (left > 0) {
        if (__atomic_compare_exchange_n(number, &left, left - 1, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
            __atomic_add_fetch(&disk->met, 1, __ATOMIC_RELAXED);
            return 1;
        }
    }
    return 0;
}

/* Whether this one fails. */
static int is_bad(void) {
    if (!disk) return 0;
    int64_t slower_ns = __atomic_load_n(&disk->slower_ns, __ATOMIC_RELAXED);
    if (slower_ns > 0) {
        struct timespec slower = {slower_ns / SECOND_NS, slower_ns % SECOND_NS};
        nanosleep(&slower, NULL);
        __atomic_add_fetch(&disk->met, 1, __ATOMIC_RELAXED);
    }
    if (!take(&disk->fail)) return 0;
    errno = EIO;
    return 1;
}

/* Whether this file is a database's log. */
static int is_log(int file) {
    char link[32], path[4096];
    if (file <= STDERR_FILENO) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path);
    return length > 4 && memcmp(path + length - 4, ".log", 4) == 0;
}

/* How much of this is to be written; 0: nothing, it fails. */
static size_t writable(int file, size_t length) {
    if (!disk || length < 2) return length;
    int fails = __atomic_load_n(&disk->fail_writes, __ATOMIC_RELAXED) > 0;
    int is_short = __atomic_load_n(&disk->short_writes, __ATOMIC_RELAXED) > 0;
    if (!(fails || is_short) || !is_log(file)) return length;
    if (fails && take(&disk->fail_writes)) {
        errno = EIO;
        return 0;
    }
    return is_short && take(&disk->short_writes) ? length / 2 : length;
}

int fsync(int file) {
    if (!sync_all) begin();
    return is_bad() ? -1 : sync_all(file);
}

int fdatasync(int file) {
    if (!sync_data) begin();
    return is_bad() ? -1 : sync_data(file);
}

ssize_t write(int file, const void *bytes, size_t length) {
    if (!write_some) begin();
    size_t some = writable(file, length);
    return some || !length ? write_some(file, bytes, some) : -1;
}

ssize_t pwrite(int file, const void *bytes, size_t length, off_t at) {
    if (!write_at) begin();
    size_t some = writable(file, length);
    return some || !length ? write_at(file, bytes, some, at) : -1;
}

ssize_t pwrite64(int file, const void *bytes, size_t length, off_t at) {
    return pwrite(file, bytes, length, at);
}
