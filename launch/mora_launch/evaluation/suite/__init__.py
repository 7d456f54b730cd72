"""What is measured on which videos: dimensions, VBench's prompts, sources of videos, generation of the suite."""
