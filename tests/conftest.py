"""What all tests start from."""

from __future__ import annotations

import signal

# `make test &` and nohup start us with Ctrl-C ignored, which the programs under test would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
