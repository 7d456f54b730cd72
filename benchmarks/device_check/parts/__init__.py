"""The parts of the check: each module has `run(request, figures)`, which a process of its own calls."""
