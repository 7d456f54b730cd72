"""Training data: decoding of videos into clips, data sets, and clips of moving shapes. Needs no torch."""
