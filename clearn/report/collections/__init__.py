"""The report's part on runs of protocols: error, privacy loss and cost over the rounds of a collection."""
