"""The paper's tables and figures: what each row is trained from, and the runs that give its numbers."""
