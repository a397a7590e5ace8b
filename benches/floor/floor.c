/* The floor that procflow is measured against: starts a program and waits for it, and does nothing else.
 *
 *   cc -O2 -Wall -Wextra -o floor floor.c
 *
 *   floor loop N W PROGRAM   N times, W at once: clone(CLONE_VM|CLONE_VFORK), execve, wait
 *   floor once PROGRAM       posix_spawn, wait
 */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static char stack[64 * 1024] __attribute__((aligned(16)));

static int child(void *program)
{
    char *argv[] = {program, NULL};
    execve(program, argv, environ);
    _exit(127);
}

static void start(char *program)
{
    if (clone(child, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, program) < 0) {
        perror("clone");
        exit(1);
    }
}

static void reap(void)
{
    int status;
    if (wait(&status) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        fprintf(stderr, "floor: the program did not exit with 0\n");
        exit(1);
    }
}

int main(int argc, char **argv)
{
    if (argc == 5 && strcmp(argv[1], "loop") == 0) {
        long total = atol(argv[2]), at_once = atol(argv[3]), running = 0;
        for (long started = 0; started < total; started++) {
            if (running == at_once) {
                reap();
                running--;
            }
            start(argv[4]);
            running++;
        }
        while (running-- > 0)
            reap();
        return 0;
    }
    if (argc == 3 && strcmp(argv[1], "once") == 0) {
        pid_t pid;
        char *child_argv[] = {argv[2], NULL};
        if (posix_spawn(&pid, argv[2], NULL, NULL, child_argv, environ) != 0) {
            perror(argv[2]);
            return 1;
        }
        reap();
        return 0;
    }
    fprintf(stderr, "usage: floor loop N W PROGRAM | floor once PROGRAM\n");
    return 2;
}
