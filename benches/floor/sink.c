/* The cheapest reader: reads and forgets. */
#include <unistd.h>

int main(void)
{
    static char block[1 << 17];
    ssize_t count;
    while ((count = read(0, block, sizeof block)) > 0)
        ;
    return count < 0;
}
