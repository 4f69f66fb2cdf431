"""C99 source of an integer program: integers only, static memory, no allocation, no library.

`writer` writes a folder: the network as one `.c` and one `.h` file, a program that runs samples and
compares every bit with a recording, and a Makefile. The source is a plain statement of the
semantics (`exports/netx/FORMAT.md`): what a compiler makes of it is one more independent executor.
"""

from exports.c.writer import file_names, write_c

__all__ = ["file_names", "write_c"]
