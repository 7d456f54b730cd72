"""Decoding of pictures and videos from clients, in worker processes that can be killed.

`picture` and `video` decode, in a worker or, for the user's own files, in the calling process. `picture_header` and
`video_header` tell the cost of decoding before it begins. `worker` is the process, `worker_process` its parent's end,
`pool` the queue in front of the workers.
"""
