"""Every number that limits what the launcher takes from others: requests, files, processes."""

MAX_JSON_NBYTES = 1 << 20  # of a JSON body without its data: URLs
MAX_FORM_FIELD_NBYTES = 1 << 20
MAX_NUM_FORM_FIELDS = 64
MAX_NUM_FILES = 4  # of one request
SMALL_BODY_NBYTES = 64 << 10  # such bodies pass even when all others have used up their room
MAX_BODIES_NBYTES = 256 << 20  # of all larger bodies that are being worked on; more than one upload always fits
BODY_WINDOW_S = 10.0  # within each of which a body must bring
MIN_BODY_RATE = 64 << 10  # so many bytes a second, or its end
HEAD_DEADLINE_S = 15.0  # for the first line and headers of a request
MAX_PICTURE_NUM_PIXELS = 48 << 20  # of a picture or frame: a telephone's photographs, 256 times what models take
MAX_NUM_SCANS = 64  # of a progressive JPEG; encoders write about ten
MAX_SCANNED_NUM_PIXELS = 512 << 20  # of a progressive JPEG, each pixel counted once a scan
MAX_VIDEO_NUM_PIXELS = 1 << 31  # of all frames of a video together: 1,000 of 1920x1080
MAX_CLIP_NBYTES = 2 << 30  # decoded, at the model's size
DECODE_DEADLINE_S = 30.0  # of one picture or video
DECODER_MEMORY_NBYTES = 2 << 30  # beyond what a decoder takes when it starts
SMALL_PICTURE_NUM_PIXELS = 5 << 20  # decoded by a worker that takes no larger ones
MAX_NUM_GIF_BLOCKS = 1_000_000
