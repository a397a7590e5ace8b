/* The cheapest writer of lines: one block of them, made once, again and again.
 *
 *   lines LENGTH MIB      lines of LENGTH bytes, newline included
 *
 * A line begins with one of 1,000 keys and a space, as far as that fits.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BLOCK = 1 << 17 };

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: lines LENGTH MIB\n");
        return 2;
    }
    int length = atoi(argv[1]);
    long long left = atoll(argv[2]) << 20;
    if (length < 8 || length > BLOCK)
        return 2;
    static char block[BLOCK];
    int size = BLOCK / length * length;
    unsigned key = 1;
    memset(block, 'x', sizeof block);
    for (char *line = block; line < block + size; line += length) {
        char word[16];
        key = key * 1664525u + 1013904223u;
        memcpy(line, word, snprintf(word, sizeof word, "k%u ", (key >> 8) % 1000));
        line[length - 1] = '\n';
    }
    for (left = left / size * size; left > 0;) {
        ssize_t done = 0;
        while (done < size) {
            ssize_t count = write(1, block + done, size - done);
            if (count < 0)
                return 1;
            done += count;
        }
        left -= size;
    }
    return 0;
}
