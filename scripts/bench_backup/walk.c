/*
 * Looks at every entry of a tree as lstat does, and prints how many there are, the root not counted.
 *
 *     walk ROOT THREADS
 *
 * It does what costs least: directories are opened and entries looked at relative to a directory handle, names
 * come in large buffers, and nothing is kept. No program that has to notice changed files can be faster.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUFFER (256 << 10)
#define MAX_THREADS 64

/* A directory. Its handle stays open until all directories in it are open, too. */
struct dir {
    struct dir *parent, *next;
    int fd, users;
    char name[];
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t more = PTHREAD_COND_INITIALIZER;
static struct dir *waiting; /* a stack, so that few directories are open at a time */
static int busy;            /* threads that may still find directories */
static long total;

static void die(const char *what, const char *name)
{
    fprintf(stderr, "walk: %s %s\n", what, name);
    exit(1);
}

static struct dir *new_dir(struct dir *parent, const char *name)
{
    struct dir *dir = malloc(sizeof *dir + strlen(name) + 1);
    if (!dir)
        die("no memory for", name);
    *dir = (struct dir){.parent = parent, .fd = -1, .users = 1};
    strcpy(dir->name, name);
    return dir;
}

/* The caller holds the mutex. */
static void release(struct dir *dir)
{
    if (dir && --dir->users == 0) {
        close(dir->fd);
        free(dir);
    }
}

/* Looks at the entries of one directory. Returns their number, and the directories in front of `found`. */
static long visit(struct dir *dir, char *buffer, struct dir **found, int *subdirs)
{
    long entries = 0;
    ssize_t got;
    dir->fd = openat(dir->parent ? dir->parent->fd : AT_FDCWD, dir->name,
                     O_RDONLY | O_DIRECTORY | O_CLOEXEC | (dir->parent ? O_NOFOLLOW : 0));
    if (dir->fd < 0)
        die("cannot open", dir->name);
    while ((got = getdents64(dir->fd, buffer, BUFFER)) > 0) {
        for (char *at = buffer; at < buffer + got; at += ((struct dirent64 *)at)->d_reclen) {
            const char *name = ((struct dirent64 *)at)->d_name;
            struct stat stat;
            if (!strcmp(name, ".") || !strcmp(name, ".."))
                continue;
            if (fstatat(dir->fd, name, &stat, AT_SYMLINK_NOFOLLOW))
                die("cannot look at", name);
            entries++;
            if (S_ISDIR(stat.st_mode)) {
                struct dir *child = new_dir(dir, name);
                child->next = *found;
                *found = child;
                ++*subdirs;
            }
        }
    }
    if (got < 0)
        die("cannot list", dir->name);
    return entries;
}

static void *work(void *unused)
{
    char *buffer = malloc(BUFFER);
    if (!buffer)
        die("no memory", "");
    pthread_mutex_lock(&mutex);
    for (;;) {
        while (!waiting && busy)
            pthread_cond_wait(&more, &mutex);
        struct dir *dir = waiting;
        if (!dir)
            break;
        waiting = dir->next;
        busy++;
        pthread_mutex_unlock(&mutex);

        struct dir *found = NULL;
        int subdirs = 0;
        long entries = visit(dir, buffer, &found, &subdirs);

        pthread_mutex_lock(&mutex);
        busy--;
        total += entries;
        dir->users += subdirs;
        while (found) {
            struct dir *next = found->next;
            found->next = waiting;
            waiting = found;
            found = next;
        }
        release(dir->parent);
        release(dir);
        pthread_cond_broadcast(&more);
    }
    pthread_mutex_unlock(&mutex);
    free(buffer);
    return unused;
}

int main(int argc, char **argv)
{
    pthread_t threads[MAX_THREADS];
    int count = argc == 3 ? atoi(argv[2]) : 0;
    if (count < 1 || count > MAX_THREADS)
        die("usage: walk ROOT THREADS", "");
    waiting = new_dir(NULL, argv[1]);
    for (int i = 0; i < count; i++)
        if (pthread_create(&threads[i], NULL, work, NULL))
            die("cannot start", "a thread");
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    printf("%ld\n", total);
    return 0;
}
