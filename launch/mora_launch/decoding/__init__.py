"""Decoding what clients send: pictures and videos become frames in worker processes that can be killed.

`picture` and `video` decode, in the worker or, for files of the user's own, in place. `picture_header` and
`video_header` tell what decoding will cost before it begins. `worker` is the process, `worker_process` its parent's
end, `pool` the queue before the workers.
"""
