"""Replacing redundant operators by cheaper ones (NAT) will live here; nothing does yet."""
