"""The report's part on runs of strategies: accuracy, forgetting, memory and time over a stream of tasks."""
