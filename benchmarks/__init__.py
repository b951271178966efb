"""What recording, sealing and reading cost, against the floors that nothing can go below."""
