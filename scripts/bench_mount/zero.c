/*
 * A read-only FUSE file system with the names and sizes of a real tree, and zeros for contents.
 *
 *     zero LISTING MOUNTPOINT
 *
 * It does what costs least: listings bring the attributes along, the kernel keeps everything for an hour,
 * there is no message for open and release, and answers come from memory. No file system through FUSE that
 * answers each message one at a time can be faster, so its times are the floor for the others.
 *
 * LISTING has one line for each inode, breadth first, the root first, the names of a directory in the order
 * of their bytes:  PARENT MODE SIZE MTIME NLINK NAME  with PARENT the number of a line, counted from 0,
 * MODE in octal, and one space between. The numbers of the inodes are those of the lines, plus one.
 */
#define FUSE_USE_VERSION 35
#define _GNU_SOURCE
#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define TTL 3600.0
#define ZEROS (1 << 20)

struct node {
    char *name;
    size_t first, count; /* the children, next to each other */
    size_t parent;
    struct stat stat;
};

static struct node *nodes;
static size_t n_nodes;
static char zeros[ZEROS];

static void die(const char *what, const char *name)
{
    fprintf(stderr, "zero: %s %s\n", what, name);
    exit(1);
}

static void load(const char *path)
{
    FILE *file = fopen(path, "r");
    if (!file)
        die("cannot open", path);
    char *line = NULL;
    size_t space = 0, room = 0;
    ssize_t length;
    while ((length = getline(&line, &space, file)) > 0) {
        unsigned long parent;
        unsigned int mode, links;
        long long size, mtime;
        int name = 0;
        line[length - 1] = 0;
        if (sscanf(line, "%lu %o %lld %lld %u %n", &parent, &mode, &size, &mtime, &links, &name) != 5 || !name)
            die("bad line in listing:", line);
        if (n_nodes == room)
            nodes = realloc(nodes, (room = room ? room * 2 : 1024) * sizeof *nodes);
        if (!nodes || parent > n_nodes)
            die("no memory, or a bad parent:", line);
        struct node *node = &nodes[n_nodes];
        memset(node, 0, sizeof *node);
        node->name = strdup(line + name);
        node->parent = parent;
        node->stat.st_ino = n_nodes + 1;
        node->stat.st_mode = mode;
        node->stat.st_size = size;
        node->stat.st_blocks = (size + 511) / 512;
        node->stat.st_mtime = node->stat.st_ctime = node->stat.st_atime = mtime;
        node->stat.st_nlink = links;
        if (n_nodes && !nodes[parent].count++)
            nodes[parent].first = n_nodes;
        n_nodes++;
    }
    free(line);
    fclose(file);
    if (!n_nodes)
        die("empty listing", path);
}

static struct node *get(fuse_ino_t ino) { return ino && ino <= n_nodes ? &nodes[ino - 1] : NULL; }

static struct fuse_entry_param entry_of(const struct node *node)
{
    struct fuse_entry_param entry = {
        .ino = node->stat.st_ino, .attr = node->stat, .attr_timeout = TTL, .entry_timeout = TTL};
    return entry;
}

static void zero_init(void *data, struct fuse_conn_info *conn)
{
    (void)data;
    conn->want |= conn->capable & FUSE_CAP_READDIRPLUS;
    conn->want &= ~FUSE_CAP_READDIRPLUS_AUTO;
    conn->max_background = 64;
    conn->congestion_threshold = 48;
}

static void zero_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct node *dir = get(parent);
    size_t low = dir ? dir->first : 0, high = dir ? low + dir->count : 0;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(name, nodes[middle].name);
        if (!order) {
            struct fuse_entry_param entry = entry_of(&nodes[middle]);
            fuse_reply_entry(req, &entry);
            return;
        }
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    struct fuse_entry_param none = {.entry_timeout = TTL};
    fuse_reply_entry(req, &none);
}

static void zero_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *info)
{
    (void)info;
    struct node *node = get(ino);
    if (node)
        fuse_reply_attr(req, &node->stat, TTL);
    else
        fuse_reply_err(req, ENOENT);
}

static void zero_readlink(fuse_req_t req, fuse_ino_t ino)
{
    struct node *node = get(ino);
    char target[4096];
    size_t length = node && node->stat.st_size < 4096 ? (size_t)node->stat.st_size : 4095;
    memset(target, 'x', length);
    target[length] = 0;
    fuse_reply_readlink(req, target);
}

/* ENOSYS tells the kernel not to ask again, for any file or directory. */
static void zero_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *info)
{
    (void)ino, (void)info;
    fuse_reply_err(req, ENOSYS);
}

static void zero_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *info)
{
    (void)info;
    struct node *node = get(ino);
    off_t left = node ? node->stat.st_size - offset : 0;
    if (left < 0)
        left = 0;
    if (size > ZEROS)
        size = ZEROS;
    fuse_reply_buf(req, zeros, (off_t)size < left ? size : (size_t)left);
}

static void list(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, int plus)
{
    struct node *dir = get(ino);
    char *buffer = malloc(size);
    size_t used = 0, end = dir ? dir->count + 2 : 0;
    if (!buffer) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    for (size_t i = (size_t)offset; i < end; i++) {
        struct node *node = i == 0 ? dir : i == 1 ? &nodes[dir->parent] : &nodes[dir->first + i - 2];
        const char *name = i == 0 ? "." : i == 1 ? ".." : node->name;
        struct fuse_entry_param entry = entry_of(node);
        size_t needed;
        if (i < 2)
            entry.ino = 0; /* The kernel takes no entry from these. */
        if (plus)
            needed = fuse_add_direntry_plus(req, buffer + used, size - used, name, &entry, (off_t)i + 1);
        else
            needed = fuse_add_direntry(req, buffer + used, size - used, name, &node->stat, (off_t)i + 1);
        if (needed > size - used)
            break;
        used += needed;
    }
    fuse_reply_buf(req, buffer, used);
    free(buffer);
}

static void zero_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *info)
{
    (void)info;
    list(req, ino, size, offset, 0);
}

static void zero_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *info)
{
    (void)info;
    list(req, ino, size, offset, 1);
}

static const struct fuse_lowlevel_ops operations = {
    .init = zero_init, .lookup = zero_lookup, .getattr = zero_getattr, .readlink = zero_readlink,
    .open = zero_open, .opendir = zero_open, .read = zero_read,
    .readdir = zero_readdir, .readdirplus = zero_readdirplus,
    /* No getxattr: libfuse answers ENOSYS, and the kernel does not ask again. */
};

int main(int argc, char **argv)
{
    if (argc != 3)
        die("usage: zero LISTING MOUNTPOINT", "");
    load(argv[1]);
    char *options[] = {"zero", "-o", "ro,fsname=zero"};
    struct fuse_args args = FUSE_ARGS_INIT(3, options);
    struct fuse_session *session = fuse_session_new(&args, &operations, sizeof operations, NULL);
    if (!session || fuse_set_signal_handlers(session) || fuse_session_mount(session, argv[2]))
        die("cannot mount on", argv[2]);
    struct fuse_loop_config config = {.clone_fd = 1, .max_idle_threads = 10};
    int result = fuse_session_loop_mt(session, &config);
    fuse_session_unmount(session);
    fuse_remove_signal_handlers(session);
    fuse_session_destroy(session);
    return result != 0;
}
