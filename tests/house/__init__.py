"""What the front door and the documents promise."""
