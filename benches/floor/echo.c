/* The cheapest worker that answers each line with one: what it has read, at once. */
#include <unistd.h>

int main(void)
{
    static char block[1 << 16];
    ssize_t count;
    while ((count = read(0, block, sizeof block)) > 0)
        for (ssize_t done = 0; done < count;) {
            ssize_t written = write(1, block + done, count - done);
            if (written < 0)
                return 1;
            done += written;
        }
    return count < 0;
}
