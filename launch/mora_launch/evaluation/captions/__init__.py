"""VideoTI: captions of pictures and videos, and how near they are to each other."""
