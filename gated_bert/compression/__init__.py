"""What happens to a pruned model: smaller matrices, statistics, export."""
