"""The one reader of pictures and videos: it gives frames as a player shows them.

Turned, mirrored, with square pixels, without interlacing, in sRGB over white, at the time of their timestamps. The
command line, HTTP, training, judges and evaluation all use it. Needs PyAV, Pillow and numpy, no torch.
"""
