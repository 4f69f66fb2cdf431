"""Work on parts of the samples: in this process, in several processes, or on a Dask cluster.

A function and what its parts share travel once to each worker, parts one by one, so that workers
need no file of the caller. A worker that dies costs the part it was at, which another one takes.
Results of parts are put together by the caller, in the order of the samples; a function of which
that gives another result than all samples at once has no place here.

`work` (what is done with each part) -> `process` (one worker process, whose inside is `serve`) ->
`pools` (the three kinds of workers).
"""

from toolchain.workers.pools import Workers, open_workers
from toolchain.workers.work import Work

__all__ = ["Work", "Workers", "open_workers"]
