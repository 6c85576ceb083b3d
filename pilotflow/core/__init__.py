"""The deciding half of pilotflow: state machines that take events and a time, and say what to do.

Nothing here reads a clock, opens a socket or starts a process, so whole clusters run in tests in
milliseconds.
"""
