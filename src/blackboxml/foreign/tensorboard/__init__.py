"""TensorBoard's event files: their records, and the messages in these."""
