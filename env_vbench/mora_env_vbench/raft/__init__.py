"""RAFT: optical flow, for dynamic degree, and the formula of temporal flickering."""
