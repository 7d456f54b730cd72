"""Every number that limits something in the runtime."""

MAX_FRAME_NBYTES = 64 << 10  # one message; bulk data never rides in it
MAX_STRING_LENGTH = 32 << 10
MAX_LIST_LENGTH = 1024
MAX_NUM_ARGUMENTS = 64
MAX_NUM_TENSORS = 64  # in one message
MAX_NUM_DIMENSIONS = 8
MAX_NUM_TICKETS = 64  # graphs that one server holds
MAX_NUM_SEGMENTS = 1024  # descriptors taken from one peer
MAX_NUM_CANCELLED = 1024  # CANCELs that a server remembers
MAX_NUM_RELEASES = 1024  # leases given back in one message
ALIGNMENT_NBYTES = 64
MIN_SLOT_NBYTES = 4 << 10
GROWTH_NBYTES = 32 << 20  # least by which a pool grows; a multiple of the size of a huge page
WARM_NBYTES = 64 << 20  # of a pool, made and touched when a process starts
DEFAULT_SPILL_NBYTES = 1 << 30
SLOT_DEADLINE_S = 30.0  # that a tensor waits for slots to come back when pool and spill are full
INLINE_TENSOR_NBYTES = 4 << 10  # up to this size a tensor rides in the frame, where a slot would cost more than it
MAX_INLINE_NBYTES = 32 << 10  # of all such tensors of one message
MAX_LOG_NBYTES = 64 << 20  # of a role's log, and as much of what is older
MAX_SEGMENT_NBYTES = 1 << 40
MAX_NUM_TRACE_EVENTS = 1_000_000  # of one traced process: about 120 MB in its file
TRACE_PERIOD_S = 0.1  # between two writes of a trace and two samples of its counters
DEVICE_ALIGNMENT_NBYTES = 256  # of slots; what cudaMalloc itself promises
DEVICE_GRANULE_NBYTES = 2 << 20  # CUDA packs smaller allocations together, and a handle gives the whole of them away
NUM_DEVICE_EVENTS = 64  # inter-process events of one pool; drivers stop at about a thousand in a process
DEVICE_SPIN_S = 100e-6  # asking the device without a pause; afterwards a waiting thread sleeps between questions
DEVICE_DEADLINE_S = 10.0  # for our own kernels to finish with a slot, when no other is free
DEFAULT_ARENA_NBYTES = 256 << 20
MAX_SOCKET_PATH_NBYTES = 100  # the kernel allows 107; temporary suffixes need a little
HIGH_WATER_MARK = 256  # messages queued for one peer
HANDSHAKE_TIMEOUT_S = 5.0
MAX_NUM_WAITING = 64  # doorbells that have not said yet whose they are
LONGEST_SPIN_NS = 2_000_000  # that a process looks for the next message before it sleeps; see `spin`
SHORTEST_SPIN_NS = 50_000
HEARTBEAT_INTERVAL_S = 2.0
HEARTBEAT_TIMEOUT_S = 60.0  # ZeroMQ's own; a stopped process is the supervisor's to judge
DOORBELL_DEADLINE_S = 10.0  # for a descriptor to arrive that was sent before its message
"""Descriptors are sent before the messages that need them, so waiting this long means that they never were."""

MAX_SHARD_NAME_LENGTH = 512  # of a checkpoint's file, relative to its folder
MAX_SHARD_NAME_PARTS = 8
MAX_ROLE_LINE_NBYTES = 64 << 10  # one message on the link between a child and the launcher
MAX_NUM_VITALS = 64  # entries of one heartbeat
MAX_VITAL_LENGTH = 256  # characters of a name, or of a text, among them
MAX_CHILD_ERROR_LENGTH = 8 << 10  # characters; several lines for a person to read, and one line of JSON
