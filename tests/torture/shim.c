/* A preloaded library that lets a chosen system call below a chosen folder fail, be cut short or be the last one.
 *
 * shim_arm() chooses; until then every call goes through. Only calls of the armed kinds on files below the folder are
 * counted: the first-th of them meets the fault, and the next ones too if there are many. The process that armed it may
 * be the child of one that did not: nothing is kept but a handful of static variables.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN = 1, CREATE = 2, WRITE = 4, SYNC = 8, CLOSE = 16, RENAME = 32, MAKE = 64, REMOVE = 128, READ = 256, LOOK = 512 };
enum { KINDS = 10 };
enum { FAIL = 0, SHORT = 1, KILL = 2, TORN = 3, SKIP = 4 };

static char folder[PATH_MAX];
static size_t folder_length;
static int armed_kinds, armed_mode, armed_errno, armed_many;
static long armed_first;
static atomic_long counted, counted_of[KINDS];

void shim_arm(const char *path, int kinds, int mode, int error, long first, int many)
{
    snprintf(folder, sizeof folder, "%s", path);
    folder_length = strlen(folder);
    armed_mode = mode;
    armed_errno = error;
    armed_first = first;
    armed_many = many;
    atomic_store(&counted, 0);
    for (int bit = 0; bit < KINDS; bit++)
        atomic_store(&counted_of[bit], 0);
    armed_kinds = kinds;
}

void shim_disarm(void) { armed_kinds = 0; }
long shim_counted(int bit) { return atomic_load(&counted_of[bit]); }

static int below(const char *path)
{
    return strncmp(path, folder, folder_length) == 0 && (path[folder_length] == '/' || path[folder_length] == 0);
}

static int descriptor_below(int descriptor)
{
    char link[40], path[PATH_MAX];
    int kept = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = kept;
    if (length < 0)
        return 0;
    path[length] = 0;
    return below(path);
}

static int path_below(int at, const char *path)
{
    if (path == NULL)
        return 0;
    if (path[0] == '/')
        return below(path);
    if (at != AT_FDCWD)
        return descriptor_below(at);
    char here[PATH_MAX];
    return getcwd(here, sizeof here) != NULL && below(here);
}

/* Whether this call meets the fault; a process that is to be killed before it does not come back. */
static int meets(int kind)
{
    long number = atomic_fetch_add(&counted, 1) + 1;
    atomic_fetch_add(&counted_of[__builtin_ctz(kind)], 1);
    if (number < armed_first || (number > armed_first && !armed_many))
        return 0;
    if (armed_mode == KILL || (armed_mode == TORN && kind != WRITE))
        raise(SIGKILL);
    return 1;
}

#define GENUINE(name) \
    static __typeof__(&name) genuine; \
    if (genuine == NULL) genuine = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define ON_PATH(kind, at, path) ((armed_kinds & (kind)) && path_below(at, path) && meets(kind))
#define ON_DESCRIPTOR(kind, descriptor) ((armed_kinds & (kind)) && descriptor_below(descriptor) && meets(kind))
#define FAILS do { if (armed_mode == TORN) raise(SIGKILL); if (armed_mode == SKIP) return 0; errno = armed_errno; return -1; } while (0)

static int kind_of_open(int flags) { return flags & O_CREAT ? CREATE : OPEN; }

#define DEFINE_OPEN(name) \
    int name(const char *path, int flags, ...) \
    { \
        GENUINE(name); \
        va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest); \
        int kind = kind_of_open(flags); \
        if (ON_PATH(kind, AT_FDCWD, path)) { errno = armed_errno; return -1; } \
        return genuine(path, flags, mode); \
    }
DEFINE_OPEN(open)
DEFINE_OPEN(open64)

#define DEFINE_OPENAT(name) \
    int name(int at, const char *path, int flags, ...) \
    { \
        GENUINE(name); \
        va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest); \
        int kind = kind_of_open(flags); \
        if (ON_PATH(kind, at, path)) { errno = armed_errno; return -1; } \
        return genuine(at, path, flags, mode); \
    }
DEFINE_OPENAT(openat)
DEFINE_OPENAT(openat64)

