"""The project: what is shared between the apps, and where they are put together."""

import os

# NumPy's BLAS starts a thread for each core when it is imported: a tenth of a second of processor time in each process.
# Nothing here multiplies matrices; what does, in a sandbox, is told its threads.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
