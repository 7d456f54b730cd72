"""`mora bench learn`: does joint fine-tuning make the chain follow prompts that it never saw?

`variants` are the trainings compared, `data` what they train on, `session` runs one and measures it, `report` computes
means and intervals. `mora_data.seen_shapes` reads from the pixels what a clip shows.
"""
