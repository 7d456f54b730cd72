"""The plan of a training job: memory of every device in every phase, needs of the host, step time, better placements.

It comes from the numbers of parameters, from what each environment counts on the meta device, and from stated rates.
`--dry-run` prints it; `train` refuses a job that does not fit on the GPUs of the machine.
"""
