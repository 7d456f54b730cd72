"""`mora bench learn`: does joint fine-tuning make the chain do what prompts say that it never saw?

`variants` are the trainings compared, `data` what they train on, `session` runs one and measures it, `report` makes
means and intervals of it. `benchmarks.agreement` reads off the pixels what a clip shows.
"""