/* Half of what was to be written. */
static size_t part(size_t size) { return size / 2; }

ssize_t write(int descriptor, const void *data, size_t size)
{
    GENUINE(write);
    if (ON_DESCRIPTOR(WRITE, descriptor)) {
        if (armed_mode == SHORT || armed_mode == TORN) {
            ssize_t written = part(size) ? genuine(descriptor, data, part(size)) : 0;
            if (armed_mode == TORN)
                raise(SIGKILL);
            if (written > 0)
                return written;
            errno = ENOSPC;
            return -1;
        }
        if (armed_mode == SKIP)
            return (ssize_t)size;
        errno = armed_errno;
        return -1;
    }
    return genuine(descriptor, data, size);
}

#define DEFINE_PWRITE(name, offset_type) \
    ssize_t name(int descriptor, const void *data, size_t size, offset_type offset) \
    { \
        GENUINE(name); \
        if (ON_DESCRIPTOR(WRITE, descriptor)) { \
            if (armed_mode == SHORT || armed_mode == TORN) { \
                ssize_t written = part(size) ? genuine(descriptor, data, part(size), offset) : 0; \
                if (armed_mode == TORN) raise(SIGKILL); \
                if (written > 0) return written; \
                errno = ENOSPC; return -1; \
            } \
            if (armed_mode == SKIP) return (ssize_t)size; \
            errno = armed_errno; return -1; \
        } \
        return genuine(descriptor, data, size, offset); \
    }
DEFINE_PWRITE(pwrite, off_t)
DEFINE_PWRITE(pwrite64, off64_t)

ssize_t writev(int descriptor, const struct iovec *parts, int count)
{
    GENUINE(writev);
    if (ON_DESCRIPTOR(WRITE, descriptor)) {
        if (armed_mode == SHORT || armed_mode == TORN) {
            ssize_t written = genuine(descriptor, parts, 1);
            if (armed_mode == TORN)
                raise(SIGKILL);
            return written;
        }
        errno = armed_errno;
        return -1;
    }
    return genuine(descriptor, parts, count);
}

ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t size, unsigned flags)
{
    GENUINE(copy_file_range);
    if (ON_DESCRIPTOR(WRITE, out))
        FAILS;
    return genuine(in, in_at, out, out_at, size, flags);
}

#define DEFINE_SENDFILE(name, offset_type) \
    ssize_t name(int out, int in, offset_type *offset, size_t size) \
    { \
        GENUINE(name); \
        if (ON_DESCRIPTOR(WRITE, out)) FAILS; \
        return genuine(out, in, offset, size); \
    }
ssize_t sendfile(int out, int in, off_t *offset, size_t size);
ssize_t sendfile64(int out, int in, off64_t *offset, size_t size);
DEFINE_SENDFILE(sendfile, off_t)
DEFINE_SENDFILE(sendfile64, off64_t)

ssize_t read(int descriptor, void *data, size_t size)
{
    GENUINE(read);
    if (ON_DESCRIPTOR(READ, descriptor)) { errno = armed_errno; return -1; }
    return genuine(descriptor, data, size);
}

#define DEFINE_PREAD(name, offset_type) \
    ssize_t name(int descriptor, void *data, size_t size, offset_type offset) \
    { \
        GENUINE(name); \
        if (ON_DESCRIPTOR(READ, descriptor)) { errno = armed_errno; return -1; } \
        return genuine(descriptor, data, size, offset); \
    }
DEFINE_PREAD(pread, off_t)
DEFINE_PREAD(pread64, off64_t)

#define DEFINE_STAT(name, result_type) \
    int name(const char *path, struct result_type *result) \
    { \
        GENUINE(name); \
        if (ON_PATH(LOOK, AT_FDCWD, path)) { errno = armed_errno; return -1; } \
        return genuine(path, result); \
    }
DEFINE_STAT(stat, stat)
DEFINE_STAT(stat64, stat64)
DEFINE_STAT(lstat, stat)
DEFINE_STAT(lstat64, stat64)

#define DEFINE_STATAT(name, result_type) \
    int name(int at, const char *path, struct result_type *result, int flags) \
    { \
        GENUINE(name); \
        if (ON_PATH(LOOK, at, path)) { errno = armed_errno; return -1; } \
        return genuine(at, path, result, flags); \
    }
