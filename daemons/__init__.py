"""The box's daemons, and what they share."""

import os

# Read by onnxruntime when it is first imported, by whoever that is: it reports to its maker otherwise.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
# And by numpy: threads of its own spin for a while after each product of matrices, on cores that the engines want.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
