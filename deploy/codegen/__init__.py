"""What is derived from the contract, and the checks on it."""
