"""Do it, safely."""
