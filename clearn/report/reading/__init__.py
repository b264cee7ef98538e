"""The report's part on runs that read documents: right answers, what the memory adds, retention, bytes and seconds."""
