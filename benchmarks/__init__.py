"""Times a kernel only after it has passed its contract on the same inputs, beside the machine's own ceilings."""
