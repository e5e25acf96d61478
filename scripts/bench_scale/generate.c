/*
 * Makes what scripts/scale needs much of.
 *
 *     generate tree FOLDER FILES           small files of 100 to 2000 bytes, 1000 in each folder
 *     generate index CHUNKS GENERATION     on stdout, the plaintext of a repository's index (docs/format.md)
 *     generate packs FOLDER CHUNKS         the packs of that index, of the right length and with nothing in them
 *
 * The same numbers always give the same bytes. The chunks are not there.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILES_PER_FOLDER 1000
#define SMALLEST 100
#define LARGEST 2000
#define CHUNKS_PER_PACK 200 /* about what packs of 192 MiB hold */
#define PACK_BYTES (192 << 20)
#define LARGEST_CHUNK 1001000
#define ID 32

static void die(const char *what, const char *name)
{
    fprintf(stderr, "generate: %s %s\n", what, name);
    exit(1);
}

/* splitmix64: the state's next value, well mixed. */
static uint64_t next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

/* A file's contents are its number, hashed, in hexadecimal digits. */
static void make_file(int folder, uint64_t number)
{
    static const char digits[] = "0123456789abcdef";
    char name[32], text[LARGEST + 16];
    uint64_t state = number * 0x2545f4914f6cdd1d + 1;
    size_t size = SMALLEST + next(&state) % (LARGEST - SMALLEST + 1), have = 0;
    while (have < size) {
        uint64_t word = next(&state);
        for (int i = 0; i < 16; i++, word >>= 4)
            text[have++] = digits[word & 15];
    }
    snprintf(name, sizeof name, "file-%09llu.txt", (unsigned long long)number);
    int fd = openat(folder, name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
    if (fd < 0 || write(fd, text, size) != (ssize_t)size || close(fd))
        die("cannot write", name);
}

static void make_tree(const char *root, uint64_t files)
{
    int top = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC), folder = -1;
    if (top < 0)
        die("cannot open", root);
    for (uint64_t number = 0; number < files; number++) {
        if (number % FILES_PER_FOLDER == 0) {
            char name[32];
            snprintf(name, sizeof name, "folder-%06llu", (unsigned long long)(number / FILES_PER_FOLDER));
            if (folder >= 0)
                close(folder);
            if (mkdirat(top, name, 0755) || (folder = openat(top, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
                die("cannot make", name);
        }
        make_file(folder, number);
    }
}

static void put(const void *bytes, size_t size)
{
    if (fwrite_unlocked(bytes, 1, size, stdout) != size)
        die("cannot write to", "stdout");
}

/* A marker of MessagePack, and a number of `size` bytes in big-endian order. */
static void put_marked(uint8_t marker, uint64_t number, int size)
{
    uint8_t out[9] = {marker};
    for (int i = 0; i < size; i++)
        out[1 + i] = (uint8_t)(number >> 8 * (size - 1 - i));
    put(out, 1 + (size_t)size);
}

/* An unsigned number in the least bytes. */
static void put_number(uint64_t number)
{
    if (number < 128)
        put_marked((uint8_t)number, 0, 0);
    else if (number <= UINT8_MAX)
        put_marked(0xcc, number, 1);
    else if (number <= UINT16_MAX)
        put_marked(0xcd, number, 2);
    else if (number <= UINT32_MAX)
        put_marked(0xce, number, 4);
    else
        put_marked(0xcf, number, 8);
}

/* An id: an array of 32 numbers. */
static void put_id(const uint8_t *id)
{
    uint8_t out[3 + 2 * ID] = {0xdc, 0, ID};
    size_t size = 3;
    for (int i = 0; i < ID; i++) {
        if (id[i] >= 128)
            out[size++] = 0xcc;
        out[size++] = id[i];
    }
    put(out, size);
}

static void random_id(uint8_t *id, uint64_t *state, uint64_t first)
{
    for (int i = 0; i < 8; i++)
        id[i] = (uint8_t)(first >> 8 * (7 - i));
    for (int i = 8; i < ID; i += 8) {
        uint64_t word = next(state);
        memcpy(id + i, &word, 8);
    }
}

static uint64_t packs_of(uint64_t chunks)
{
    return chunks / CHUNKS_PER_PACK + 1;
}

static void pack_id(uint8_t *id, uint64_t pack)
{
    random_id(id, &pack, next(&pack));
}

/* Holes take no space. */
static void make_packs(const char *root, uint64_t chunks)
{
    if (chdir(root))
        die("cannot enter", root);
    for (uint64_t pack = 1; pack <= packs_of(chunks); pack++) {
        uint8_t id[ID];
        char name[3 + 2 * ID + 1], *end = name;
        pack_id(id, pack);
        end += sprintf(end, "%02x/", id[0]);
        if (mkdir(name, 0755) && errno != EEXIST)
            die("cannot make", name);
        for (int i = 0; i < ID; i++)
            end += sprintf(end, "%02x", id[i]);
        int fd = open(name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
        if (fd < 0 || ftruncate(fd, PACK_BYTES + LARGEST_CHUNK + 64) || close(fd))
            die("cannot make", name);
    }
}

static void write_index(uint64_t chunks, uint64_t generation)
{
    uint64_t state = generation, step = UINT64_MAX / chunks;
    uint8_t id[ID];
    put_marked(0x92, 0, 0);
    put_number(generation);
    put_marked(0x91, 0, 0);
    put_marked(0xdf, chunks, 4);
    for (uint64_t number = 0; number < chunks; number++) {
        /* In order, as vykar writes them. */
        random_id(id, &state, number * step + next(&state) % step);
        put_id(id);
        put_marked(0x94, 0, 0);
        put_number(1); /* references */
        put_number(1000 + next(&state) % (LARGEST_CHUNK - 1000));
        pack_id(id, next(&state) % packs_of(chunks) + 1);
        put_id(id);
        put_number(13 + next(&state) % PACK_BYTES);
    }
    if (fflush(stdout))
        die("cannot write to", "stdout");
}

int main(int argc, char **argv)
{
    const char *what = argc == 4 ? argv[1] : "";
    if (!strcmp(what, "tree")) {
        make_tree(argv[2], strtoull(argv[3], NULL, 10));
    } else if (!strcmp(what, "index")) {
        uint64_t chunks = strtoull(argv[2], NULL, 10);
        if (chunks < 1 || chunks > UINT32_MAX)
            die("the number of chunks must be from 1 to 4294967295, not", argv[2]);
        write_index(chunks, strtoull(argv[3], NULL, 10));
    } else if (!strcmp(what, "packs")) {
        make_packs(argv[2], strtoull(argv[3], NULL, 10));
    } else {
        die("usage: generate tree FOLDER FILES | index CHUNKS GENERATION | packs FOLDER CHUNKS", "");
    }
    return 0;
}
