"""Where blocks come from: each provider submits, watches and cancels them."""
