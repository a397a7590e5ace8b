"""Python's way to have four processes answer lines: imap.py CHUNKSIZE. Standard input to standard output, in order."""

import multiprocessing
import sys


def answer(line):
    return line


if __name__ == "__main__":
    with multiprocessing.Pool(4) as pool:
        for result in pool.imap(answer, sys.stdin.buffer, chunksize=int(sys.argv[1])):
            sys.stdout.buffer.write(result)
