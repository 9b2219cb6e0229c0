/* A disk that may be full, whose syncs may fail, and which forgets what was not synced.

   Loaded with LD_PRELOAD. Of everything under DISK_ROOT a copy is kept in DISK_SYNCED as it was
   at its last fsync or fdatasync: the bytes of a file, the names in a folder. What a power cut
   leaves is built from those copies alone (tests/disk.py), so a name counts once its folder was
   synced and bytes once their file was. The file DISK_FAULT, while it is there, says what is
   wrong: `full`, every write fails with ENOSPC; `eio`, every sync fails with EIO. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The path behind a descriptor; 0 where it is not under DISK_ROOT. */
static int ours(int fd, char *path) {
  char link[64];
  const char *root = getenv("DISK_ROOT");
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t size = readlink(link, path, PATH_MAX - 1);
  if (root == NULL || size <= 0) return 0;
  path[size] = 0;
  size_t length = strlen(root);
  return strncmp(path, root, length) == 0 && (path[length] == '/' || path[length] == 0);
}

static int faulty(char kind) {
  char said = 0;
  const char *name = getenv("DISK_FAULT");
  int fd = name == NULL ? -1 : (int)syscall(SYS_openat, AT_FDCWD, name, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  int read_one = syscall(SYS_read, fd, &said, 1) == 1;
  syscall(SYS_close, fd);
  return read_one && said == kind;
}

/* An inode's number comes again; with its time of birth it is one file's alone. */
static void identify(int fd, const char *name, char *id, char *kind) {
  struct statx at;
  memset(&at, 0, sizeof at);
  int flags = AT_SYMLINK_NOFOLLOW | (*name ? 0 : AT_EMPTY_PATH);
  statx(fd, name, flags, STATX_INO | STATX_BTIME | STATX_TYPE, &at);
  sprintf(id, "%llu-%lld-%u", (unsigned long long)at.stx_ino, (long long)at.stx_btime.tv_sec,
          at.stx_btime.tv_nsec);
  *kind = S_ISDIR(at.stx_mode) ? 'd' : S_ISREG(at.stx_mode) ? 'f' : '-';
}

static void put(int to, const char *bytes, size_t size) {
  while (size > 0) {
    long done = syscall(SYS_write, to, bytes, size);
    if (done <= 0) abort();
    bytes += done, size -= done;
  }
}

static void copy_file(int fd, const char *path, int to) {
  static __thread char bytes[1 << 16];
  /* To open and close it would drop the locks of SQLite, whose own descriptor can read. */
  int own = (fcntl(fd, F_GETFL) & O_ACCMODE) == O_WRONLY;
  int from = own ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC) : fd;
  off_t at = 0;
  for (ssize_t size; from >= 0 && (size = pread(from, bytes, sizeof bytes, at)) > 0; at += size)
    put(to, bytes, size);
  if (own && from >= 0) syscall(SYS_close, from);
}

static void copy_names(const char *path, int to) {
  DIR *folder = opendir(path);
  if (folder == NULL) abort();
  for (struct dirent *one; (one = readdir(folder)) != NULL;) {
    char id[64], kind, line[PATH_MAX];
    if (strcmp(one->d_name, ".") == 0 || strcmp(one->d_name, "..") == 0) continue;
    identify(dirfd(folder), one->d_name, id, &kind);
    put(to, line, snprintf(line, sizeof line, "%c %s %s\n", kind, id, one->d_name));
  }
  closedir(folder);
}

static int keep(int fd, const char *path) {
  char id[64], kind, fresh[PATH_MAX], kept[PATH_MAX];
  if (faulty('e')) {
    errno = EIO;
    return -1;
  }
  identify(fd, "", id, &kind);
  const char *synced = getenv("DISK_SYNCED");
  snprintf(fresh, sizeof fresh, "%s/new-%ld", synced, (long)syscall(SYS_gettid));
  snprintf(kept, sizeof kept, "%s/%c-%s", synced, kind, id);
  int to = syscall(SYS_openat, AT_FDCWD, fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (to < 0) abort();
  if (kind == 'd')
    copy_names(path, to);
  else
    copy_file(fd, path, to);
  syscall(SYS_close, to);
  return rename(fresh, kept);
}

int fsync(int fd) {
  char path[PATH_MAX];
  return ours(fd, path) ? keep(fd, path) : (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd) {
  char path[PATH_MAX];
  return ours(fd, path) ? keep(fd, path) : (int)syscall(SYS_fdatasync, fd);
}

static int full(int fd) {
  char path[PATH_MAX];
  if (!faulty('f') || !ours(fd, path)) return 0;
  errno = ENOSPC;
  return 1;
}

ssize_t write(int fd, const void *bytes, size_t size) {
  return full(fd) ? -1 : syscall(SYS_write, fd, bytes, size);
}

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t at) {
  return full(fd) ? -1 : syscall(SYS_pwrite64, fd, bytes, size, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t size, off64_t at) {
  return full(fd) ? -1 : syscall(SYS_pwrite64, fd, bytes, size, at);
}
