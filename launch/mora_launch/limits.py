"""All limits of the launcher: on requests, files, decoders and waits."""

MAX_JSON_NBYTES = 1 << 20  # of a JSON body without its data: URLs
MAX_JSON_DEPTH = 8
MAX_NUM_JSON_VALUES = 20_000  # an upper estimate: commas and brackets inside strings count too
MAX_FORM_FIELD_NBYTES = 1 << 20
MAX_NUM_FORM_FIELDS = 64
MAX_NUM_FILES = 4  # of one request
SMALL_BODY_NBYTES = 64 << 10  # bodies up to this size are accepted even when MAX_BODIES_NBYTES is used up
MAX_BODIES_NBYTES = 256 << 20  # of all larger bodies being processed; more than one upload always fits
BODY_WINDOW_S = 10.0  # in each window, a body must arrive at MIN_BODY_RATE or end
MIN_BODY_RATE = 64 << 10  # bytes per second
HEAD_DEADLINE_S = 15.0  # for the first line and headers of a request
MAX_PICTURE_NUM_PIXELS = 48 << 20  # of a picture or frame: enough for phone photos, 256 times a model's input
MAX_NUM_SCANS = 64  # of a progressive JPEG; encoders write about ten
MAX_SCANNED_NUM_PIXELS = 512 << 20  # of a progressive JPEG, each pixel counted once per scan
MAX_VIDEO_NUM_PIXELS = 1 << 31  # of all frames of a video together: 1,000 of 1920x1080
MAX_CLIP_NBYTES = 2 << 30  # decoded, at the model's size
DECODE_DEADLINE_S = 30.0  # of one picture or video
DECODER_MEMORY_NBYTES = 2 << 30  # on top of what a decoder uses when it starts
SMALL_PICTURE_NUM_PIXELS = 5 << 20  # one worker is reserved for pictures up to this size
MAX_NUM_GIF_BLOCKS = 300_000  # the most that a GIF of 64 MB contains
MAX_ANIMATION_NUM_PIXELS = 1 << 29  # of all frames of a gif or WebP; they are slower to decode than other videos
MAX_NUM_BOXES = 4096  # of an AVIF's headers
MAX_NUM_TIFF_FIELDS = 1024
MAX_NUM_PNG_CHUNKS = 128  # not counting image data, which comes in chunks of 1 KiB or more
SMALL_PICTURE_NBYTES = 1 << 20
SMALL_DECODE_DEADLINE_S = 5.0
MAX_WAIT_S = 5.0  # a decoding job that has waited so long runs before all later ones, whatever they cost
MAX_NUM_CONNECTIONS = 1024  # from one other user or address
MAX_LEFT_OVER_NBYTES = 1 << 20  # of a body that is not read; a longer one closes the connection
WRITE_DEADLINE_S = 20.0  # for a client that reads nothing of its answer
SOCKET_BUFFER_NBYTES = 256 << 10  # of the kernel, for each direction of a connection
MAX_NUM_STAGE_PICTURES = 12  # that a job keeps, each of some kilobytes: the first and the latest
STAGE_PICTURE_SIDE = 160  # pixels
MAX_NUM_REVIEWERS = 32  # of one job who are shown to each other
MAX_REVIEWER_LENGTH = 60  # of a reviewer's name
MAX_NUM_KEPT_VIDEOS = 2000  # jobs that have ended, without stopped reviews; the oldest of the tenant with most expire
MAX_NUM_KEPT_PICTURES = 10_000  # as files with an address; the oldest expire first
MAX_KEPT_PICTURES_NBYTES = 1 << 30  # of all of them together

