"""What a profile looks like: the summary as JSON, the page, the pictures of lanes, the terminal."""
