"""The paper's tables and figures: its numbers, the runs that produce ours, and both side by side."""
