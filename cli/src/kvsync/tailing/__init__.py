"""`kvsync tail`: a publisher's stream as lines of text, gaps and restarts marked."""
