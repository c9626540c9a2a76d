"""Criteria score the channels of a gene: which to keep longest, and what each width is worth."""
