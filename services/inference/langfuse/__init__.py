"""Generations shown in Langfuse, each with the prompt version it was made from. Optional, and never in the way."""
