"""The box's daemons, and what they share."""

import os

# Read by onnxruntime when it is first imported, by whoever that is: it reports to its maker otherwise.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
