"""The coordinator of joint training: algorithm 1 of the Mora paper over agents in other processes."""
