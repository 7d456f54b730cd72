"""The coordinator of joint training: algorithm 1 of the Mora paper over agents that live in other processes."""