# files
MAX_REPEATED_RUN_NBYTES = 16 << 20
MAX_NUM_STAGES = 1000
MAX_NUM_STAGE_STEPS = 200  # of one stage
MAX_PATH_LENGTH = 4096
MAX_RECORDED_TEXT_LENGTH = 20_000
MAX_INPUT_FILE_NBYTES = 2 << 30  # of one file; the limits on decoded data are above
MAX_LOG_LINE_NBYTES = 1 << 20
MAX_STATUS_NBYTES = 16 << 20
MAX_CONFIG_NBYTES = 1 << 20
MAX_PROMPTS_FILE_NBYTES = 16 << 20  # of a list {file: prompt}
MAX_RESULTS_NBYTES = 1 << 30  # of the lines of an evaluation
MAX_NUM_CONFIG_NODES = 100_000  # an alias counts as everything that it repeats
MAX_CONFIG_DEPTH = 32
MAX_CONFIG_NUMBER_LENGTH = 100
MAX_TOKEN_FILE_NBYTES = 64 << 10
MAX_FRAMES_FILE_NBYTES = 2 << 30
MAX_FRAMES_HEADER_NBYTES = 4096
MAX_REVIEW_STATE_NBYTES = 1 << 20
MAX_RECORD_NBYTES = 64 << 20  # of a record of a round; a judge's record contains its raw answers
MAX_DATA_RECORD_NBYTES = 256 << 20  # of the list of a run's data files
MAX_STAMP_NBYTES = 4096
MAX_MANIFEST_NBYTES = 16 << 10  # of `mora-env.toml`; parsing dotted keys takes quadratic time
MAX_ANSWER_NBYTES = 4 << 20  # of an environment about options, of an interpreter about itself

# requests and their answers
MAX_PROMPT_ANSWER_LENGTH = 2000  # characters; the prompt agent asks for 70 words
MAX_SEED = 2**31 - 1
MAX_NUM_STEPS = 1000  # denoising steps of a request
MAX_FPS = 120.0  # of a result
MAX_PRIORITY = 1000  # of a request, in either direction
MAX_NUM_AGAIN = 3  # new seeds for one stage of a review
MAX_NUM_EDITS = 40  # new prompts and adjustments for one stage
MAX_REFUSAL_LENGTH = 2000
MAX_NUM_WARNINGS = 10  # logged per minute
MAX_NUM_PIECES = 256  # line ends in one read; above it, the average length of the pieces is checked
MAX_DIAG_ANSWER_NBYTES = 4096
DIAG_DEADLINE_S = 1.0
MAX_CAUSE_LENGTH = 300
MAX_ADDRESS_LENGTH = 2000
MAX_NUM_LISTED_VIDEOS = 100
MAX_NUM_IMAGES = 10
MAX_NUM_QUESTIONS = 40  # of one tenant to the prompt agent's endpoint at a time; others wait
MAX_REVIEW_BODY_NBYTES = 1 << 14  # enough for the press of a button
MAX_REVIEW_NUMBER = 1_000_000
MAX_NUM_RUNS = 2  # of one work: it runs once more if its server dies
MAX_BATCH_TEXT_NBYTES = 40_000  # so that it fits into a message of 64 KiB

# decoders
MAX_NUM_DECODER_FILES = 64
MAX_NUM_JPEG_SEGMENTS = 2000  # before the first scan; a camera writes a few dozen
MAX_PACKET_NBYTES = 16 << 10
MAX_SIDE = 16384
AFTER_DEADLINE_S = 2.0  # for the decoder to report a timeout itself before it is killed

# machine
MIN_NUM_OPEN_FILES = 256  # of one process; a role of a small job opens about 40, `serve` one more for each connection

# waits
BUILD_LOCK_DEADLINE_S = 1800.0
BUILD_STEP_DEADLINE_S = 3600.0  # torch alone is gigabytes
TINY_MODELS_DEADLINE_S = 3600.0  # ten times what an idle core needs
CHECK_DEADLINE_S = 60.0
EXPORT_DEADLINE_S = 3600.0  # of an environment that merges adapters into weights
COST_DEADLINE_S = 300.0  # of an environment that runs its models on the meta device
CONTROL_DEADLINE_S = 10.0
