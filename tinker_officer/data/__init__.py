"""What is learned from: conversations, their shapes, their tokens."""
