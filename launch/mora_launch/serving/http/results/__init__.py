"""What clients get: pictures in the format that they ask for, files that expire, sheets of a video's frames."""
