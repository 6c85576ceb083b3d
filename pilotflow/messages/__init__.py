"""Every message between processes: one closed union per direction, typed and versioned.

| module | holds |
|---|---|
| `client` | what the user's program and the interchange say to each other: `ClientMessage`, `ToClient` |
| `manager` | what a manager and the interchange say to each other: `ManagerMessage`, `ToManager` |
| `control` | what another terminal asks the interchange: `ControlMessage`, `ToControl` |
| `records` | what messages of several directions are made of: `Task`, `Result`, loads |
| `views` | what answers to questions about one task are made of |
| `codec` | `PROTOCOL`, envelopes, and how they become bytes and are read again |

On the wire a letter is a header frame and then payload frames. The header is one byte of
protocol version and an envelope with a list of messages, so whatever a process has to say to a peer in one
turn of its loop goes in one letter. Payload frames are opaque: they belong, in order, to the
tasks or results in the header whose `layout` counts them, and are forwarded untouched.

A payload (pickled arguments, a result, an exception) is a list of blobs, and a blob is a pickle
stream in chunks, followed by the stream's out-of-band buffers. A small payload is one chunk and
rides inside the header (`payload`); `layout` is then empty. Otherwise `layout` has two numbers
for each blob, its chunks and its buffers, and all of them are frames.

Questions about one task: another terminal asks the interchange (`ExplainTask`). That asks the run's program what it
knows (`LookUp`: who the task waits for, what becomes of blocks), and the manager that holds the task (`WhereIs`),
and answers with everything (`Explained`). Orders to the program go the same way: `Instruct`, `Instruction`,
`Obeyed`, `Instructed`.
"""
