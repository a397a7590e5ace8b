/* The bare loop that a `request` pool is compared with: one epoll loop feeds the lines of standard input to long-lived workers,
 * and writes their answers in the order of the lines. It adapts to nothing and survives nothing: a batch of lines that is too
 * much for a pipe, or a worker that dies, is the end of it.
 *
 *   feed WORKERS IN_FLIGHT PROGRAM
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROOM = 1 << 18, WORKERS = 64 };

/* The answers to the lines that one worker has. */
struct batch {
    int used, owed;
    char data[ROOM];
};

static struct worker {
    int in, out;
} workers[WORKERS];

/* A ring: batch b belongs to worker b % count, so order costs nothing but that a quick worker waits for a slow one. */
static struct batch batches[WORKERS];

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void put(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t count = write(fd, data, size);
        if (count < 0)
            fail("write");
        data += count;
        size -= count;
    }
}

static void start(struct worker *worker, char *program)
{
    int in[2], out[2];
    if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC))
        fail("pipe");
    fcntl(in[1], F_SETPIPE_SZ, ROOM);
    fcntl(out[1], F_SETPIPE_SZ, ROOM);
    if (fork() == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        execlp(program, program, NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    *worker = (struct worker){in[1], out[0]};
}

static char input[ROOM];
static int begin, end, ended;

/* Gives a worker so many lines, or what is left. */
static void give(int number, int lines)
{
    struct batch *batch = &batches[number];
    batch->used = batch->owed = 0;
    int at = begin;
    while (batch->owed < lines) {
        char *newline = memchr(input + at, '\n', end - at);
        if (newline) {
            at = newline - input + 1;
            batch->owed++;
            continue;
        }
        if (ended)
            break;
        memmove(input, input + begin, end - begin);
        at -= begin, end -= begin, begin = 0;
        ssize_t count = read(0, input + end, sizeof input - end);
        if (count < 0)
            fail("read");
        end += count;
        ended = count == 0;
    }
    put(workers[number].in, input + begin, at - begin);
    begin = at;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: feed WORKERS IN_FLIGHT PROGRAM\n");
        return 2;
    }
    int count = atoi(argv[1]), lines = atoi(argv[2]);
    int poll = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < count; i++) {
        start(&workers[i], argv[3]);
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        epoll_ctl(poll, EPOLL_CTL_ADD, workers[i].out, &event);
        give(i, lines);
    }
    for (int head = 0; batches[head].owed > 0 || batches[head].used > 0;) {
        struct epoll_event events[WORKERS];
        int ready = epoll_wait(poll, events, WORKERS, -1);
        for (int i = 0; i < ready; i++) {
            struct batch *batch = &batches[events[i].data.u32];
            char *data = batch->data + batch->used;
            ssize_t size = read(workers[events[i].data.u32].out, data, ROOM - batch->used);
            if (size <= 0)
                fail("a worker");
            batch->used += size;
            for (char *stop = data + size; (data = memchr(data, '\n', stop - data)); data++)
                batch->owed--;
        }
        while (batches[head].owed == 0 && batches[head].used > 0) {
            int used = batches[head].used;
            static char done[ROOM];
            memcpy(done, batches[head].data, used);
            give(head, lines);
            put(1, done, used);
            head = (head + 1) % count;
        }
    }
    for (int i = 0; i < count; i++)
        close(workers[i].in);
    while (wait(NULL) > 0)
        ;
    return 0;
}
