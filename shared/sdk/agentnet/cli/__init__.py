"""The command line: `agentnet`."""
