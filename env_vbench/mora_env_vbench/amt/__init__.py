"""AMT-S: the frame between two frames, for motion smoothness."""
