/*
 * Drops everything that was not synced on the ext4 file system mounted at the given folder, as a power cut does, and
 * ends all writing to it: EXT4_IOC_SHUTDOWN without a flush of the journal. kill -9 proves nothing about syncs, since
 * the kernel keeps a dead process's written pages.
 *
 * In C because the call needs an ioctl: Rust would need unsafe code, which this workspace forbids, and whoever can build
 * RocksDB has a C compiler, while Python may be missing.
 *
 *   cc -o powercut powercut.c && ./powercut FOLDER
 */
#include <fcntl.h>
#include <linux/types.h>
#include <stdio.h>
#include <sys/ioctl.h>

#define EXT4_IOC_SHUTDOWN _IOR('X', 125, __u32)
#define NO_LOG_FLUSH 2

int main(int argc, char **argv) {
  __u32 flags = NO_LOG_FLUSH;
  int folder = argc == 2 ? open(argv[1], O_RDONLY | O_DIRECTORY) : -1;
  if (folder < 0 || ioctl(folder, EXT4_IOC_SHUTDOWN, &flags) != 0) {
    perror(argc == 2 ? argv[1] : "usage: powercut FOLDER");
    return 1;
  }
  return 0;
}
