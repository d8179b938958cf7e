"""What was shipped, and why: versions, channels, gates, and a log in which nothing can be changed unseen."""
