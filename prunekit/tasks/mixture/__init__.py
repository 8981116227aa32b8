"""Several text-to-text tasks as one."""