DEFINE_STATAT(fstatat, stat)
DEFINE_STATAT(fstatat64, stat64)

DIR *opendir(const char *path)
{
    GENUINE(opendir);
    if (ON_PATH(LOOK, AT_FDCWD, path)) { errno = armed_errno; return NULL; }
    return genuine(path);
}

DIR *fdopendir(int descriptor)
{
    GENUINE(fdopendir);
    if (ON_DESCRIPTOR(LOOK, descriptor)) { errno = armed_errno; return NULL; }
    return genuine(descriptor);
}

#define DEFINE_READDIR(name, result_type) \
    struct result_type *name(DIR *listed) \
    { \
        GENUINE(name); \
        if (ON_DESCRIPTOR(LOOK, dirfd(listed))) { errno = armed_errno; return NULL; } \
        return genuine(listed); \
    }
DEFINE_READDIR(readdir, dirent)
DEFINE_READDIR(readdir64, dirent64)

#define DEFINE_ON_DESCRIPTOR(name, kind) \
    int name(int descriptor) \
    { \
        GENUINE(name); \
        if (ON_DESCRIPTOR(kind, descriptor)) FAILS; \
        return genuine(descriptor); \
    }
DEFINE_ON_DESCRIPTOR(fsync, SYNC)
DEFINE_ON_DESCRIPTOR(fdatasync, SYNC)

int close(int descriptor)
{
    GENUINE(close);
    if (ON_DESCRIPTOR(CLOSE, descriptor)) {
        genuine(descriptor); /* as Linux does: the descriptor is gone all the same */
        errno = armed_errno;
        return -1;
    }
    return genuine(descriptor);
}

#define DEFINE_TRUNCATE(name, offset_type) \
    int name(int descriptor, offset_type size) \
    { \
        GENUINE(name); \
        if (ON_DESCRIPTOR(WRITE, descriptor)) FAILS; \
        return genuine(descriptor, size); \
    }
DEFINE_TRUNCATE(ftruncate, off_t)
DEFINE_TRUNCATE(ftruncate64, off64_t)

int rename(const char *from, const char *to)
{
    GENUINE(rename);
    if (ON_PATH(RENAME, AT_FDCWD, to))
        FAILS;
    return genuine(from, to);
}

int renameat(int from_at, const char *from, int to_at, const char *to)
{
    GENUINE(renameat);
    if (ON_PATH(RENAME, to_at, to))
        FAILS;
    return genuine(from_at, from, to_at, to);
}

int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags)
{
    GENUINE(renameat2);
    if (ON_PATH(RENAME, to_at, to))
        FAILS;
    return genuine(from_at, from, to_at, to, flags);
}

int link(const char *from, const char *to)
{
    GENUINE(link);
    if (ON_PATH(MAKE, AT_FDCWD, to))
        FAILS;
    return genuine(from, to);
}

int linkat(int from_at, const char *from, int to_at, const char *to, int flags)
{
    GENUINE(linkat);
    if (ON_PATH(MAKE, to_at, to))
        FAILS;
    return genuine(from_at, from, to_at, to, flags);
}

int mkdir(const char *path, mode_t mode)
{
    GENUINE(mkdir);
    if (ON_PATH(MAKE, AT_FDCWD, path))
        FAILS;
    return genuine(path, mode);
}

int mkdirat(int at, const char *path, mode_t mode)
{
    GENUINE(mkdirat);
    if (ON_PATH(MAKE, at, path))
        FAILS;
    return genuine(at, path, mode);
}

int unlink(const char *path)
{
    GENUINE(unlink);
    if (ON_PATH(REMOVE, AT_FDCWD, path))
        FAILS;
    return genuine(path);
}

int unlinkat(int at, const char *path, int flags)
{
    GENUINE(unlinkat);
    if (ON_PATH(REMOVE, at, path))
        FAILS;
    return genuine(at, path, flags);
}

int rmdir(const char *path)
{
    GENUINE(rmdir);
    if (ON_PATH(REMOVE, AT_FDCWD, path))
        FAILS;
    return genuine(path);
}
