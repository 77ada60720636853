/* A disk whose syncs are slow, or fail, for one process:
 *
 *     cc -shared -fPIC -o badsync.so badsync.c
 *     LD_PRELOAD=./badsync.so BADSYNC_FILE=FILE PROGRAM
 *
 * FILE holds three 64-bit numbers in this machine's order of bytes: so many nanoseconds each sync takes longer, so many syncs fail
 * from now on with EIO, and, counted here, how many were slow or failed. Writing the first two changes the disk while the program
 * runs. A sync that fails was not made: what it should have made safe may be on the disk, or not. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define SECOND_NS 1000000000LL

struct disk {
    int64_t slower_ns;
    int64_t fail;
    int64_t met;
};

static int (*sync_all)(int);
static int (*sync_data)(int);
static struct disk *disk;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("BADSYNC_FILE");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    sync_all = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    sync_data = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    if (file < 0) return;
    void *mapped = mmap(NULL, sizeof *disk, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED) disk = mapped;
    close(file);
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
    int64_t left = __atomic_load_n(&disk->fail, __ATOMIC_RELAXED);
    while (left > 0) {
        if (__atomic_compare_exchange_n(&disk->fail, &left, left - 1, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
            __atomic_add_fetch(&disk->met, 1, __ATOMIC_RELAXED);
            errno = EIO;
            return 1;
        }
    }
    return 0;
}

int fsync(int file) {
    if (!sync_all) begin();
    return is_bad() ? -1 : sync_all(file);
}

int fdatasync(int file) {
    if (!sync_data) begin();
    return is_bad() ? -1 : sync_data(file);
}
